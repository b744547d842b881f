"""The plan: floors, warnings, power and hours, before any run."""

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.runs.tables import TableError
from analysis.statistics import contrasts, design
from analysis.statistics import pilot as pilots
from tests import factories
from tests.conftest import call


@pytest.mark.parametrize(
    ("n", "powers"), [(5, (0, 0, 0)), (7, (0.30, 0.62, 0.85)), (10, (0.54, 0.90, 0.99))]
)
def test_power_of_three_contrasts(n: int, powers: tuple[float, ...]) -> None:
    # Simulated independently for the design: one real effect, Holm over three contrasts.
    for effect, expected in zip((1.0, 1.5, 2.0), powers, strict=True):
        found = design.power_at(n, effect, 3, 0.05, np.random.default_rng(1))
        assert found == pytest.approx(expected, abs=0.04)


def test_too_few_seeds_are_warned_of(tmp_path: Path) -> None:
    sweep = factories.write_sweep(tmp_path / "few.yaml", seeds=5)
    text = call("-m", "analysis.plan", sweep).stdout
    assert "4 variants × 5 seeds = 20 runs of 3 epochs" in text
    assert "WARNING: 5 seeds and 3 contrasts cannot reach p < .05; use at least 7 seeds" in text
    assert "WARNING" not in call("-m", "analysis.plan", "gtsrb").stdout


def test_a_pilot_gives_power_and_hours(tmp_path: Path) -> None:
    sweep_path = factories.write_sweep(tmp_path / "s.yaml")
    factories.write_study(tmp_path / "pilot", *factories.tables(sweep_path, noise=2e-3))
    study = factories.study(sweep_path)
    pilot = pilots.read_pilot(tmp_path / "pilot", study)
    assert (pilot.outliers, pilot.without_outliers, pilot.mismatches) == (0, pilot.deviation, {})
    assert pilot.deviation == pytest.approx(2e-3, rel=0.4), "the seeds' own effects are taken out"
    assert pilot.seconds_per_epoch == 1.5
    done = call(
        "-m", "analysis.plan", sweep_path, "--pilot", tmp_path / "pilot", "--effect", "0.01"
    )
    assert "power for a main effect of 1.00 percentage points: 1.00" in done.stdout
    hours = "hours at the pilot's 1.5 s per epoch (startup and test time not included: not in"
    assert hours in done.stdout
    rows = [
        line for line in done.stdout.splitlines() if line.startswith("| batch_norm × optimizer")
    ]
    assert [row.split("|")[2].strip() for row in rows] == ["0.00", "1.00", "2.00"]
    assert rows[2].split("|")[6].strip() == "1.00", "2δ is found to be meaningful"
    assert "studies per row, simulated from the pilot's residuals" in done.stdout


@pytest.mark.slow
def test_starting_a_run_takes_time_too(tmp_path: Path) -> None:
    """28 runs of 3 epochs of 1.5 s, and 7,195.5 s in addition to them each: 56 hours."""
    sweep_path = factories.write_sweep(tmp_path / "s.yaml")
    runs, history = factories.tables(sweep_path)
    runs["summary.runtime_seconds"] = [7200.0] * 27 + [float("nan")]
    runs["summary.resumed_from_epoch"] = [2] + [0] * 27  # the first started twice
    runs.loc[0, "summary.runtime_seconds"] = 99_999.0
    factories.write_study(tmp_path / "pilot", runs, history)
    words = ("-m", "analysis.plan", sweep_path, "--pilot", tmp_path / "pilot")
    assert "and 7195.5 s per run for startup and test: 56.0," in call(*words).stdout
    other = factories.grid(
        tmp_path / "t.yaml", {"batch_norm": [False, True]}, batch_size=64, epochs=3
    )
    runs["config.batch_size"] = 128
    keep = runs["config.optimizer"] == "adam"
    ids = runs["run_id"][keep]
    factories.write_study(tmp_path / "half", runs[keep], history[history["run_id"].isin(ids)])
    text = call("-m", "analysis.plan", other, "--pilot", tmp_path / "half").stdout
    assert "hours: not estimated because the pilot's recipe differs in batch_size" in text


def test_a_design_analysis_knows_what_a_test_can_find(tmp_path: Path) -> None:
    """Against the power of the signed-rank test, and for an interaction against a main effect."""
    sweep_path = factories.write_sweep(tmp_path / "s.yaml")
    study = factories.study(sweep_path, smallest_effect=0.01)
    noise = [np.random.default_rng(0).normal(0, 0.01, (4, 2_000))]
    main, _, interaction = (design.outcome(study, noise, i, 8, 0.015) for i in range(3))
    expected = design.power_at(8, 1.5, 3, 0.05, np.random.default_rng(1))
    assert main.found == pytest.approx(expected, abs=0.06)
    assert interaction.found < main.found / 2
    assert main.grades["meaningful"] < main.grades["preliminary_support"]
    assert (main.wrong_sign, main.survives) == (0, None)
    assert 1 < main.exaggeration < interaction.exaggeration
    few = design.outcome(study, noise, 0, 4, 0.015)
    assert few.grades["not_testable"] == 1
    rules = [noise[0], noise[0] + np.random.default_rng(1).normal(0, 0.03, noise[0].shape)]
    assert design.outcome(study, rules, 0, 8, 0.015).survives < 0.6
    assert design.residuals(np.zeros((4, 3))) is None
    scores = np.random.default_rng(2).normal(size=(4, 8))
    wide = design.residuals(scores)
    assert wide.mean() == pytest.approx(0)
    assert (wide**2).mean(axis=1) == pytest.approx(scores.var(axis=1, ddof=1))
    lost = np.zeros(scores.shape, dtype=bool)
    lost[2, 5] = True
    assert design.residuals(scores, lost).shape == (4, 7)


def test_a_design_analysis_makes_few_wrong_claims(tmp_path: Path) -> None:
    """Also from skewed residuals of few seeds, whose mean is not their pseudomedian."""
    study = factories.study(factories.write_sweep(tmp_path / "s.yaml"), smallest_effect=0.01)
    skewed = design.residuals(np.array([[0, 0, 0, 0, 0.09]] * 3 + [[0, 0.01, 0, 0, 0]]))
    found = [design.outcome(study, [skewed], i, 10, 0.0, studies=2000).found for i in range(3)]
    assert max(found) < 0.05 / 3 + 0.015
    few, many = (np.random.default_rng(k).normal(0, 0.005, (4, k)) for k in (5, 2000))
    powers = [
        design.outcome(study, [design.residuals(sample)], 0, 10, 0.006).found
        for sample in (*np.random.default_rng(1).normal(0, 0.005, (40, 4, 5)), many)
    ]
    assert np.mean(powers[:-1]) == pytest.approx(powers[-1], abs=0.1)
    assert few.shape == (4, 5)
    low, high = design.spread_factors(5)
    assert (low, high) == pytest.approx((0.599, 2.874), abs=0.001)


def test_one_contrast_of_many_levels_has_its_effect(tmp_path: Path) -> None:
    path = factories.grid(tmp_path / "s.yaml", {"act": ["a", "b", "c", "d"]}, 8)
    against = contrasts.weights(factories.study(path, compare={"control": "b"}))
    effects = against @ design.unit_effect(against, 1)
    assert effects == pytest.approx([0, 1, 0], abs=1e-12)
    pairs = contrasts.weights(factories.study(path, compare="pairs"))
    assert (pairs @ design.unit_effect(pairs, 2))[2] == pytest.approx(1)


def test_a_pilot_with_runs_far_off_or_another_recipe_is_warned_of(tmp_path: Path) -> None:
    sweep_path = factories.write_sweep(tmp_path / "s.yaml")
    runs, history = factories.tables(sweep_path, noise=2e-3)
    runs.loc[runs["run_id"].isin(["nosgd05", "nosgd06"]), "summary.test/error"] = 0.9
    runs["summary.diverged"] = runs["run_id"] == "nosgd06"
    factories.write_study(tmp_path / "pilot", runs, history)
    longer = factories.write_sweep(tmp_path / "longer.yaml", epochs=400)
    done = call("-m", "analysis.plan", longer, "--pilot", tmp_path / "pilot", "--effect", "0.01")
    assert "the pilot's recipe differs: epochs = 3, planned 400" in done.stdout
    assert "pilot: 28 runs (1 failed, left out)" in done.stdout
    assert "the pilot has 1 outlier" in done.stdout
    power = [line for line in done.stdout.splitlines() if line.startswith("power for")]
    assert len(power) == 2
    assert float(power[0][-4:]) < 0.1 < 0.9 < float(power[1][-4:])


def test_a_pilot_counts_failures_and_seeds_as_the_report_does(tmp_path: Path) -> None:
    sweep_path = factories.write_sweep(tmp_path / "s.yaml")
    study = factories.study(sweep_path)
    runs, history = factories.tables(sweep_path, noise=2e-3)
    factories.write_study(tmp_path / "p", runs, history)
    whole = pilots.read_pilot(tmp_path / "p", study)
    for worst in ("NaN", math.inf, None):
        bad = runs.astype(object)
        bad.loc[bad["run_id"] == "nosgd06", "summary.test/error"] = worst
        factories.write_study(tmp_path / "p", bad, history)
        pilot = pilots.read_pilot(tmp_path / "p", study)
        assert (pilot.runs, pilot.failed) == (28, 1)
        assert pilot.deviation == pytest.approx(whole.deviation, rel=0.2)
    texts = [
        str(s) if a == "sgd" else s for a, s in runs[["config.optimizer", "config.seed"]].values
    ]
    factories.write_study(tmp_path / "p", runs.assign(**{"config.seed": texts}), history)
    assert pilots.read_pilot(tmp_path / "p", study).deviation == whole.deviation


def test_a_main_effect_of_many_levels_is_less_sure(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for a, b in ((2, 2), (3, 3), (5, 2), (3, 1)):
        factors = {"a": list(range(a)), "b": list(range(b))}
        plan = factories.study(factories.grid(tmp_path / "s.yaml", factors))
        tables = rng.normal(size=(20_000, a, b))
        true = (tables[:, 1] - tables[:, 0]).mean(axis=1).std()
        assert pilots.contrast_deviation(plan, 1.0) == pytest.approx(true, rel=0.03)


def test_clean_pilots_are_taken_as_they_are(tmp_path: Path) -> None:
    sweep_path = factories.write_sweep(tmp_path / "s.yaml")
    study = factories.study(sweep_path)
    runs, history = factories.tables(sweep_path)
    rng, found = np.random.default_rng(0), []
    for _ in range(100):
        runs["summary.test/error"] = 0.1 + rng.normal(0, 0.002, len(runs))
        factories.write_study(tmp_path / "p", runs, history.drop(columns="seconds"))
        found.append(pilots.read_pilot(tmp_path / "p", study))
    assert sum(pilot.outliers > 0 for pilot in found) <= 2
    assert np.mean([pilot.deviation for pilot in found]) == pytest.approx(0.002, rel=0.05)
    assert found[0].seconds_per_epoch is None


def test_a_pilot_of_a_study_with_blocks_is_averaged_over_them(tmp_path: Path) -> None:
    """The mean over four blocks has half the spread of a run."""
    factors = {"dataset": ["a", "b", "c", "d"], "m": ["x", "y"]}
    path, keys = factories.grid(tmp_path / "s.yaml", factors, seeds=40), {"block": ["dataset"]}
    rng, rows = np.random.default_rng(0), []
    for i, (dataset, m, seed) in enumerate(itertools.product("abcd", "xy", range(40))):
        config = {"dataset": dataset, "m": m, "seed": seed}
        score = 0.1 * "abcd".index(dataset) + rng.normal(0.3, 0.02)
        rows.append(factories.run_row(f"r{i}", config, {"test/error": float(score)}))
    factories.write_study(tmp_path / "p", pd.DataFrame(rows), pd.DataFrame())
    study = factories.study(path, **keys)
    pilot = pilots.read_pilot(tmp_path / "p", study)
    assert pilot.deviation == pytest.approx(0.01, rel=0.15)
    assert (pilot.runs, pilot.failed) == (320, 0)
    ((variants, seeds),) = {one.shape for one in pilot.residuals}
    assert (variants, seeds) == (2, 40)
    with pytest.raises(TableError, match=r"on the scale 'rank'"):
        pilots.read_pilot(tmp_path / "p", factories.study(path, **keys, block_scale="rank"))
    factories.write_study(
        tmp_path / "p", pd.DataFrame(rows).drop(columns="config.dataset"), pd.DataFrame()
    )
    with pytest.raises(TableError, match="has no config value dataset"):
        pilots.read_pilot(tmp_path / "p", study)


def test_a_pilot_that_varied_something_else_is_refused(tmp_path: Path) -> None:
    sweep_path = factories.write_sweep(tmp_path / "s.yaml")
    runs, history = factories.tables(sweep_path)
    more = runs.assign(run_id=runs["run_id"] + "b", **{"config.lr": 0.1})
    factories.write_study(tmp_path / "p", pd.concat([runs, more]), history)
    done = call("-m", "analysis.plan", sweep_path, "--pilot", tmp_path / "p")
    assert done.returncode == 1
    assert "Did this pilot vary something else?" in done.stderr


def test_a_pilot_without_spread_is_reported(tmp_path: Path) -> None:
    sweep_path = factories.write_sweep(tmp_path / "s.yaml", seeds=1)
    factories.write_study(tmp_path / "pilot", *factories.tables(sweep_path))
    done = call("-m", "analysis.plan", sweep_path, "--pilot", tmp_path / "pilot")
    assert done.returncode == 1
    assert "no variant has two finished runs" in done.stderr


def test_figure_6(tmp_path: Path) -> None:
    sweep = factories.write_sweep(tmp_path / "s.yaml")
    done = call("-m", "analysis.plan", sweep, "--out", tmp_path / "figures")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figures" / "fig6_plan.png").exists()
    assert "Gray: the 7 seeds of s" in done.stdout


def test_many_seeds_need_no_design_analysis(tmp_path: Path) -> None:
    n = design.MOST_SEEDS + 1
    path = factories.grid(tmp_path / "s.yaml", {"act": ["a", "b"]}, n)
    rng = np.random.default_rng(0)
    scores = {(level,): rng.uniform(0.1, 0.2, n).tolist() for level in "ab"}
    folder = factories.write_study(tmp_path / "study", *factories.scored(path, scores))
    assert factories.report(folder, path, smallest_effect=0.01)["design"] == []
    assert "What more seeds would show" not in (folder / "report.md").read_text()


def test_one_contrast_is_planned_from_its_differences_alone(tmp_path: Path) -> None:
    path = factories.grid(tmp_path / "s.yaml", {"act": ["a", "b"]}, 8)
    study = factories.study(path, smallest_effect=0.01)
    noise = np.random.default_rng(0).normal(0, 0.01, (2, 2_000))
    for effect in (0.0, 0.01, 0.02):
        whole = design.outcome(study, [noise], 0, 9, effect, studies=2000)
        alone = design.grades_of_differences(noise[1] - noise[0], 9, effect, 0.01, studies=2000)
        assert alone == pytest.approx(whole.grades, abs=0.05)
    few = design.grades_of_differences(noise[0, :6], 6, 0.0, 0.01, family=3)
    assert few["not_testable"] == 1
