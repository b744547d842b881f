"""colab.ipynb, from top to bottom, with a real kernel: offline, on synthetic signs."""

import subprocess
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT


def notebook() -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "colab.ipynb", as_version=4)


def test_the_notebook_is_valid_and_without_outputs() -> None:
    found = notebook()
    nbformat.validate(found)
    assert not [cell for cell in found.cells if cell.get("outputs")]


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(
    offline: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The project is a clone of this one; its sweep has two seeds and one epoch instead."""
    clone = tmp_path / "project"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    sweep = clone / "sweeps" / "demo_gtsrb.yaml"
    text = sweep.read_text().replace(
        "seed: {values: [0, 1, 2, 3, 4, 5, 6]}", "seed: {values: [0, 1]}"
    )
    assert text != sweep.read_text()
    sweep.write_text(text)
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", *identity, "commit", "-qam", "two seeds"], cwd=clone, check=True)
    for name, value in offline.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.delenv("WANDB_DIR")
    monkeypatch.setenv("REPOSITORY", str(clone))
    work = tmp_path / "work"
    work.mkdir()
    found = notebook()
    client = NotebookClient(found, timeout=600, resources={"metadata": {"path": str(work)}})
    client.execute()
    assert "8 of 8 runs finished" in str(found.cells)
    assert (work / "study" / "results" / "demo_gtsrb" / "report.html").exists()
    assert "<iframe srcdoc=" in str(found.cells[-1]["outputs"])
