"""Designs, sizes, names, units and levels as people have them, from tables to report."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.runs.tables import read_tables, runs_table, write_tables
from lib.spec.declaration import StudyError
from lib.spec.sweep import read_sweep, same_value
from lib.tracking import processes
from tests import factories


def made(
    folder: Path,
    levels: list[Any],
    seeds: int = 7,
    factor: str = "algo",
    scale: float = 1.0,
    key: str = "test/error",
    shift: float = 0.0,
) -> tuple[Path, Path]:
    """Write a study in which each level is better than the one before; return tables and sweep."""
    sweep = factories.grid(folder / "s.yaml", {factor: levels}, seeds)
    rng = np.random.default_rng(3)
    scores = {
        variant: (shift + scale * (0.3 - 0.05 * i + rng.normal(0, 0.005, seeds))).tolist()
        for i, variant in enumerate(factories.study(sweep).variants)
    }
    tables = factories.scored(sweep, scores, key=key)
    return factories.write_study(folder / "t", *tables), sweep


@pytest.mark.parametrize(
    ("levels", "seeds", "contrasts", "grade"),
    [
        (["a", "b"], 1, 1, "not_testable"),
        (["a", "b"], 3, 1, "not_testable"),
        (["a", "b"], 5, 1, "not_testable"),
        (["sgd", "adam", "lion"], 7, 3, "preliminary_support"),
        (["a", "b", "c", "d", "e", "f"], 10, 15, "preliminary_support"),
    ],
)
def test_sizes(tmp_path: Path, levels: list[str], seeds: int, contrasts: int, grade: str) -> None:
    folder, sweep = made(tmp_path, levels, seeds)
    rows = factories.report(folder, sweep, draw=seeds == 1)["contrasts"]
    assert (len(rows), rows[0]["grade"]) == (contrasts, grade)


@pytest.mark.slow
@pytest.mark.filterwarnings("error:constrained_layout")
@pytest.mark.parametrize(
    ("factor", "levels"),
    [
        ("loss & <aug>", ["50%_a#1", r"b^2 \alpha", "cä中"]),
        ("data.root", ["${oc.env:A}_${b}/x", "$SCRATCH/y"]),
        ("cfg", [f"configs/{'a-very-long-folder/' * 5}{name}.yaml" for name in ("base", "ours")]),
        ("prompt", [f"{'be careful and ' * 9}{n}" for n in ("think", "do not think", "x" * 90)]),
        ("reference", ["no", "yes"]),
        ("reference", ["", " "]),
    ],
)
def test_names_reach_figures_and_pages_as_they_are(
    tmp_path: Path, factor: str, levels: list[str]
) -> None:
    folder, sweep = made(tmp_path, levels, 6, factor)
    results = factories.report(folder, sweep, draw=True)
    assert results["contrasts"][0]["grade"] in ("preliminary_support", "not_testable")
    assert (folder / "figures" / "fig3_final_scores.png").stat().st_size > 10_000
    page = (folder / "report.html").read_text()
    assert "<aug>" not in page


@pytest.mark.parametrize(
    ("key", "scale", "shift", "declared", "shown"),
    [
        (
            "test/accuracy",
            -100.0,
            120.0,
            {"metric": {"key": "test/accuracy", "bounds": [0, 100], "unit": "%", "decimals": 2}},
            "+4.62 percentage points",
        ),
        ("eval/return_mean", -4e4, 0.0, {"metric": "eval/return_mean"}, "+1,848 ["),
        ("eval/return", -400.0, -500.0, {"metric": "eval/return"}, "+18.5 ["),
        (
            "test/error",
            1e-6,
            0.0,
            {"metric": {"key": "test/error", "display_factor": 1e6, "unit": "ppm", "decimals": 3}},
            "−0.046 ppm",
        ),
        ("test/error", 1e-6, 0.0, {"metric": "test/error"}, "−0.0000046"),
    ],
)
def test_units(
    tmp_path: Path, key: str, scale: float, shift: float, declared: dict, shown: str
) -> None:
    folder, sweep = made(tmp_path, ["a", "b"], 7, "algo", scale, key, shift)
    text = sweep.read_text().replace("goal: minimize", "goal: maximize" if scale < 0 else "")
    sweep.write_text(text.replace("val/error", f"val/{key.partition('/')[2]}"))
    (row,) = factories.report(folder, sweep, **declared)["contrasts"]
    assert row["grade"] == "preliminary_support"
    assert shown in row["sentence"]


def test_percent_without_its_bounds_is_stopped(tmp_path: Path) -> None:
    folder, sweep = made(tmp_path, ["a", "b"], 7, "algo", 100.0)
    message = factories.refusal(folder, sweep, metric="test/error")
    assert "is outside the metric's bounds, 0 to 1; if the score is right" in message


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"smallest_effect": 0.5}, None),
        ({"smallest_effect": 1.0}, "must be smaller than the range of test/error"),
        ({"smallest_effect": 5}, "0.005 is half a percentage point"),
        (
            {"metric": {"key": "val/error", "goal": "maximize"}},
            "the goal of val/error is maximize, but",
        ),
        ({"direction": "higher"}, "direction: unknown key"),
        (
            {"metric": {"name": "test/acc", "goal": "maximize"}},
            "key is missing; name: unknown field. Did you mean {key: test/acc, …}? (A sweep has",
        ),
    ],
)
def test_contradictions(tmp_path: Path, declared: dict, message: str | None) -> None:
    sweep = factories.grid(tmp_path / "s.yaml", {"algo": ["a", "b"]}, 7)
    if message is None:
        assert factories.study(sweep, **declared).smallest_effect == 0.5
        return
    with pytest.raises(StudyError) as error:
        factories.study(sweep, **declared)
    assert message in str(error.value)


def test_a_sweeps_goal_that_the_metric_contradicts(tmp_path: Path) -> None:
    sweep = factories.grid(tmp_path / "s.yaml", {"algo": ["a", "b"]}, 7)
    sweep.write_text(sweep.read_text().replace("minimize", "maximize"))
    with pytest.raises(StudyError, match="One of them is wrong"):
        factories.study(sweep)


def test_epochs_as_the_factor(tmp_path: Path) -> None:
    sweep = factories.grid(tmp_path / "s.yaml", {"epochs": [2, 4]}, 6)
    rows, history = [], []
    for epochs, seed in itertools.product([2, 4], range(6)):
        score = 0.2 - 0.02 * epochs + 0.0013 * ((5 * seed) % 7)
        run = f"e{epochs}s{seed}"
        rows.append(factories.run_row(run, {"epochs": epochs, "seed": seed}, {"test/error": score}))
        history += [
            {"run_id": run, "epoch": e, "val/error": score + 0.1 / e} for e in range(1, epochs + 1)
        ]
    folder = factories.write_study(tmp_path / "t", runs_table(rows), pd.DataFrame(history))
    results = factories.report(folder, sweep, draw=True)
    assert results["budget"] == "2 or 4 epochs"
    assert results["contrasts"][0]["difference"] == pytest.approx(-0.04)


@pytest.mark.parametrize("value", ["NaN", float("inf")])
def test_a_score_that_is_no_number_is_a_failed_run(tmp_path: Path, value: Any) -> None:
    folder, sweep = made(tmp_path, ["a", "b"])
    runs, history = read_tables(folder)
    runs.loc[runs["run_id"] == "b-3", "summary.test/error"] = value
    write_tables(folder, runs, history)
    results = factories.report(folder, sweep, draw=True)
    assert results["failures"] == {"b-3": "diverged"}
    (row,) = results["contrasts"]
    assert (row["n"], row["n_trained"]) == (7, 6)


# Kind and value of every level survive every file.

SCALARS = st.one_of(
    st.booleans(),
    st.none(),
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.sampled_from(["true", "True", "null", "None", "007", "7", "7.0", "1e-3", "", " ", "[1]"]),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8),
)
LEVELS = st.lists(st.one_of(SCALARS, st.lists(SCALARS, max_size=3)), min_size=2, max_size=5)


@settings(max_examples=60, deadline=None)
@given(levels=LEVELS)
def test_levels_survive(levels: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    """From the YAML through run ids and tables to the variants that are compared."""
    levels = [
        one
        for i, one in enumerate(levels)
        if not any(same_value(one, other) for other in levels[:i])
    ]
    folder = tmp_path_factory.mktemp("levels")
    sweep_path = factories.grid(folder / "s.yaml", {"x": levels}, 2)
    sweep = read_sweep(sweep_path)
    assert all(map(same_value, sweep.parameters["x"], levels))
    cells = sweep.grid()
    assert len({processes.run_id(sweep, cell) for cell in cells}) == len(cells)
    rows = [
        factories.run_row(f"r{i}", cell, {"test/error": 0.1 + 0.01 * i})
        for i, cell in enumerate(cells)
    ]
    history = pd.DataFrame({"run_id": [row["run_id"] for row in rows], "epoch": 1, "v": 0.5})
    write_tables(folder / "t", runs_table(rows), history)
    runs, history = read_tables(folder / "t")
    for cell, found in zip(cells, runs.sort_values("run_id")["config.x"], strict=True):
        assert same_value(found, cell["x"]), (found, cell["x"])
    plain = [tuple(one) if isinstance(one, list) else one for one in levels]
    if len(set(plain)) < len(plain):  # 0 and false, 1 and true: one level to Python
        with pytest.raises(StudyError, match="equal levels"):
            factories.study(sweep_path)
        return
    data = factories.data(factories.study(sweep_path), runs, history)
    assert data.completeness.problems == []


# What a reviewer's inputs showed.


def test_a_nan_tail_has_failed_under_every_rule(tmp_path: Path) -> None:
    """Its last good values do not count, whichever rule takes the score from the history."""
    sweep = factories.grid(tmp_path / "s.yaml", {"algo": ["a", "b"]}, 7, metric="val/loss")
    rng, rows, history = np.random.default_rng(0), [], []
    for algo, seed in itertools.product("ab", range(7)):
        run = f"{algo}{seed}"
        bad = run == "b3"
        summary = {"test/loss": "NaN" if bad else 0.5}
        rows.append(factories.run_row(run, {"algo": algo, "seed": seed}, summary))
        for epoch in range(1, 11):
            value = rng.normal(1 - 0.5 * (algo == "b"), 0.01)
            value = float("nan") if bad and epoch > 6 else value
            history.append({"run_id": run, "epoch": epoch, "test/loss": value, "val/loss": value})
    folder = factories.write_study(tmp_path / "t", runs_table(rows), pd.DataFrame(history))
    for score in ("last", {"mean_last": 5}, {"at_best": "val/loss"}):
        results = factories.report(folder, sweep, "identical", metric="test/loss", score=score)
        assert results["failures"] == {"b3": "diverged"}, score


def test_scores_of_other_steps_are_refused(tmp_path: Path) -> None:
    sweep = factories.grid(tmp_path / "s.yaml", {"algo": ["a", "b"]}, 6, metric="eval/return")
    sweep.write_text(sweep.read_text().replace("minimize", "maximize"))
    rows, history = [], []
    for algo, seed in itertools.product("ab", range(6)):
        run, end = f"{algo}{seed}", 1000 if algo == "a" else 990
        rows.append(factories.run_row(run, {"algo": algo, "seed": seed}, {}))
        for step in [*range(10, end + 1, 10)]:
            row = {"run_id": run, "global_step": step, "train/loss": 1 / step + seed}
            row["eval/return"] = step + seed / 9 if step % 250 == 0 else np.nan
            history.append(row)
    write_tables(tmp_path / "t", runs_table(rows), pd.DataFrame(history), axis="global_step")
    message = factories.refusal(tmp_path / "t", sweep, metric="eval/return")
    assert "the last eval/return is from global step 750 in run b0, but 1000 in run a0" in message


def test_a_parameter_named_repeat_stays_a_factor(tmp_path: Path) -> None:
    sweep = factories.grid(tmp_path / "s.yaml", {"algo": ["a", "b"], "repeat": [1, 4]}, 2)
    study = factories.study(sweep, seed={"repeat": True})
    assert study.factors["repeat"] == [1, 4]


def test_a_failed_run_within_a_block(tmp_path: Path) -> None:
    sweep = factories.grid(tmp_path / "s.yaml", {"algo": ["a", "b"], "data": ["x", "y"]}, 7)
    rng, rows = np.random.default_rng(0), []
    for algo, block, seed in itertools.product("ab", "xy", range(7)):
        bad = (algo, block, seed) == ("b", "y", 3)
        score = "NaN" if bad else 0.3 - 0.05 * (algo == "b") + rng.normal(0, 0.005)
        config = {"algo": algo, "data": block, "seed": seed}
        rows.append(factories.run_row(f"{algo}{block}{seed}", config, {"test/error": score}))
    runs = runs_table(rows)
    history = pd.DataFrame({"run_id": runs["run_id"], "epoch": 1, "v": np.arange(28.0)})
    folder = factories.write_study(tmp_path / "t", runs, history)
    for scale in ("raw", "rank", "relative"):
        results = factories.report(folder, sweep, block=["data"], block_scale=scale)
        assert results["failures"] == {"by3": "diverged"}


def test_digits_fit_the_runs_that_count(tmp_path: Path) -> None:
    """Neither a diverged run's score nor a crashed attempt's sets the digits."""
    folder, sweep = made(tmp_path, ["a", "b"], 7, key="eval/score")
    runs, history = read_tables(folder)
    runs["summary.diverged"] = [run == "b-2" for run in runs["run_id"]]
    runs.loc[runs["run_id"] == "b-2", "summary.eval/score"] = 1e7
    write_tables(folder, runs, history)
    sweep.write_text(sweep.read_text().replace("val/error", "eval/score"))
    metric = {"metric": {"key": "eval/score", "goal": "minimize"}, "smallest_effect": 0.0125}
    (row,) = factories.report(folder, sweep, **metric)["contrasts"]
    assert "−0.0478 [95 % CI −0.0614, −0.0415]" in row["sentence"]
    assert any("beyond ±0.0125" in note for note in row["notes"])


@pytest.mark.parametrize(
    ("levels", "shown"),
    [
        ([f"{'a/' * 30}lr0.0010", f"{'a/' * 30}lr0.0015"], "…lr0.0010"),
        (["/data/" + "x" * 40, "/data/" + "x" * 40 + "/v2"], "…xxx"),
    ],
)
def test_long_levels_are_cut_at_their_separators(
    tmp_path: Path, levels: list[str], shown: str
) -> None:
    study = factories.study(factories.grid(tmp_path / "s.yaml", {"c": levels}, 2))
    labels = [study.level_label("c", level) for level in study.factors["c"]]
    assert labels[0].startswith(f"c = {shown}")
    assert len(set(labels)) == 2
    assert all(len(label) > len("c = ") + 3 for label in labels)


def test_infinity_on_the_good_side_is_no_failed_run(tmp_path: Path) -> None:
    folder, sweep = made(tmp_path, ["a", "b"], 7, key="test/psnr")
    runs, history = read_tables(folder)
    runs.loc[runs["run_id"] == "b-3", "summary.test/psnr"] = float("inf")
    write_tables(folder, runs, history)
    sweep.write_text(sweep.read_text().replace("minimize", "maximize").replace("error", "psnr"))
    message = factories.refusal(folder, sweep, metric="test/psnr")
    assert "run b-3: test/psnr in the summary must be a finite number, got inf" in message
