"""Offline runs of other people's scripts, written by the real client: what they log, and how."""

from pathlib import Path
from typing import Any

import pytest

from analysis import report as report_module
from analysis.runs.collect import collect
from analysis.runs.record import FetchError
from analysis.runs.sources import Request, resolve
from tests import factories
from tests.conftest import ROOT, call

# Two variants × six seeds in one process; `shapes` says what is unusual.
SCRIPT = """\
import sys
import numpy as np
import wandb

shapes = set(sys.argv[1].split(","))
for algo in "ab":
    for seed in range(6):
        v = round(0.05 - 0.01 * (algo == "b") + 0.0007 * ((5 * seed) % 7), 6)
        config = {"algo": algo, "seed": seed, "epochs": 2}
        if "lr logged" in shapes:
            config["lr"] = 0.1
        if "nested config" in shapes:
            config |= {"train": {"epochs": 2}, "model": {"width": 8}}
        if "list" in shapes:
            config["layers"] = [64, 32]
        run = wandb.init(config=config)
        if "min" in shapes:
            run.define_metric("test/error", summary="min")
        for epoch in (1, 2):
            row = {"epoch": epoch, "val/error": v + 0.01 / epoch}
            if "lr logged" in shapes:
                row["lr"] = 0.1 / epoch
            if "text" in shapes:
                row["stage"] = "warmup" if epoch == 1 else "main"
            if "nested rows" in shapes:
                row["train"] = {"loss": 1 / epoch + v}
            if "numpy" in shapes:
                row |= {"val/error": np.float32(row["val/error"]), "epoch": np.int64(epoch)}
            if "inf" in shapes:
                row["val/loss"] = float("inf") if epoch == 1 else 0.5
            run.log(row)
        if "min" in shapes:
            run.log({"epoch": 2, "test/error": v + 1})
            run.log({"epoch": 2, "test/error": v})
        elif "percent" in shapes:
            run.summary["test/error"] = f"{100 * v:.2f} %"
        elif "nan" in shapes and (algo, seed) == ("b", 3):
            run.summary["test/error"] = float("nan")
        else:
            run.summary["test/error"] = v
        run.finish(exit_code=int("crash" in shapes and (algo, seed) == ("b", 3)))
"""


def graded(offline: dict[str, str], tmp_path: Path, shapes: str) -> dict[str, Any]:
    """Run the script, fetch and report; return the only contrast."""
    runs = tmp_path / "runs"
    runs.mkdir()
    done = call("-c", SCRIPT, shapes, env=offline)
    assert done.returncode == 0, done.stderr
    sweep = factories.grid(tmp_path / "s.yaml", {"algo": ["a", "b"]}, 6)
    study, sources, out = resolve(Request([str(runs)], sweep=sweep, out=tmp_path / "out"))
    print(collect(sources, out, study))
    (row,) = report_module.report(study, out, draw=False)["contrasts"]
    return row


def test_much_that_is_unusual_at_once(
    offline: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shapes = "lr logged,nested config,list,min,text,nested rows,numpy,inf"
    row = graded(offline, tmp_path, shapes)
    assert row["difference"] == pytest.approx(-0.01)
    assert (row["n"], round(row["p"], 4)) == (6, 0.0312)
    assert "dropping history columns that contain text: stage" in capsys.readouterr().out
    head = (tmp_path / "out" / "runs.csv").read_text().splitlines()[0]
    for column in ("config.train.epochs", "config.layers", "summary.lr", "summary.test/error.min"):
        assert column in head.split(",")
    assert "train.loss" in (tmp_path / "out" / "history.csv").read_text().splitlines()[0]

    without_sweep(tmp_path / "runs", tmp_path, row)


def without_sweep(runs: Path, folder: Path, expected: dict[str, Any]) -> None:
    """Report the same runs without a sweep: the levels are the declared factors' in the runs."""
    with pytest.raises(FetchError, match=r"^no sweep is known for the runs in .*Pass the sweep's"):
        resolve(Request([str(runs)], out=folder / "none"))
    plan = folder / "mine.yaml"
    asked = Request([str(runs)], declaration=plan, out=folder / "own")
    with pytest.raises(FetchError, match=r"mine\.yaml not found; no sweep is known for the runs"):
        resolve(asked)
    plan.write_text("metric: test/error\n")
    with pytest.raises(FetchError, match=r"add `factors:` .*; keys that vary .*: algo, seed$"):
        resolve(asked)
    for compared in ("factors: {algo: [a, b]}", "arms: {first: {algo: a}, second: {algo: b}}"):
        plan.write_text(f"metric: test/error\n{compared}\n")
        study, sources, out = resolve(asked)
        assert (study.name, sources, out) == ("mine", [], folder / "own")
        (row,) = report_module.report(study, out, draw=False)["contrasts"]
        for key in ("p", "difference", "runs"):
            assert row[key] == expected[key]
    some = Request([str(runs)], declaration=plan, out=folder / "some", filters={"config.seed": 1})
    study, _, out = resolve(some)
    assert study.seeds == [1]


def test_the_sweeps_of_a_declaration_are_found(tmp_path: Path) -> None:
    """Pooled ones too; nothing is read yet, and the committed tables stay as they are."""
    study_folder = ROOT / "analysis" / "studies"
    (tmp_path / "gtsrb_400").mkdir()
    (tmp_path / "x").mkdir()
    for name in ("gtsrb_400", "gtsrb_short"):
        given = Request([str(tmp_path / "x")], declaration=study_folder / f"{name}.yaml")
        study, sources, _ = resolve(given)
        assert (study.name, sources) == (name, [str(tmp_path / "x")])
    with_out = Request(["e/p"], declaration=study_folder / "gtsrb_400.yaml", out=tmp_path / "out")
    assert resolve(with_out)[1:] == (["e/p"], tmp_path / "out"), "of a project too"
    study, sources, _ = resolve(Request([str(tmp_path / "gtsrb_400")]))
    assert [sweep.name for sweep in study.sweeps] == ["gtsrb_400_template", "gtsrb_400_ours"]
    assert sources == [str(tmp_path / "gtsrb_400")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    ["lr logged", "nested config", "list", "min", "text", "nested rows", "numpy", "inf", "none"],
)
def test_each_that_is_unusual(offline: dict[str, str], tmp_path: Path, shape: str) -> None:
    assert graded(offline, tmp_path, shape)["difference"] == pytest.approx(-0.01)


@pytest.mark.slow
def test_a_score_that_is_nan_has_failed(offline: dict[str, str], tmp_path: Path) -> None:
    row = graded(offline, tmp_path, "nan")
    assert (row["n"], row["n_trained"]) == (6, 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("percent", "test/error in the summary must be a finite number, got '5.00 %'"),
        ("crash", "algo=b, seed=3: run"),
    ],
)
def test_runs_that_cannot_be_compared(
    offline: dict[str, str], tmp_path: Path, shape: str, message: str
) -> None:
    with pytest.raises(report_module.IncompleteError) as error:
        graded(offline, tmp_path, shape)
    assert message in str(error.value)


def test_a_folder_without_runs(tmp_path: Path) -> None:
    sweep = factories.grid(tmp_path / "s.yaml", {"algo": ["a", "b"]}, 6)
    (tmp_path / "runs").mkdir()
    asked = Request([str(tmp_path / "runs")], sweep=sweep, out=tmp_path / "out")
    study, sources, out = resolve(asked)
    with pytest.raises(FetchError, match=r"no offline runs in .*; pass the folder that contains"):
        collect(sources, out, study)
