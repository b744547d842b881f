"""Runs that fail: how often, whether one variant more often, and what is left without them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta
from statsmodels.stats.contingency_tables import mcnemar as theirs

from analysis.statistics import (
    contrasts,
    failures,
    grades,
    intervals,
    many,
    rank_tests,
    secondary,
    testing,
)
from lib.spec.declaration import StudyError
from tests import factories


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """Give a 2×2 sweep with eight seeds."""
    return factories.write_sweep(tmp_path / "made_up.yaml", seeds=8)


def test_rates_are_as_in_other_libraries() -> None:
    low, high = failures.clopper_pearson(2, 7)
    assert (low, high) == pytest.approx((beta.ppf(0.025, 2, 6), beta.ppf(0.975, 3, 5)))
    rng = np.random.default_rng(0)
    for _ in range(20):
        first, second = rng.random((2, 12)) < [[0.2], [0.6]]
        table = [
            [(first & second).sum(), (first & ~second).sum()],
            [(~first & second).sum(), (~first & ~second).sum()],
        ]
        assert failures.mcnemar(first, second) == pytest.approx(theirs(table, exact=True).pvalue)
    assert failures.mcnemar([True, False], [True, False]) == 1
    assert failures.fisher([True] * 5, [False] * 5) == pytest.approx(2 / 252)
    with pytest.raises(ValueError, match="equal lengths"):
        failures.mcnemar([True], [True, False])


def fail(runs: pd.DataFrame, *names: str) -> pd.DataFrame:
    """Return the runs with the named ones diverged, at the worst error."""
    runs = runs.copy()
    mask = runs["run_id"].isin(names)
    runs.loc[mask, "summary.test/error"] = runs.loc[mask, "summary.test/error_at_best_val"] = 1.0
    runs.loc[mask, "summary.diverged"] = True
    return runs


def test_estimates_are_of_the_seeds_without_failures(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    whole = factories.report(factories.write_study(tmp_path / "whole", runs, history), sweep_path)
    lost = fail(runs, "nosgd01", "nosgd04")
    found = factories.report(factories.write_study(tmp_path / "s", lost, history), sweep_path)
    assert found["failures"] == {"nosgd01": "diverged", "nosgd04": "diverged"}
    for row, other in zip(found["contrasts"], whole["contrasts"], strict=True):
        kept = [d for k, d in enumerate(other["per_seed"]) if k not in (1, 4)]
        assert [d for d in row["per_seed"] if d is not None] == pytest.approx(kept)
        assert row["p_trained"] == pytest.approx(rank_tests.signed_rank(kept).p)
        assert (row["n"], row["n_trained"]) == (8, 6)
        assert abs(row["difference"]) < 0.03, "failed runs are no errors of 100 %"
    first, second, interaction = found["contrasts"]
    both = {"runs": (16, 16), "p": 0.5}
    assert first["failures"] == {"failed": (2, 0), "seeds": (2, 0)} | both
    assert second["failures"] == {"failed": (0, 2), "seeds": (0, 2)} | both
    assert interaction["failures"]["p"] is None
    text = "Failed runs: 2 of 16 with batch_norm = False, 0 of 16 with batch_norm = True (in "
    assert first["notes"][0] == text + "2 and 0 of 8 seeds, exact McNemar p = .5)."
    assert "in 6 of 6 seeds without failed runs, Holm p = " in first["sentence"]
    assert first["sentence"].endswith(" over all 8 seeds, the smallest that these seeds can give.")
    message = "variants, some with failed runs (batch_norm = False, optimizer = sgd: 2 of 8)"
    assert any(message in note for note in first["notes"])
    page = (tmp_path / "s" / "report.md").read_text()
    assert "2 of 8 (3 to 65 %)" in page  # Clopper and Pearson's interval of 2 in 8


def test_failures_that_carry_a_claim_are_said_to(sweep_path: Path, tmp_path: Path) -> None:
    """All runs of one variant fail or none of the other: a difference without any estimate."""
    runs, history = factories.tables(sweep_path, (0.0, 0.0, 0.0))
    all_sgd = [f"{norm}sgd{seed:02d}" for norm in ("no", "bn") for seed in range(8)]
    folder = factories.write_study(tmp_path / "s", fail(runs, *all_sgd), history)
    found = factories.report(folder, sweep_path, smallest_effect=0.01)
    row = found["contrasts"][1]
    assert (row["grade"], row["difference"], row["p_within"]) == ("preliminary_support", None, 1.0)
    assert "no estimate, since no seeds without failed runs are left" in row["sentence"]
    assert "8 of 16 with" not in row["notes"][0]
    assert "16 of 16 with optimizer = sgd (in 0 and 8 of 8 seeds, exact McNemar" in row["notes"][0]
    few = [f"nosgd{seed:02d}" for seed in range(8) if seed not in (2, 5)]
    folder = factories.write_study(tmp_path / "few", fail(runs, *few), history)
    row = factories.report(folder, sweep_path, smallest_effect=0.01)["contrasts"][0]
    assert row["n_trained"] == 2
    assert row["grade"] == "preliminary_support"
    said = "rests on the failures too: 2 seeds without them could not show a difference (smallest "
    assert f"The claim {said}possible Holm p 1)." in row["notes"]


def test_a_variant_that_fails_often_and_is_better_otherwise(tmp_path: Path) -> None:
    """Worse over all runs, better without failures: two things, and no claim mixes them."""
    path = factories.grid(tmp_path / "s.yaml", {"optimizer": ["adam", "sgd"]}, 20)
    rng = np.random.default_rng(0)
    scores = {("adam",): (0.2 + rng.normal(0, 0.002, 20)).tolist()}
    scores[("sgd",)] = (0.1 + rng.normal(0, 0.002, 20)).tolist()
    runs, history = factories.scored(path, scores)
    lost = fail(runs, *(f"sgd-{seed}" for seed in range(13)), "adam-19")
    folder = factories.write_study(tmp_path / "study", lost.drop(columns=[]), history)
    (row,) = factories.report(folder, path, smallest_effect=0.01)["contrasts"]
    assert row["p_beyond"] < 0.05
    assert row["grade"] == "preliminary_support"
    beyond = "Without failed runs, the difference lies beyond ±1.00 percentage points (Holm p = "
    assert row["notes"][1].startswith(beyond)
    assert "higher (worse)" in row["sentence"]
    assert row["notes"][2].endswith("without them, the difference has the other sign.")


def test_failures_are_worst_where_no_bound_says_how_bad(tmp_path: Path) -> None:
    """A return without bounds: the failed runs of the better variant rank below everything."""
    metric = {"key": "eval/return", "goal": "maximize", "label": "return"}
    path = factories.grid(tmp_path / "s.yaml", {"algo": ["ppo", "sac"]}, 8, "train/x")
    scores = {("ppo",): list(np.linspace(9, 11, 8)), ("sac",): list(np.linspace(99, 104, 8))}
    runs, history = factories.scored(path, scores, "eval/return")
    for name in ("sac-1", "sac-5"):
        runs.loc[runs["run_id"] == name, "summary.diverged"] = True
    folder = factories.write_study(tmp_path / "study", runs, history)
    (row,) = factories.report(folder, path, metric=metric)["contrasts"]
    d = np.array([90.0] * 6 + [-1e4, -2e4]) + np.arange(8) / 10
    assert row["p"] == pytest.approx(rank_tests.signed_rank(d).p)
    assert 85 < row["difference"] < 95
    validation = {"key": "val/accuracy", "goal": "maximize"}
    runs = runs.rename(columns={"summary.eval/return": "summary.val/accuracy"})
    runs["summary.val/accuracy"] = runs["summary.val/accuracy"].astype(float) / 200
    runs["summary.test/accuracy"] = runs["summary.val/accuracy"]
    folder = factories.write_study(tmp_path / "val", runs, history)
    (row,) = factories.report(folder, path, metric=validation)["contrasts"]
    assert row["on_test"]["p"] == row["p"]


def test_simple_effects_are_simultaneous_and_of_trained_runs(sweep_path: Path) -> None:
    study, rng = factories.study(sweep_path), np.random.default_rng(0)
    scores = rng.normal(0.2, 0.01, (4, 8))
    failed = np.zeros(scores.shape, dtype=bool)
    failed[1, 2] = True
    scores[failed] = 1.0
    rows = secondary.simple_effects(study, scores, failed)
    (row,) = (r for r in rows if r["variants"] == [[False, "adam"], [False, "sgd"]])
    own = intervals.shift_interval(scores[0], np.delete(scores[1], 2), 1 - 0.05 / len(rows))
    assert (row["ci_low"], row["ci_high"], row["n"]) == (own.low, own.high, [8, 7])
    assert row["p"] == pytest.approx(rank_tests.rank_sum(scores[0], scores[1]).p)
    rows = secondary.simple_effects(study, scores, failed, paired=True, splitting=["batch_norm"])
    assert [r["paired"] for r in rows] == [False, False, True, True]
    (row,) = (r for r in rows if r["variants"] == [[False, "adam"], [False, "sgd"]])
    own = intervals.paired_interval(np.delete(scores[1] - scores[0], 2), 1 - 0.05 / len(rows))
    assert (row["ci_low"], row["ci_high"], row["n"]) == (own.low, own.high, [7, 7])
    assert row["p"] == pytest.approx(rank_tests.signed_rank(scores[1] - scores[0]).p)


def test_few_seeds_without_failures_show_no_equivalence(tmp_path: Path) -> None:
    """Five of twelve seeds are left: too few for any difference, so for equivalence too."""
    path = factories.grid(tmp_path / "s.yaml", {"act": ["a", "b"]}, 12)
    study = factories.study(path, smallest_effect=0.01)
    scores = 0.1 + np.random.default_rng(1).normal(0, 1e-3, (2, 12))
    for lost, grade in ((7, "inconclusive"), (6, "practically_equivalent")):
        failed = np.zeros(scores.shape, dtype=bool)
        failed[1, :lost] = True
        failed[0, : lost - 3] = True
        table = np.where(failed, 1.0, scores)
        (tested,) = testing.run_tests(
            contrasts.build(study, table), 0.05, True, delta=0.01, failed=failed
        )
        assert tested.p_within < 0.05 <= tested.p_holm
        assert grades.grade(tested, study) == grade
        claims = many.claims_of_many(
            study, table[:, None], delta=0.01, failed=failed[:, None], paired=True
        )
        assert many.grades_of(claims, 0.05, failed=True).tolist() == [[grade]]


def test_a_report_plans_with_the_runs_that_did_not_fail(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    folder = factories.write_study(tmp_path / "s", fail(runs, "nosgd01"), history)
    found = factories.report(folder, sweep_path, smallest_effect=0.01)
    assert found["trained_seeds"] == 7
    assert found["design"][2]["found"] > 0.9  # 2δ; a residual of 0.9 would hide it
    at = {(one["contrast"], one["n"], one["effect"]) for one in found["design"]}
    assert ("batch_norm", 8, found["contrasts"][0]["difference"]) in at


def test_all_runs_fail(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    folder = factories.write_study(tmp_path / "s", fail(runs, *runs["run_id"]), history)
    for row in factories.report(folder, sweep_path)["contrasts"]:
        assert row["grade"] == "not_testable"
        assert row["sentence"].endswith("differences are zero, failed runs counted as worst.")
        assert row["notes"][0].startswith("Failed runs: ")
        assert "same code" not in row["sentence"]


def test_a_score_beyond_the_declared_failure_has_failed(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    runs.loc[runs["run_id"] == "bnadam03", "summary.test/error"] = 0.6
    folder = factories.write_study(tmp_path / "s", runs, history)
    plain = factories.report(folder, sweep_path, smallest_effect=0.01)
    assert plain["failures"] == {}
    declared = {"smallest_effect": 0.01, "failure": {"worse_than": 0.5}}
    found = factories.report(folder, sweep_path, **declared)
    assert found["failures"] == {"bnadam03": "worse than 50.00 %"}
    assert found["variants"][2]["failed"] == 1
    with pytest.raises(StudyError, match=r"failure\.worse_then: unknown key; did you mean worse"):
        factories.study(sweep_path, failure={"worse_then": 0.5})


@pytest.mark.parametrize("paired", [True, False])
def test_many_studies_are_decided_as_one_is(sweep_path: Path, paired: bool) -> None:
    study, rng = factories.study(sweep_path, smallest_effect=0.01), np.random.default_rng(4)
    scores = (0.1 + rng.normal(0, 0.01, (4, 40, 8)) + rng.choice([0, 0.02], (4, 40, 1))).round(3)
    failed = rng.random(scores.shape) < 0.1
    failed[:, :10] = False
    failed[1, 11] = True  # a study without any seed that trained throughout
    scores[failed] = 1.0
    claims = many.claims_of_many(study, scores, paired, delta=0.01, failed=failed)
    seen = set()
    for k in range(40):
        built = contrasts.build(study, scores[:, k])
        one = testing.run_tests(built, 0.05, paired, delta=0.01, failed=failed[:, k])
        for i, tested in enumerate(one):
            own = claims.difference[k, i], claims.beyond[k, i], claims.within[k, i]
            assert own == pytest.approx((tested.p_holm, tested.p_beyond, tested.p_within))
            assert claims.direction[k, i] == tested.direction
            if paired:
                assert claims.least[k, i] == tested.least_holm
            if tested.interval is None:
                assert np.isnan(claims.estimate[k, i])
            else:
                assert claims.estimate[k, i] == pytest.approx(tested.interval.estimate)
            seen.add(grades.grade(tested, study))
    assert {"inconclusive", "preliminary_support", "meaningful"} <= seen
