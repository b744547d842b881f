"""The documentation: what it shows runs, what it lists is all there is."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from lib.spec.declaration import DECLARING, read_declaration
from tests.conftest import ROOT


def test_the_functions_in_methods_run() -> None:
    text = (ROOT / "docs" / "methods.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(code, {})


def test_methods_name_every_key_that_decides() -> None:
    text = " ".join((ROOT / "docs" / "methods.md").read_text().split())
    assert f"({', '.join(DECLARING)})" in text


def test_relative_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)


def test_the_study_of_the_page_runs_as_printed(offline: dict[str, str], tmp_path: Path) -> None:
    text = (ROOT / "docs" / "own-study.md").read_text()
    for block in re.findall(r"```(?:python|yaml)\n(.*?)```", text, re.DOTALL):
        name = re.match(r"# (\S+)", block)[1]
        (tmp_path / name).write_text(block)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "circle.py",
        "circle.yaml",
        "declared.yaml",
    ]
    commands = re.findall(r"```\n(python -m lib.*?)```", text, re.DOTALL)[0].splitlines()
    env = offline | {"PYTHONPATH": str(ROOT)}
    for line in commands:
        words = [sys.executable, *shlex.split(line)[1:]]
        done = subprocess.run(
            words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    page = (tmp_path / "results" / "circle" / "report.md").read_text()
    assert "A layer of 32 units gives a lower (better) test error than a layer of 4 units" in page


def test_the_readmes_declaration_can_be_read(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    path = tmp_path / "declared.yaml"
    path.write_text(block)
    assert read_declaration(path).factors == {"hidden": [4, 32]}


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 220
    assert len(text.split()) <= 2200
