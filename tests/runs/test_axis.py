"""Histories over epochs, steps and fractions; summaries that are mappings; text among numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.runs import axis, histories, wandb_server
from analysis.runs.collect import collect
from analysis.runs.load import load_data
from analysis.runs.record import Fetched, build_record
from analysis.runs.tables import read_tables
from tests import factories

NAN = float("nan")
# As people's scripts log: rows of one run, the axis that is found, its values.
SHAPES: dict[str, tuple[list[dict[str, Any]], str, list[float]]] = {
    "ours": ([{"epoch": 1, "val/error": 0.3}, {"epoch": 2, "val/error": 0.2}], "epoch", [1, 2]),
    "lightning": (
        [
            {"epoch": 0, "trainer/global_step": 10, "train/error": 0.4},
            {"epoch": 0, "trainer/global_step": 10, "val/error": 0.3},
            {"epoch": 1, "trainer/global_step": 20, "val/error": 0.2},
        ],
        "epoch",
        [0, 1],
    ),
    "hugging face": (
        [
            {"train/epoch": 0.5, "train/global_step": 50, "train/loss": 1.0},
            {"train/epoch": 1.0, "train/global_step": 100, "eval/error": 0.3},
        ],
        "train/epoch",
        [0.5, 1],
    ),
    "steps": (
        [{"global_step": 1000, "val/error": 0.3}, {"global_step": 2_000_000, "val/error": 0.2}],
        "global_step",
        [1000, 2_000_000],
    ),
    "an epoch that stays 0": (
        [{"epoch": 0, "step": 10, "val/error": 0.3}, {"epoch": 0, "step": 20, "val/error": 0.2}],
        "step",
        [10, 20],
    ),
    "no axis": ([{"val/error": 0.3}, {"val/error": 0.2}], "_step", [0, 1]),
    "resumed": (
        [{"epoch": 1, "val/error": 0.9}, {"epoch": 1, "val/error": 0.3}],
        "epoch",
        [1],
    ),
}


def record(rows: list[dict[str, Any]], summary: dict[str, Any] | None = None) -> Fetched:
    """Return a run with history ``rows`` as the sources give it."""
    steps = [row | {"_step": i} for i, row in enumerate(rows)]
    return build_record("a", "finished", 0, "x", {"seed": 0}, summary or {}, steps)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_axis_is_found(shape: str) -> None:
    rows, name, values = SHAPES[shape]
    run = record(rows)
    assert axis.find([run.logged]) == name
    assert [row[name] for row in run.history] == values
    assert {key for row in run.history for key in row} >= {"run_id", name}


def test_all_runs_must_have_the_axis() -> None:
    both = [{"epoch": 1, "global_step": 5, "val/error": 0.3}]
    steps = [{"global_step": 5, "val/error": 0.3}]
    assert axis.find([both, both]) == "epoch"
    assert axis.find([both, steps]) == "global_step"
    assert axis.find([both, []]) == "epoch"
    assert axis.find([]) == "epoch"
    assert axis.find([[{"epoch": 1}]]) == "epoch"  # no metric at all
    assert (axis.label("train/global_step"), axis.label("_step")) == ("Global step", "Step")


def test_rows_without_a_number_on_the_axis_are_counted() -> None:
    rows = [{"epoch": 1, "val/error": 0.3}, {"epoch": NAN, "val/error": 0.2}]
    rows += [{"epoch": "two", "val/error": 0.2}, {"media": 3}]
    kept, dropped = record(rows).over("epoch")
    assert ([row["epoch"] for row in kept], dropped) == ([1], 2)


def test_a_summary_that_is_a_mapping() -> None:
    """As define_metric(summary="min") leaves it; a picture's mapping is none."""
    rows = [{"epoch": 1, "test/error": 0.4}, {"epoch": 2, "test/error": 0.5}]
    summary = {"test/error": {"min": 0.4}, "val/error": {"max": 0.9, "last": 0.7}}
    summary |= {"picture": {"_type": "image-file", "size": 3}, "plain": 1}
    row = record(rows, summary).row
    found = {k.removeprefix("summary."): v for k, v in row.items() if k.startswith("summary.")}
    assert found == {
        "test/error.min": 0.4,
        "test/error": 0.5,
        "val/error.max": 0.9,
        "val/error.last": 0.7,
        "val/error": 0.7,
        "plain": 1,
    }


def collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: dict[str, list], **declared: Any
) -> tuple[Path, Path]:
    """Fetch a study of two algorithms and seven seeds whose runs log ``rows(run)``."""
    sweep_path = factories.grid(tmp_path / "s.yaml", {"algo": ["a", "b"]})
    study = factories.study(sweep_path, **declared)
    rng, runs = np.random.default_rng(0), []
    for name, logged in rows.items():
        config = {"algo": name[0], "seed": int(name[1])}
        score = 0.1 + 0.1 * (name[0] == "b") + rng.normal(0, 0.01)
        summary = {"test/error": score}
        steps = [row | {"_step": i} for i, row in enumerate(logged)]
        runs.append(build_record(name, "finished", 0, name, config, summary, steps))
    monkeypatch.setattr(wandb_server, "fetch_runs", lambda *_: (set(), iter(runs)), raising=True)
    out = tmp_path / "out"
    collect(["e/p/s"], out, study, step=study.declaration.step)
    return out, sweep_path


IDS = [f"{algo}{seed}" for algo in "ab" for seed in range(7)]


def test_steps_that_differ_between_runs_become_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    rows = {
        name: [
            {"global_step": 1000 * i + k, "val/error": 1 / i, "note": "text"} for i in range(1, 6)
        ]
        for k, name in enumerate(IDS)
    }
    rows["a0"].append({"global_step": NAN, "val/error": 0.5})
    out, sweep_path = collected(tmp_path, monkeypatch, rows)
    message = capsys.readouterr().out
    assert "dropping 1 history row: global_step is not a finite number" in message
    assert "dropping history columns that contain text: note" in message
    assert (out / "history.csv").read_text().startswith("run_id,global_step,val/error\n")
    results = factories.report(out, sweep_path, draw=True)
    assert results["contrasts"][0]["grade"] == "preliminary_support"
    assert "a budget of 5,013 global steps" in (out / "report.md").read_text()
    assert (out / "figures" / "fig1_learning_curves.png").exists()
    data = load_data(factories.study(sweep_path), out)
    curves = histories.curves(data, "val/error")
    at = histories.axis_values(data).tolist()
    assert np.isnan(curves[1, 6, at.index(1012)])  # this run begins at 1013
    assert curves[0, 0, at.index(1005)] == 1  # the last value holds until the next
    again = collect(["e/p/s"], out, factories.study(sweep_path))
    assert "0 runs read" in again or "14 in" in again
    assert read_tables(out)[1].attrs["axis"] == "global_step"


def test_a_run_that_ends_early_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {n: [{"global_step": s, "val/error": 0.1} for s in (10, 90, 100)] for n in IDS}
    steps["b3"] = steps["b3"][:2]
    out, sweep_path = collected(tmp_path, monkeypatch, steps)
    said = factories.refusal(out, sweep_path)
    assert "run b3 ends at global step 90, but the longest run at 100" in said
    steps["b3"] = [*steps["b3"], {"global_step": 96, "val/error": 0.1}]  # near enough
    (tmp_path / "x").mkdir()
    out, sweep_path = collected(tmp_path / "x", monkeypatch, steps)
    assert factories.report(out, sweep_path)["contrasts"]


def test_epochs_may_count_from_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {n: [{"epoch": e, "val/error": 0.5} for e in range(3)] for n in IDS}
    out, sweep_path = collected(tmp_path, monkeypatch, rows)
    assert factories.report(out, sweep_path)["budget"] == "3 epochs"
    data = load_data(factories.study(sweep_path), out)
    assert histories.axis_values(data).tolist() == [0, 1, 2]


def test_an_axis_may_be_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {n: [{"epoch": 1, "tokens": t, "val/error": 0.5} for t in (5, 10)] for n in IDS}
    out, sweep_path = collected(tmp_path, monkeypatch, rows, step="tokens")
    history = read_tables(out)[1]
    assert history.attrs["axis"] == "tokens"
    assert history["epoch (logged)"].unique().tolist() == [1]
    assert factories.report(out, sweep_path, step="tokens")["budget"] == "10 tokens"


def test_runs_without_any_history_have_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, sweep_path = collected(tmp_path, monkeypatch, {name: [] for name in IDS})
    results = factories.report(out, sweep_path, draw=True)
    assert results["contrasts"][0]["grade"] == "preliminary_support"
    assert isinstance(read_tables(out)[1], pd.DataFrame)
