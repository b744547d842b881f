"""Contrasts of special designs and scores: splits, floors, failures at a bound, float32, δ."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import wilcoxon
from statsmodels.stats.multitest import multipletests

from analysis.figures.scores import final_scores_caption
from analysis.pages import tables
from analysis.runs.data import with_worst
from analysis.runs.load import load_data
from analysis.statistics import (
    contrasts,
    grades,
    intervals,
    many,
    notes,
    sentences,
    testing,
)
from analysis.statistics.sentences import format_p, show_level
from lib.spec.metric_declaration import metric
from tests import factories

ERROR, ACCURACY = metric("test/error"), metric("test/accuracy")


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """Give a 2×2 sweep with seven seeds."""
    return factories.write_sweep(tmp_path / "made_up.yaml")


@pytest.mark.parametrize("splitting", ["batch_norm", "optimizer"])
def test_an_interaction_compares_within_the_splits(sweep_path: Path, splitting: str) -> None:
    """A factor that changes the split comes first, in whichever order the sweep lists it."""
    study = factories.study(sweep_path)
    scores = np.random.default_rng(0).normal(size=(4, 7))
    y = scores.reshape(2, 2, 7)  # batch_norm, optimizer, seed
    y = y if splitting == "batch_norm" else y.swapaxes(0, 1)
    found = contrasts.build(study, scores, splitting=[splitting])[-1]
    assert found.name == "batch_norm × optimizer"
    assert found.parts[0].factor == splitting
    assert (found.baseline == y[0, 1] - y[0, 0]).all()
    assert (found.treatment == y[1, 1] - y[1, 0]).all()
    at = study.factor_keys.index(splitting)
    for side, level in zip(found.sides, study.factors[splitting], strict=True):
        assert {study.variants[i][at] for i in side} == {level}
    plain = contrasts.build(study, scores)[-1]
    assert found.differences == pytest.approx(plain.differences)


def test_the_smallest_possible_p_is_holms(sweep_path: Path) -> None:
    """With a zero .031: times 3 only if no other contrast could have a smaller p."""
    study = factories.study(sweep_path)
    step = np.linspace(0.001, 0.007, 7)
    scores = 0.1 + np.stack([0 * step, step, 0.05 + step, 0.05 + 4 * step])
    scores[1, 0], scores[3, 0] = scores[0, 0], scores[2, 0]  # B and A × B are 0 for this seed
    tested = testing.run_tests(contrasts.build(study, scores), 0.05, paired=True)
    floors = [2 / 2**7, 2 / 2**6, 2 / 2**6]
    assert [one.test.least_p for one in tested] == floors
    holm = multipletests(floors, method="holm")[1]
    assert [one.least_holm for one in tested] == pytest.approx(holm.tolist())
    assert holm[1] < 3 * floors[1]
    assert [one.least_trained for one in tested] == [one.least_holm for one in tested]


def test_a_failed_run_has_the_largest_rank_whatever_the_bounds(tmp_path: Path) -> None:
    """An accuracy of 0 is close to 0.1, which is chance; the failure still counts most."""
    study = factories.study(factories.grid(tmp_path / "s.yaml", {"act": ["a", "b"]}, 8))
    scores = np.array([np.linspace(0.10, 0.13, 8), np.linspace(0.35, 0.44, 8)])
    failed = np.zeros(scores.shape, dtype=bool)
    failed[1, 3] = True
    ranked = with_worst(scores, failed, ACCURACY)
    assert (ranked[~failed] == scores[~failed]).all()
    (tested,) = testing.run_tests(contrasts.build(study, ranked), 0.05, True, failed=failed)
    assert np.abs(tested.contrast.differences).argmax() == 3
    assert tested.test.p == wilcoxon([1, 2, 3, -8, 4, 5, 6, 7], method="exact").pvalue


def test_failed_runs_are_worse_than_all_others() -> None:
    """A published score is one of the values that failed runs must be worse than."""
    few = np.array([[0.02, 0.03, 0.04], [0.01, 0.02, 0.03]])
    failed = np.array([[False] * 3, [False, True, False]])
    assert with_worst(few, failed, ERROR)[1, 1] > 0.04 + 2 * 0.03
    assert with_worst(1 - few, failed, ACCURACY)[1, 1] < 0.96 - 2 * 0.03
    assert with_worst(few, failed | True, ERROR).tolist() == [[1.0] * 3] * 2
    assert with_worst(few, failed, ERROR, [0.6])[1, 1] > 0.6 + 1


def test_a_huge_worst_value_ties_nothing(tmp_path: Path) -> None:
    """Losses near 1e-4 with a declared worst of 1e9: rounding errors of 1e9 are far larger."""
    path = factories.grid(tmp_path / "s.yaml", {"m": ["a", "b"]}, 8)
    key = {"key": "test/loss", "goal": "minimize", "worst": 1e9, "bounds": [0, None]}
    study, y = factories.study(path, metric=key), np.random.default_rng(0).random((2, 8))
    scores, failed = 1e-4 + 1e-5 * (y + np.array([[0], [3]])), np.zeros((2, 8), dtype=bool)
    failed[1, 3] = True
    (contrast,) = contrasts.build(study, with_worst(scores, failed, study.metric))
    assert (np.delete(contrast.differences, 3) > 0).all()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_rounding_breaks_no_tie(tmp_path: Path, kind: type) -> None:
    """Errors over 700 items, as a script logs them that computes in float32 or float64."""
    study = factories.study(factories.grid(tmp_path / "s.yaml", {"act": ["a", "b"]}, 8))
    wrong = np.array([[31, 40, 52, 47, 36, 44, 39, 58], [34, 43, 49, 47, 33, 44, 42, 51]])
    scores = (wrong / 700).astype(kind).astype(float)
    (contrast,) = contrasts.build(study, scores)
    sizes = np.abs(contrast.differences)
    assert len(np.unique(sizes)) == 3  # 0, 3 and 7 items
    assert ((sizes == 0) == (wrong[0] == wrong[1])).all()

    failed = np.zeros(scores.shape, dtype=bool)
    failed[1, 0] = True
    unbounded = metric({"key": "test/score", "goal": "minimize"})
    (contrast,) = contrasts.build(study, with_worst(scores, failed, unbounded))
    assert len(np.unique(np.abs(contrast.differences))) == 4  # and the failed run's


def test_only_rounding_makes_ties(tmp_path: Path) -> None:
    """Whole numbers are exact in float32 too, and one huge loss does not blur the others."""
    study = factories.study(factories.grid(tmp_path / "s.yaml", {"act": ["a", "b"]}, 8))
    whole = 9e6 + np.array([np.arange(8), np.arange(8) + 3])
    assert (contrasts.build(study, whole)[0].differences == 3).all()
    losses = np.linspace(0.9, 1.1, 16).reshape(2, 8).astype(np.float32).astype(float)
    losses[1, 7] = 3e6
    assert (contrasts.build(study, losses)[0].differences != 0).all()


def test_the_smallest_effect_is_shown_with_all_of_its_digits() -> None:
    assert ERROR.show_exactly(0.005) == "0.50 percentage points"
    assert ERROR.show_exactly(0.00125) == "0.125 percentage points"
    assert ERROR.show_exactly(4e-5) == "0.004 percentage points"
    scores = np.array([0.01, 0.02, 0.03])
    assert ERROR.fitting(scores, 0.00125).decimals == 2  # published scores are tied by these
    assert ERROR.fitting(scores, 4e-5).decimals == 3  # else it would be shown as 0.00
    declared = metric({"key": "test/error", "decimals": 1})
    assert declared.fitting(scores, 0.0004).decimals == 1
    assert declared.show_exactly(0.0004) == "0.04 percentage points"


def test_a_number_is_not_rounded_to_what_it_is_compared_with() -> None:
    assert [format_p(p) for p in (0.0498, 0.05, 0.0502)] == [".0498", ".05", ".0502"]
    assert [format_p(p) for p in (0.015625, 0.2, 1.0, 2e-6)] == [".016", ".2", "1", "2.0e-06"]
    assert [show_level(one) for one in (0.95, 1 - 0.05 / 3, 1 - 0.05 / 120, 1.0)] == [
        "95 %",
        "98.3 %",
        "99.96 %",
        "100 %",
    ]


def test_seeds_that_are_not_pairs_have_no_paired_numbers(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    runs["summary.order_sha256"] = runs["run_id"]  # no two runs in the same order
    results = factories.report(factories.write_study(tmp_path / "t", runs, history), sweep_path)
    paired = ("positive", "negative", "per_seed", "correlation", "p_t", "p_sign_flip")
    for row in results["contrasts"]:
        assert not row["paired"]
        assert [row[key] for key in paired] == [None] * len(paired)
    page = (tmp_path / "t" / "report.md").read_text()
    data = load_data(factories.study(sweep_path), tmp_path / "t")
    assert "runs with the same seed" not in final_scores_caption(data)  # no lines join them
    paired = factories.data(factories.study(sweep_path), *factories.tables(sweep_path))
    assert "gray lines join runs with the same seed" in final_scores_caption(paired)
    assert "–: undefined, as for seeds that are not paired." in page


def test_an_average_over_a_factor_without_a_tested_interaction_says_so(tmp_path: Path) -> None:
    """Three levels have no interaction contrast; here b helps with batch normalization only."""
    path = factories.grid(tmp_path / "s.yaml", {"bn": [False, True], "opt": ["a", "b", "c"]}, 8)
    noise = np.random.default_rng(0).normal(0, 1e-3, (2, 3, 8))
    levels = [[0.2, 0.2, 0.2], [0.2, 0.16, 0.2]]
    scores = {
        (bn, opt): (levels[i][j] + noise[i, j]).tolist()
        for i, bn in enumerate([False, True])
        for j, opt in enumerate("abc")
    }
    folder = factories.write_study(tmp_path / "t", *factories.scored(path, scores))
    results = factories.report(folder, path)
    found = {row["name"]: row["notes"] for row in results["contrasts"]}
    (note,) = [words for words in found["opt: b - a"] if "average" in words]
    assert "it is not known whether the effect depends on bn" in note
    low, high = (float(v.replace("\N{MINUS SIGN}", "-")) for v in note.split()[-5:-2:2])
    assert -4.3 < low < -3.7
    assert -0.3 < high < 0.3


def test_a_label_keeps_the_words_before_the_last() -> None:
    keys = ("val/top5_accuracy", "val/balanced_acc", "test/robust_error", "val_acc", "test/dice")
    titles = ["validation top5 accuracy", "validation balanced accuracy", "test robust error"]
    titles += ["validation accuracy", "test Dice coefficient"]
    assert [metric(key).title for key in keys] == titles


def test_a_key_that_names_the_best_is_not_called_the_last_epoch(tmp_path: Path) -> None:
    path = factories.grid(tmp_path / "s.yaml", {"act": ["a", "b"]}, 6)
    for key, words in (
        ("best/test_acc", "as in the summary"),
        ("max_val_accuracy", "as in the summary"),
        ("test/accuracy", "last epoch"),
        ("test/minimax_error", "last epoch"),
        ("val/max_error", "last epoch"),  # smaller is better, so the largest is not the best
    ):
        assert factories.study(path, metric=key, smallest_effect=None).rule_words == words


def test_an_interval_that_includes_0_next_to_a_claim_is_explained(sweep_path: Path) -> None:
    """Holm tests the last contrast at α, but each interval has the level 1 - α / 3."""
    study = factories.study(sweep_path)
    noise = np.random.default_rng(8).normal(0, 1e-4, (4, 7))
    y = 0.1 + noise + np.array([[0.0], [0.02], [0.03], [0.07]])
    tested = testing.run_tests(contrasts.build(study, y), 0.05, paired=True)
    assert all(notes.wider_than_the_test("preliminary_support", one, 3) == "" for one in tested)
    wide = dataclasses.replace(
        tested[0], interval=dataclasses.replace(tested[0].interval, low=-0.01, high=0.01)
    )
    assert "Holm" in notes.wider_than_the_test("preliminary_support", wide, 3)
    assert notes.wider_than_the_test("inconclusive", wide, 3) == ""


def test_an_interval_that_reaches_into_delta_next_to_a_claim_beyond_is_explained(
    sweep_path: Path,
) -> None:
    study = factories.study(sweep_path, smallest_effect=0.01)
    noise = np.random.default_rng(8).normal(0, 1e-4, (4, 7))
    y = 0.1 + noise + np.array([[0.0], [-0.02], [-0.03], [-0.07]])
    tested, *_ = testing.run_tests(contrasts.build(study, y), 0.05, paired=True, delta=0.01)
    assert notes.wider_than_beyond("meaningful", tested, study, 3) == ""
    wide = dataclasses.replace(tested, interval=dataclasses.replace(tested.interval, high=-0.009))
    note = notes.wider_than_beyond("meaningful", wide, study, 3)
    assert note.startswith("The interval includes −δ: it holds for all contrasts at once")
    alone = [
        study.metric.show_signed(v) for v in (wide.interval_alone.low, wide.interval_alone.high)
    ]
    assert note.endswith(f"interval of this contrast only, [{alone[0]}, {alone[1]}], does not.")
    assert notes.wider_than_beyond("preliminary_support", wide, study, 3) == ""
    assert notes.wider_than_beyond("meaningful", wide, study, 1) == ""
    both = dataclasses.replace(wide, interval_alone=wide.interval)
    assert "of this contrast only" not in notes.wider_than_beyond("meaningful", both, study, 3)


def test_an_interval_that_ends_at_0_because_of_zeros_is_explained(tmp_path: Path) -> None:
    path = factories.grid(tmp_path / "s.yaml", {"act": ["a", "b"]}, 10)
    study, d = factories.study(path), np.array([0, 0, 0, 0, 3, 4, 5, 6, 7, 8]) / 100
    scores = np.array([np.full(10, 0.1), 0.1 + d])
    (tested,) = testing.run_tests(contrasts.build(study, scores), 0.05, paired=True)
    assert tested.p_holm < 0.05
    assert tested.interval.low == 0
    note = notes.wider_than_the_test("preliminary_support", tested, 1)
    assert "the test of 0 counts 4 zero differences half on each side" in note
    assert "above 0 in 6 of 10 seeds" in sentences.numbers("preliminary_support", tested, study)


def test_an_interval_that_exceeds_delta_next_to_equivalence_is_explained(tmp_path: Path) -> None:
    """Two one-sided tests at 5 % are a 90 % interval; the 95 % interval shown is wider."""
    path = factories.grid(tmp_path / "s.yaml", {"act": ["a", "b"]}, 6)
    study, d = factories.study(path, smallest_effect=0.01), np.array([1, 2, 3, 4, 5, 10.1]) / 1000
    scores = np.array([np.full(6, 0.1), 0.1 + d - 0.004])
    (tested,) = testing.run_tests(contrasts.build(study, scores), 0.05, True, delta=0.006)
    assert tested.p_within < 0.05
    narrow = dataclasses.replace(
        study, declaration=study.declaration.model_copy(update={"smallest_effect": 0.006})
    )
    note = notes.wider_than_equivalence("practically_equivalent", tested, narrow, 1)
    own = intervals.paired_interval(scores[1] - scores[0], 0.9)
    assert f"the 90 % interval [{study.metric.show_signed(own.low)}, " in note
    assert notes.wider_than_equivalence("practically_equivalent", tested, study, 1) == ""


def test_the_short_table_shows_the_level_of_its_intervals() -> None:
    """Once if all rows have the same, otherwise in each row; a row may have no interval."""
    row = {"label": "a", "difference": 0.01, "ci_low": 0.0, "ci_high": 0.02, "p": 0.1}
    row |= {"p_holm": 0.1, "rank_biserial": 0.5, "grade": "inconclusive", "confidence": 0.95}
    row |= {"paired": True, "positive": 4, "negative": 1, "p_beyond": None, "p_within": None}
    none = row | {"difference": None, "ci_low": None, "ci_high": None, "confidence": None}

    def columns(*rows: dict) -> dict[str, list]:
        results = {"contrasts": list(rows), "smallest_effect": None}
        return tables.grades(results, ERROR).frame.to_dict("list")

    assert columns(row, row | {"label": "b"}, none)["95 % CI"] == [*["0.00 to +2.00"] * 2, "–"]
    assert columns(row, row | {"confidence": 0.9375}, none)["CI"] == [
        "0.00 to +2.00 (95 %)",
        "0.00 to +2.00 (93.8 %)",
        "–",
    ]


def test_zeros_leave_equivalence(tmp_path: Path) -> None:
    """Six zeros of ten cannot show a difference, but they and four small ones show equivalence."""
    study = factories.study(
        factories.grid(tmp_path / "s.yaml", {"act": ["a", "b"]}, 10), smallest_effect=0.01
    )
    d = np.array([0, 0, 0, 0, 0, 0, 1, -1, 2, -2]) / 1000
    scores = np.array([np.full(10, 0.1), 0.1 + d])
    (tested,) = testing.run_tests(contrasts.build(study, scores), 0.05, True, delta=0.01)
    assert tested.least_holm >= 0.05 > tested.p_within
    assert grades.grade(tested, study) == "practically_equivalent"
    many_claims = many.claims_of_many(study, scores[:, None], delta=0.01)
    assert many.grades_of(many_claims, 0.05, failed=False).tolist() == [["practically_equivalent"]]
    few = contrasts.build(study, scores[:, [6, 7, 8, 9, 0]])
    (tested,) = testing.run_tests(few, 0.05, True, delta=0.01)
    assert grades.grade(tested, study) == "not_testable"
    (tested,) = testing.run_tests(contrasts.build(study, scores * 0 + 0.1), 0.05, True, delta=0.01)
    assert grades.grade(tested, study) == "not_testable"
