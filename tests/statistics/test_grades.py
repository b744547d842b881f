"""Contrasts and the words for them: definitions, and every grade in careful words."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, wilcoxon
from statsmodels.stats.multitest import multipletests

from analysis.statistics import contrasts, grades, intervals, rank_tests
from analysis.statistics import results as study_results
from lib.spec.declaration import Declaration, StudyError
from lib.spec.study import Study, build_study
from lib.spec.sweep import read_sweep
from tests import factories

FORBIDDEN = re.compile(r"no difference|trend toward|proves?\b|significant|no effect|confirms", re.I)


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """Give a 2×2 sweep with seven seeds."""
    return factories.write_sweep(tmp_path / "made_up.yaml")


@pytest.mark.parametrize("seed", range(3))
def test_contrasts_are_their_definition(sweep_path: Path, seed: int) -> None:
    study = factories.study(sweep_path)
    y = np.random.default_rng(seed).normal(size=(2, 2, 7))
    scores = y.reshape(4, 7)
    a, b, ab = contrasts.build(study, scores)
    np.testing.assert_allclose(a.differences, ((y[1, 1] + y[1, 0]) - (y[0, 1] + y[0, 0])) / 2)
    np.testing.assert_allclose(b.differences, ((y[1, 1] + y[0, 1]) - (y[1, 0] + y[0, 0])) / 2)
    np.testing.assert_allclose(ab.differences, (y[1, 1] - y[1, 0]) - (y[0, 1] - y[0, 0]))
    seeds = np.random.default_rng(9).normal(size=7)  # a seed's own effect cancels
    for one, other in zip((a, b, ab), contrasts.build(study, scores + seeds), strict=True):
        np.testing.assert_allclose(one.differences, other.differences, atol=1e-12)


# What lands on each rung: differences of n seeds in a family of 3, with delta 0.01.
RUNGS = {
    "not_testable": (np.linspace(0.010, 0.012, 5), True),
    "inconclusive": (np.array([-0.03, 0.05, 0.02, -0.04, 0.03, 0.01, -0.02]), True),
    "suggestive": (np.array([-0.002, -0.005, 0.03, 0.02, 0.04, 0.035, 0.015, 0.05]), True),
    "preliminary_support": (np.linspace(0.004, 0.02, 8), True),
    "support_small": (np.linspace(0.004, 0.006, 8), True),
    "practically_equivalent": (np.linspace(-0.004, 0.0041, 8), True),
    "meaningful": (np.linspace(0.02, 0.03, 8), True),
    "suggestive, rules disagree": (np.linspace(0.02, 0.03, 8), False),
    "suggestive, equivalent by one rule": (np.linspace(-0.004, 0.0041, 8), False),
}


OPTIMIZER = contrasts.Part("optimizer", "adam", "sgd")


def plain_study(**declared: object) -> Study:
    sweep = {"method": "grid", "parameters": {"seed": {"values": [0]}}}
    sweep["parameters"]["optimizer"] = {"values": ["adam", "sgd"]}
    declaration = Declaration(**{"metric": "test/error"} | declared)
    return build_study("plain", [read_sweep(sweep)], declaration)


def put_to_test(differences: np.ndarray, delta: bool = True) -> contrasts.Tested:
    contrast = contrasts.Contrast("optimizer", "main", 0 * differences, differences, [OPTIMIZER])
    test = rank_tests.signed_rank(differences)
    interval = intervals.paired_interval(differences)
    shifted = (rank_tests.signed_rank(differences - shift) for shift in (0.01, -0.01))
    margins = [min(1.0, 3 * p) for p in rank_tests.beyond_and_within(*shifted)]
    margins = margins if delta else [None, None]
    return contrasts.Tested(contrast, test, min(1.0, 3 * test.p), interval, *margins)


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("metric", ["test/error", "test/dice"])
def test_every_rung_is_reached_in_careful_words(rung: str, metric: str) -> None:
    differences, agree = RUNGS[rung]
    study = plain_study(metric=metric, smallest_effect=0.01)
    for sign in (1, -1):
        result = put_to_test(sign * differences)
        state = grades.grade(result, 3, study, agree)
        assert state == rung.split(",")[0]
        text = grades.sentence(state, result, 3, study, "4 epochs", agree)
        assert not FORBIDDEN.search(text), text
        assert f"n = {len(differences)}" in text
        better = (sign > 0) == (metric == "test/dice")
        if state in ("preliminary_support", "support_small", "meaningful"):
            assert ("(better)" if better else "(worse)") in text
            assert text.startswith("Preliminary evidence")
            assert "these learning rates" in text


def test_claims_about_the_smallest_effect_are_corrected_too() -> None:
    """Alone it lies within ±δ at p = .027; as one of three such claims it would need .017."""
    study = plain_study(smallest_effect=0.01)
    d = np.array([-0.004, -0.003, -0.002, 0.0075, 0.008, 0.006, 0.005, 0.0145])
    alone = max(
        wilcoxon(d - 0.01, alternative="less", method="exact").pvalue,
        wilcoxon(d + 0.01, alternative="greater", method="exact").pvalue,
    )
    result = put_to_test(d)
    assert 0.05 / 3 < alone < 0.05
    assert result.p_within == pytest.approx(3 * alone)
    assert grades.grade(result, 3, study, True) == "inconclusive"
    single = dataclasses.replace(result, p_within=alone)
    assert grades.grade(single, 1, study, True) == "practically_equivalent"
    text = grades.sentence("practically_equivalent", single, 1, study, "4 epochs", True)
    assert "(two one-sided tests, Holm p = .027)" in text


@pytest.mark.parametrize("paired", [True, False])
def test_each_kind_of_claim_has_a_correction_of_its_own(sweep_path: Path, paired: bool) -> None:
    """Three contrasts of one study: Holm over their p-values of a kind, from other functions."""
    study, delta = factories.study(sweep_path, smallest_effect=0.01), 0.01
    scores = 0.1 + np.random.default_rng(3).normal(0, 0.01, (4, 7)) + [[0], [0.03], [0], [0.03]]
    tested = contrasts.run_tests(contrasts.build(study, scores), 0.05, paired, delta=delta)
    within, beyond = [], []
    for one in tested:
        x, y = one.contrast.baseline, one.contrast.treatment
        shifted = [y - x - m if paired else y - m for m in (delta, -delta)]
        sides = [
            [
                wilcoxon(v, alternative=side, method="exact").pvalue
                if paired
                else mannwhitneyu(v, x, alternative=side, method="exact").pvalue
                for side in ("less", "greater")
            ]
            for v in shifted
        ]
        within.append(max(sides[0][0], sides[1][1]))
        beyond.append(min(1, 2 * min(sides[0][1], sides[1][0])))
    for found, own in (("p_within", within), ("p_beyond", beyond)):
        holm = multipletests(own, method="holm")[1]
        assert [getattr(one, found) for one in tested] == pytest.approx(holm.tolist())
        assert holm.tolist() != pytest.approx(own)  # else nothing was corrected
    without = contrasts.run_tests(contrasts.build(study, scores), 0.05, paired)
    assert {(one.p_within, one.p_beyond) for one in without} == {(None, None)}


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=8), st.booleans())
def test_beyond_and_within_are_one_sided_tests_of_shifted_values(
    whole: list[int], pairs: bool
) -> None:
    d, delta = np.array(whole) / 100, 0.02
    test = rank_tests.signed_rank if pairs else lambda v: rank_tests.rank_sum([0.0, 0.01], v)
    above, below = test(d - delta), test(d + delta)
    beyond, within = rank_tests.beyond_and_within(above, below)
    mirrored = rank_tests.beyond_and_within(test(-d - delta), test(-d + delta))
    assert above.p == min(1, 2 * min(above.p_less, above.p_greater))
    if pairs:
        assert mirrored == pytest.approx((beyond, within))
    assert not (beyond < 0.05 and within < 0.05)


def test_an_interval_that_touches_zero_is_said_so() -> None:
    study = plain_study()
    d = np.array([-0.02, -0.01, 0.02, 0.03, 0.04, 0.05, 0.05, 0.06])
    test, interval = rank_tests.signed_rank(d), intervals.paired_interval(d)
    assert (test.p < 0.05, interval.low) == (True, 0)
    contrast = contrasts.Contrast("optimizer", "main", 0 * d, d, [OPTIMIZER])
    result = contrasts.Tested(contrast, test, test.p, interval)
    state = grades.grade(result, 1, study, True)
    assert state == "suggestive"
    assert "touches zero" in grades.sentence(state, result, 1, study, "4 epochs", True)


def test_without_a_smallest_effect_nothing_is_called_meaningful_or_equivalent() -> None:
    study = plain_study()
    states = {grades.grade(put_to_test(d, False), 3, study, True) for d, _ in RUNGS.values()}
    assert states == {"not_testable", "inconclusive", "suggestive", "preliminary_support"}


def test_zeros_may_leave_nothing_to_test() -> None:
    """Seven seeds carry three contrasts, .016 times 3; with a zero among them .031 times 3."""
    study = plain_study()
    seven = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07])
    assert grades.grade(put_to_test(seven), 3, study, True) == "preliminary_support"
    result = put_to_test(seven * [0, 1, 1, 1, 1, 1, 1])
    state = grades.grade(result, 3, study, True)
    assert state == "not_testable"
    text = grades.sentence(state, result, 3, study, "4 epochs", True)
    assert "(n = 7, of which 1 difference is zero, smallest p .031, 3 comparisons" in text


def test_identical_variants_are_seen() -> None:
    study = plain_study()
    result = put_to_test(np.zeros(10))
    state = grades.grade(result, 1, study, True)
    assert "probably ran the same code" in grades.sentence(
        state, result, 1, study, "4 epochs", True
    )


def test_more_factors_and_levels(tmp_path: Path) -> None:
    path = factories.grid(tmp_path / "s.yaml", {"a": ["x", "y", "z"], "b": [1, 2]}, 3)
    study, level = factories.study(path), {"x": 0.0, "y": 1.0, "z": 3.0}
    scores = np.array([[level[a] + 10.0 * b] * 3 for a, b in study.variants])
    built = {c.name: c.differences.round(9).tolist() for c in contrasts.build(study, scores)}
    assert built == {"a: y - x": [1] * 3, "a: z - x": [3] * 3, "a: z - y": [2] * 3, "b": [10] * 3}
    by_name = factories.study(path, primary=["b", "a: z - x"])
    assert [c.name for c in contrasts.build(by_name, scores)] == ["b", "a: z - x"]
    with pytest.raises(StudyError, match="`primary:` names c, which s does not have"):
        contrasts.build(factories.study(path, primary=["c"]), scores)


@pytest.mark.parametrize(
    ("effects", "words"),
    [
        ((-0.02, -0.01, 0.0), None),
        ((-0.02, -0.03, 0.05), "the effect depends on optimizer"),
        ((0.02, -0.03, -0.04), "the effect depends on optimizer"),
    ],
)
def test_a_main_effect_over_an_interaction_is_called_an_average(
    sweep_path: Path, effects: tuple[float, float, float], words: str | None
) -> None:
    data = factories.data(factories.study(sweep_path), *factories.tables(sweep_path, effects))
    results = study_results.analyze(data)
    main, _, interaction = (row["sentence"] for row in results["contrasts"])
    assert "This is an average" not in interaction
    assert (words in main) if words else ("This is an average" not in main)


def test_opposite_simple_effects_are_said_without_an_interaction_in_the_family() -> None:
    study = plain_study()
    row = {"parts": [["optimizer", "adam", "sgd"]], "grade": "meaningful", "kind": "main"}
    rows = [
        {"levels": ["optimizer", "adam", "sgd"], "p_holm": 0.01, "difference": d}
        for d in (-0.1, 0.2)
    ]
    assert "opposite signs" in grades.qualification(row, [row], rows, study)
    assert grades.qualification(row, [row], rows[:1], study) == ""
    rows[0]["p_holm"] = 0.5
    assert grades.qualification(row, [row], rows, study) == ""


def test_every_rung_has_its_meaning() -> None:
    assert set(grades.GRADES) == {rung.split(",")[0] for rung in RUNGS}
