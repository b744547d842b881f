"""The W&B Report: its words and numbers, and that a server gets it."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from analysis import wandb_report
from lib.spec.load import load_study
from tests.conftest import ROOT, call
from tests.fakes.wandb_server import WandbServer
from tests.fakes.wandb_state import ENTITY

FOLDER = ROOT / "analysis" / "results" / "gtsrb_precision"
PATH = f"{ENTITY}/gtsrb/sweep0"


def test_it_arrives_with_our_words_and_tables(server: WandbServer, online: dict[str, str]) -> None:
    if importlib.util.find_spec("wandb_workspaces") is None:
        pytest.skip("wandb-workspaces, an optional extra, is not installed")
    done = call("-m", "analysis.wandb_report", PATH, "gtsrb_precision", env=online)
    assert done.returncode == 0, done.stderr
    assert f"saved: {server.url}/{ENTITY}/gtsrb/reports/" in done.stdout
    (view,) = server.views
    spec = json.dumps(json.loads(view["spec"]), ensure_ascii=False)
    results = json.loads((FOLDER / "results.json").read_text())
    assert results["contrasts"][0]["sentence"] in spec
    assert "| batch normalization, bfloat16 " in spec
    for words in ('"xAxis": "epoch"', '"metrics": ["val/error"]', '"value": "sweep0"'):
        assert words in spec, spec[-4000:]


def test_without_the_package_it_says_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    study = load_study("gtsrb_precision")
    results = json.loads((FOLDER / "results.json").read_text())
    with pytest.raises(wandb_report.ReportError, match="pip install wandb-workspaces"):
        wandb_report.build(PATH, results, study, ["val/error"])
    with pytest.raises(
        wandb_report.ReportError, match="must be entity/project/sweep_id, got 'e/p'"
    ):
        wandb_report.build("e/p", results, study, [])


def test_no_results_are_reported(tmp_path: Path, online: dict[str, str]) -> None:
    done = call(
        "-m",
        "analysis.wandb_report",
        PATH,
        tmp_path,
        "--sweep",
        ROOT / "sweeps" / "gtsrb.yaml",
        env=online,
    )
    assert done.returncode == 1
    assert "results.json" in done.stderr
    assert "Traceback" not in done.stderr
