"""Completeness: what counts, what stops, what may be allowed, and the sweep that fills the gaps."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from analysis.runs import missing, completeness
from analysis import grid
from lib import agent
from tests import factories

Tables = tuple[pd.DataFrame, pd.DataFrame]


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """Give a 2×2 sweep with three seeds."""
    return factories.write_sweep(tmp_path / "made_up.yaml", seeds=3)


def check(sweep_path: Path, runs: pd.DataFrame, history: pd.DataFrame) -> completeness.Ledger:
    sweep = grid.load_sweep(sweep_path)
    return completeness.check(sweep, grid.load_study(sweep), runs, history)


def again(tables: Tables, run_id: str, **changes: object) -> Tables:
    """Return the tables with a second run in the place of ``run_id``, the first one changed."""
    runs, history = tables
    more = runs[runs["run_id"] == run_id].assign(run_id="again")
    rows = history[history["run_id"] == run_id].assign(run_id="again")
    runs = runs.astype(object)
    for name, value in changes.items():
        runs.loc[runs["run_id"] == run_id, name] = value
    return pd.concat([runs, more]), pd.concat([history, rows])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"state": "crashed", "exit_code": None}, "run bnsgd01 is crashed, after epoch 3 of 3"),
        ({"test/error": None}, "run bnsgd01 has no number as test/error: None"),
    ],
)
def test_a_run_made_again_counts_and_the_first_one_is_told(
    sweep_path: Path, changes: dict, told: str
) -> None:
    tables = again(factories.tables(sweep_path), "bnsgd01", **changes)
    found = check(sweep_path, *tables)
    assert not found.problems
    assert found.runs((True, "sgd")) == ["bnsgd00", "again", "bnsgd02"]
    assert found.repeated == [f"batch_norm=True, optimizer=sgd, seed=1: {told}, made again"]


@pytest.mark.parametrize(
    ("found", "planned", "same"),
    [
        (1.0, 1, True),
        (True, 1, False),
        ("True", True, True),
        ("1.0", 1.0, True),
        (16, "16", True),
        ("none", 1.0, False),
        ("none", "none", True),
        (float("nan"), "none", False),
        (float("nan"), 1.0, False),
    ],
)
def test_a_tables_value_and_a_sweeps_level(found: object, planned: object, same: bool) -> None:
    assert completeness._same(found, planned) is same


def test_two_finished_runs_of_a_cell_are_not_chosen_from(sweep_path: Path) -> None:
    found = check(sweep_path, *again(factories.tables(sweep_path), "bnsgd01"))
    assert "seed=1: 2 runs: bnsgd01 (finished), again (finished)" in found.problems[0]


def test_runs_with_the_same_losses_are_doubted(sweep_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    history["val/loss"] = np.random.default_rng(0).random(len(history))
    assert not check(sweep_path, runs, history).doubts
    one = history["run_id"] == "noadam00"
    history.loc[history["run_id"] == "bnadam00", "val/loss"] = history["val/loss"][one].to_numpy()
    doubts = check(sweep_path, runs, history).doubts
    assert list(doubts) == ["identical"]
    assert "bnadam00 = noadam00" in doubts["identical"]


@pytest.mark.parametrize("column", ["python_version", "numpy_version", "torch_version"])
def test_other_versions_are_doubted(sweep_path: Path, column: str) -> None:
    runs, history = factories.tables(sweep_path)
    runs[column] = ["2.0"] * 11 + ["2.1"]
    doubts = check(sweep_path, runs, history).doubts
    assert list(doubts) == ["versions"]
    assert f"{column}: 11 with 2.0, 1 with 2.1" in doubts["versions"]


def test_where_a_run_was_resumed_is_kept(sweep_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    runs["resumed_from_epoch"] = [2] + [0] * 10 + [np.nan]
    assert [entry.resumed for entry in check(sweep_path, runs, history).entries] == [2] + [0] * 11


@pytest.mark.parametrize(
    ("gone", "files"),
    [
        ([], 0),
        (["bnsgd01"], 1),
        (["bnsgd01", "bnsgd02", "noadam00"], 2),
        (["bnsgd01", "bnadam01"], 1),
        (["bnsgd01", "noadam01"], 2),  # their product would have two more cells
        ([f"{a}{b}{s:02d}" for a in ("no", "bn") for b in ("sgd", "adam") for s in range(3)], 1),
    ],
)
def test_fill_in_sweeps_are_exactly_what_is_missing(
    sweep_path: Path, tmp_path: Path, gone: list[str], files: int
) -> None:
    runs, history = factories.tables(sweep_path)
    missing = runs["run_id"].isin(gone)
    found = check(sweep_path, runs[~missing], history[~history["run_id"].isin(gone)])
    (tmp_path / "fill_in_3.yaml").write_text("of an earlier call")
    written = missing.write(tmp_path, sweep_path, grid.load_sweep(sweep_path), found)
    assert len(written) == files
    assert sorted(tmp_path.glob("fill_in*.yaml")) == sorted(written)
    cells = [cell for path in written for cell in agent.cells(agent.read_sweep(path))]
    names = ["batch_norm", "optimizer", "seed", "epochs"]
    expected = runs[missing][names].itertuples(index=False, name=None)
    assert sorted(map(str, expected)) == sorted(str(tuple(c[n] for n in names)) for c in cells)
    first = yaml.safe_load(sweep_path.read_text())
    for path in written:
        raw = yaml.safe_load(path.read_text())
        assert {k: raw[k] for k in first if k != "parameters"} == {
            k: first[k] for k in first if k != "parameters"
        }
        assert f"{len(agent.cells(raw))} run(s)" in path.read_text() or files > 1


def test_a_run_too_many_asks_for_no_further_run(sweep_path: Path, tmp_path: Path) -> None:
    found = check(sweep_path, *again(factories.tables(sweep_path), "bnsgd01"))
    assert not missing.write(tmp_path, sweep_path, grid.load_sweep(sweep_path), found)
