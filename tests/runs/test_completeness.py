"""Completeness: what counts, what stops, what may be allowed, and the sweep that fills the gaps."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from analysis.runs import completeness, missing
from analysis.runs.tables import TableError
from lib.spec.load import load_study
from lib.spec.sweep import read_sweep
from tests import factories


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """Give a 2×2 sweep with three seeds."""
    return factories.write_sweep(tmp_path / "made_up.yaml", seeds=3)


def check(
    sweep_path: Path, runs: pd.DataFrame, history: pd.DataFrame, **declared: object
) -> completeness.Completeness:
    return completeness.check(factories.study(sweep_path, **declared), runs, history)


def again(tables: factories.Tables, run_id: str, **changes: object) -> factories.Tables:
    """Return the tables with a second run in the place of ``run_id``, the first one changed."""
    runs, history = tables
    more = runs[runs["run_id"] == run_id].assign(run_id="again")
    rows = history[history["run_id"] == run_id].assign(run_id="again")
    runs = runs.astype(object)
    for name, value in changes.items():
        runs.loc[runs["run_id"] == run_id, name] = value
    return pd.concat([runs, more]), pd.concat([history, rows])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": "crashed", "exit_code": None}, "run bnsgd01 is crashed after epoch 3 of 3"),
        ({"summary.test/error": np.nan}, "has no test/error in its summary"),
    ],
)
def test_a_run_made_again_counts_and_the_first_one_is_reported(
    sweep_path: Path, changes: dict, message: str
) -> None:
    tables = again(factories.tables(sweep_path), "bnsgd01", **changes)
    found = check(sweep_path, *tables)
    assert not found.problems
    assert found.runs((True, "sgd")) == ["bnsgd00", "again", "bnsgd02"]
    (repeated,) = found.repeated
    assert repeated.startswith("batch_norm=True, optimizer=sgd, seed=1: run bnsgd01 ")
    assert repeated.endswith(f"{message}; it was rerun")


def test_two_finished_runs_of_a_variant_are_not_chosen_from(sweep_path: Path) -> None:
    found = check(sweep_path, *again(factories.tables(sweep_path), "bnsgd01"))
    assert "seed=1: 2 runs: bnsgd01 (finished), again (finished)" in found.problems[0]


def test_runs_with_the_same_losses_are_doubted(sweep_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    history["val/loss"] = np.random.default_rng(0).random(len(history))
    assert not check(sweep_path, runs, history).waivable
    one = history["run_id"] == "noadam00"
    history.loc[history["run_id"] == "bnadam00", "val/loss"] = history["val/loss"][one].to_numpy()
    assert not check(sweep_path, runs, history).waivable  # the scores differ: a loss without effect
    scores = runs.set_index("run_id")["summary.test/error"]
    runs.loc[runs["run_id"] == "bnadam00", "summary.test/error"] = scores["noadam00"]
    waivable = check(sweep_path, runs, history).waivable
    assert list(waivable) == ["identical"]
    assert "bnadam00 = noadam00" in waivable["identical"]


@pytest.mark.parametrize("column", ["python_version", "numpy_version", "torch_version"])
def test_other_versions_are_doubted(sweep_path: Path, column: str) -> None:
    runs, history = factories.tables(sweep_path)
    runs[f"summary.{column}"] = ["2.0"] * 11 + ["2.1"]
    waivable = check(sweep_path, runs, history).waivable
    assert list(waivable) == ["versions"]
    assert f"{column}: 11 with 2.0, 1 with 2.1" in waivable["versions"]


def test_where_a_run_was_resumed_is_kept(sweep_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    runs["summary.resumed_from_epoch"] = [2] + [0] * 10 + [np.nan]
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
    lost = runs["run_id"].isin(gone)
    plan, kept = factories.study(sweep_path), history[~history["run_id"].isin(gone)]
    data = factories.data(plan, runs[~lost], kept, folder=tmp_path)
    (tmp_path / "fill_in_made_up_3.yaml").write_text("of an earlier call")
    written = missing.write(data)
    assert len(written) == files
    assert sorted(tmp_path.glob("fill_in*.yaml")) == sorted(written)
    cells = [cell for path in written for cell in read_sweep(path).grid()]
    names = ["batch_norm", "optimizer", "seed", "epochs"]
    expected = runs[lost][[f"config.{name}" for name in names]].itertuples(index=False, name=None)
    assert sorted(map(str, expected)) == sorted(str(tuple(c[n] for n in names)) for c in cells)
    first = yaml.safe_load(sweep_path.read_text())
    for path in written:
        raw = yaml.safe_load(path.read_text())
        assert raw["name"] == path.stem, "each has a folder of its own below runs/"
        assert {k: raw[k] for k in first if k != "parameters"} == {
            k: first[k] for k in first if k != "parameters"
        }
        number = len(read_sweep(path).grid())
        assert f"without a finished run: {number} run{'s' * (number > 1)}." in path.read_text()


def test_levels_collected_from_runs_start_no_run(sweep_path: Path, tmp_path: Path) -> None:
    """Nothing says which program to run, so that no fill-in sweep is written."""
    runs, history = factories.tables(sweep_path)
    raw = yaml.safe_load(sweep_path.read_text())
    sweep_path.write_text(yaml.safe_dump({key: raw[key] for key in ("method", "parameters")}))
    plan = factories.study(sweep_path, metric="test/error")
    data = factories.data(plan, runs[1:], history, folder=tmp_path / "tables")
    assert len(data.completeness.problems) == 1
    assert missing.write(data) == []


@pytest.mark.parametrize(
    ("gone", "summary"),
    [
        (["bnsgd01"], ["batch_norm=True, optimizer=sgd, seed=1: missing"]),
        (range(1, 3), ["seeds 1, 2 missing in every variant"]),
        (range(3), ["seeds 0 to 2 missing in every variant"]),
        (range(2, 3), ["seed 2 missing in every variant"]),
    ],
)
def test_seeds_that_are_missing_everywhere_are_named_once(
    sweep_path: Path, gone: list[str] | range, summary: list[str]
) -> None:
    runs, history = factories.tables(sweep_path)
    kept = ~(runs["config.seed"].isin(gone) | runs["run_id"].isin(gone))
    found = check(sweep_path, runs[kept], history)
    assert len(found.problems) == (~kept).sum()
    assert completeness.summarize_problems(factories.study(sweep_path), found) == summary


def test_a_run_too_many_asks_for_no_further_run(sweep_path: Path, tmp_path: Path) -> None:
    tables = again(factories.tables(sweep_path), "bnsgd01")
    assert not missing.write(factories.data(factories.study(sweep_path), *tables, folder=tmp_path))


def test_a_setting_that_goes_along_with_a_factor_is_named(sweep_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    sgd = runs["config.optimizer"] == "sgd"
    runs["config.batch_size"] = np.where(sgd, 512, 128).astype(object)
    waivable = check(sweep_path, runs, history).waivable
    assert list(waivable) == ["recipe"]
    message = "128 in all runs of optimizer=adam, 512 in all runs of optimizer=sgd"
    assert f"batch_size: {message}: confounded with optimizer" in waivable["recipe"]
    assert not check(sweep_path, runs, history, free=["batch_size"]).waivable
    with pytest.raises(TableError, match="free: no run has batchsize in its config"):
        check(sweep_path, runs, history, free=["batchsize"])


def test_a_setting_that_differs_at_random_or_is_not_set_is_named(sweep_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    runs["config.rotation"] = [5.0] * 11 + [np.nan]
    runs["config.width"] = pd.Series([32, 32.0, 32] * 4, dtype=object)  # equal, written in two ways
    (message,) = check(sweep_path, runs, history).waivable.values()
    assert "rotation: 5 in 11 runs, not set in 1 run (bnsgd02): not confounded" in message


def test_settings_that_change_no_number_may_differ(sweep_path: Path) -> None:
    """And the path of data whose hash is known; without a hash the path may be what differs."""
    runs, history = factories.tables(sweep_path)
    runs["config.checkpoint_every"] = list(range(12))
    runs["config.data"] = [f"/disk{i}" for i in range(12)]
    assert not check(sweep_path, runs, history).waivable
    without = runs.drop(columns="summary.data_sha256")
    assert "data: " in check(sweep_path, without, history).waivable["recipe"]


def test_a_key_may_be_in_config_and_in_summary(sweep_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    runs["summary.optimizer"] = "lion"
    runs["config.state"] = "crashed"
    found = check(sweep_path, runs, history)
    assert (found.problems, found.waivable) == ([], {})


def test_scores_outside_the_metrics_bounds_stop_the_study(sweep_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    runs.loc[3, "summary.test/error"] = 10.3
    (problem,) = check(sweep_path, runs, history).problems
    assert "test/error = 10.3 is outside the metric's bounds, 0 to 1" in problem
    percent = {"key": "test/error", "bounds": [0, 100]}
    assert not check(sweep_path, runs, history, metric=percent).problems


def test_pooled_sweeps_are_arms(tmp_path: Path) -> None:
    for name, norm, optimizer in (("one", False, "adam"), ("two", True, "sgd")):
        levels = {"batch_norm": [norm], "optimizer": [optimizer]}
        factories.grid(tmp_path / f"{name}.yaml", levels, 3)
    arms = {"template": {"batch_norm": False, "optimizer": "adam"}}
    arms["ours"] = {"batch_norm": True, "optimizer": "sgd"}
    places = factories.places(tmp_path)
    places.studies.mkdir()
    text = yaml.safe_dump(
        {"metric": "test/error", "sweeps": ["one", "two"], "arms": arms}, sort_keys=False
    )
    places.declaration("both").write_text(text)
    plan = load_study("both", places)
    assert (plan.variants, plan.seeds) == ([("template",), ("ours",)], [0, 1, 2])
    runs, history = factories.tables(factories.write_sweep(tmp_path / "made_up.yaml", 3, 1))
    ours = runs["run_id"].str.startswith(("noadam", "bnsgd"))
    own = history[history["run_id"].isin(runs[ours]["run_id"])]
    found = completeness.check(plan, runs[ours], own)
    assert not found.problems
    assert found.runs(("ours",)) == ["bnsgd00", "bnsgd01", "bnsgd02"]
    rest = completeness.check(plan, runs, history)
    assert "for bnadam00: its combination of levels is not planned" in rest.problems[0]


@pytest.mark.parametrize(
    ("factor", "which", "doubted"),
    [
        (0.01, "variant", True),
        (0.01, "seed", True),  # a script was changed between the seeds
        (0.01, "run", True),
        (0.05, "variant", False),
        (0.5, "variant", False),
        (0.0001, "variant", False),
        (0.01, "diverged", False),
    ],
)
def test_fractions_next_to_percentages_are_doubted(
    sweep_path: Path, factor: float, which: str, doubted: bool
) -> None:
    """Errors of 0.5 % and 1 % in one study are possible, and chance after divergence is."""
    percent = {"key": "test/error", "bounds": [0, 100]}
    runs, history = factories.tables(sweep_path)
    scores = runs["summary.test/error"] * 30  # about 3
    one = {
        "variant": runs["config.batch_norm"] == True,  # noqa: E712
        "seed": runs["config.seed"] == 0,
        "run": runs["run_id"] == "bnsgd01",
        "diverged": runs["config.batch_norm"] == True,  # noqa: E712
    }[which]
    runs["summary.test/error"] = scores.where(~one, scores * factor)
    runs["summary.diverged"] = one if which == "diverged" else False
    found = check(sweep_path, runs, history, metric=percent)
    assert not found.problems
    assert list(found.waivable) == ["scale"] * doubted
    if which == "run":
        assert "in 1 run (bnsgd01), but" in found.waivable["scale"]
