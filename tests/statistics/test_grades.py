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

from analysis.statistics import contrasts, grades, notes, rank_tests, sentences, testing
from analysis.statistics import results as study_results
from lib.spec.build import build_study
from lib.spec.declaration import Declaration, StudyError
from lib.spec.study import Study
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


# What gets each grade: differences of n seeds in a family of 3, with delta 0.01.
EXAMPLES = {
    "not_testable": np.linspace(0.010, 0.012, 5),
    "inconclusive": np.array([-0.03, 0.05, 0.02, -0.04, 0.03, 0.01, -0.02]),
    "inconclusive, uncorrected p below alpha": np.array(
        [-0.002, -0.005, 0.03, 0.02, 0.04, 0.035, 0.015, 0.05]
    ),
    "preliminary_support": np.linspace(0.004, 0.02, 8),
    "support_small": np.linspace(0.004, 0.006, 8),
    "practically_equivalent": np.linspace(-0.004, 0.0041, 8),
    "meaningful": np.linspace(0.02, 0.03, 8),
}


OPTIMIZER = contrasts.Part("optimizer", "adam", "sgd")


def plain_study(**declared: object) -> Study:
    sweep = {"method": "grid", "parameters": {"seed": {"values": [0]}}}
    sweep["parameters"]["optimizer"] = {"values": ["adam", "sgd"]}
    declaration = Declaration(**{"metric": "test/error"} | declared)
    return build_study("plain", [read_sweep(sweep)], declaration)


def put_to_test(differences: np.ndarray, delta: float | None = 0.01) -> testing.Tested:
    """Return the differences as one contrast in a family of three; the others have larger p."""
    contrast = contrasts.Contrast("optimizer", "main", 0 * differences, differences, [OPTIMIZER])
    contrast = dataclasses.replace(contrast, sides=([0], [1]))
    (alone,) = testing.run_tests([contrast], 0.05 / 3, paired=True, delta=delta)
    three = {
        name: getattr(alone, name) and min(1.0, 3 * getattr(alone, name))
        for name in ("p_holm", "p_beyond", "p_within", "least_holm")
    }
    return dataclasses.replace(alone, **three)


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("metric", ["test/error", "test/dice"])
def test_every_grade_is_reached_in_careful_words(example: str, metric: str) -> None:
    differences = EXAMPLES[example]
    study = plain_study(metric=metric, smallest_effect=0.01)
    for sign in (1, -1):
        result = put_to_test(sign * differences)
        grade = grades.grade(result, study)
        assert grade == example.split(",")[0]
        text = sentences.sentence(grade, result, study)
        assert not FORBIDDEN.search(text), text
        assert f"{len(differences)} seeds" in text
        interval = result.interval
        ends = [study.metric.show_signed(end) for end in (interval.low, interval.high)]
        assert f"[{100 * interval.confidence:.3g} % CI {ends[0]}, {ends[1]}]" in text
        better = (sign > 0) == (metric == "test/dice")
        if grade in grades.SUPPORTED:
            assert ("(better)" if better else "(worse)") in text
        by = {"meaningful": "by more than", "support_small": "by less than"}.get(grade, "")
        assert by in text
        remark = notes.not_corrected(result, study)
        assert ("Uncorrected p" in remark) == ("uncorrected" in example)


def test_claims_are_decided_by_their_own_p_alone() -> None:
    decide = grades.decide
    assert decide(0.01, 0.01, 1, 0.05) == "meaningful"
    assert decide(0.01, 0.2, 0.01, 0.05) == "support_small"
    assert decide(0.01, 0.2, 0.2, 0.05) == "preliminary_support"
    assert decide(0.01, None, None, 0.05) == "preliminary_support"
    assert decide(0.05, 0.01, 0.2, 0.05) == "inconclusive"  # α itself is not below α
    assert decide(0.2, 1, 0.01, 0.05) == "practically_equivalent"
    assert decide(0.2, None, None, 0.05) == "inconclusive"


@pytest.mark.parametrize(
    ("grade", "both", "left"),
    [
        ("meaningful", (-0.4, -0.2), "meaningful"),
        ("meaningful", (-0.4, -0.05), "preliminary_support"),
        ("meaningful", (-0.4, 0.01), "inconclusive"),
        ("meaningful", (0.2, 0.4), "meaningful"),
        ("support_small", (0.01, 0.09), "support_small"),
        ("support_small", (0.01, 0.11), "preliminary_support"),
        ("preliminary_support", (0.01, 0.2), "preliminary_support"),
        ("preliminary_support", (-0.01, 0.2), "inconclusive"),
        ("practically_equivalent", (-0.09, 0.09), "practically_equivalent"),
        ("practically_equivalent", (-0.05, 0.12), "inconclusive"),
        ("inconclusive", (0.2, 0.4), "inconclusive"),
        ("not_testable", None, "not_testable"),
        ("meaningful", None, "inconclusive"),
        ("practically_equivalent", None, "inconclusive"),
    ],
)
def test_claims_against_a_published_score_hold_for_items_too(
    grade: str, both: tuple[float, float] | None, left: str
) -> None:
    """With δ = 0.1; the interval over seeds and items never makes a claim stronger."""
    direction = 0 if both is None else int(np.sign(sum(both)))
    assert grades.on_other_items(grade, direction, both, 0.1) == left
    if grade in grades.SUPPORTED:
        assert grades.on_other_items(grade, -direction, both, 0.1) == "inconclusive"


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
    assert grades.grade(result, study) == "inconclusive"
    single = dataclasses.replace(result, p_within=alone)
    assert grades.grade(single, study) == "practically_equivalent"
    text = sentences.sentence("practically_equivalent", single, study)
    assert text.endswith("Holm p of equivalence = .027.")


@pytest.mark.parametrize("paired", [True, False])
def test_each_kind_of_claim_has_a_correction_of_its_own(sweep_path: Path, paired: bool) -> None:
    """Three contrasts of one study: Holm over their p-values of a kind, from other functions."""
    study, delta = factories.study(sweep_path, smallest_effect=0.01), 0.01
    scores = 0.1 + np.random.default_rng(3).normal(0, 0.01, (4, 7)) + [[0], [0.03], [0], [0.03]]
    tested = testing.run_tests(contrasts.build(study, scores), 0.05, paired, delta=delta)
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
    without = testing.run_tests(contrasts.build(study, scores), 0.05, paired)
    assert {(one.p_within, one.p_beyond) for one in without} == {(None, None)}


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=8), st.booleans())
def test_beyond_and_within_are_one_sided_tests_of_shifted_values(
    whole: list[int], pairs: bool
) -> None:
    d, delta, x = np.array(whole) / 100, 0.02, np.array([0.0, 0.01])

    def tails(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return rank_tests.signed_rank_tails(v) if pairs else rank_tests.rank_sum_tails(x, v)

    above, below = tails(d - delta), tails(d + delta)
    beyond, within = rank_tests.beyond_and_within(above, below)
    assert beyond == min(1, 2 * min(above[1], below[0]))
    assert within == max(above[0], below[1])
    if pairs:
        mirrored = rank_tests.beyond_and_within(tails(-d - delta), tails(-d + delta))
        assert mirrored == pytest.approx((beyond, within))
    assert not (beyond < 0.05 and within < 0.05)


def test_without_a_smallest_effect_nothing_is_called_meaningful_or_equivalent() -> None:
    study = plain_study()
    found = {grades.grade(put_to_test(d, None), study) for d in EXAMPLES.values()}
    assert found == {"not_testable", "inconclusive", "preliminary_support"}


def test_zeros_may_leave_nothing_to_test() -> None:
    """Seven seeds carry three contrasts, .016 times 3; with a zero among them .031 times 3."""
    study = plain_study()
    seven = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07])
    assert grades.grade(put_to_test(seven), study) == "preliminary_support"
    result = put_to_test(seven * [0, 1, 1, 1, 1, 1, 1])
    grade = grades.grade(result, study)
    assert grade == "not_testable"
    text = sentences.sentence(grade, result, study)
    assert text.endswith("smallest possible Holm p .094 (1 zero difference).")


def test_identical_variants_are_seen() -> None:
    study = plain_study()
    result = put_to_test(np.zeros(10))
    grade = grades.grade(result, study)
    assert "may have run the same code" in sentences.sentence(grade, result, study)


def test_more_factors_and_levels(tmp_path: Path) -> None:
    path = factories.grid(tmp_path / "s.yaml", {"a": ["x", "y", "z"], "b": [1, 2]}, 3)
    study, level = factories.study(path), {"x": 0.0, "y": 1.0, "z": 3.0}
    scores = np.array([[level[a] + 10.0 * b] * 3 for a, b in study.variants])
    built = {c.name: c.differences.round(9).tolist() for c in contrasts.build(study, scores)}
    assert built == {"a: y - x": [1] * 3, "a: z - x": [3] * 3, "a: z - y": [2] * 3, "b": [10] * 3}
    by_name = factories.study(path, primary=["b", "a: z - x"])
    assert [c.name for c in contrasts.build(by_name, scores)] == ["b", "a: z - x"]
    with pytest.raises(StudyError, match="`primary:` names unknown contrasts of s: c"):
        contrasts.build(factories.study(path, primary=["c"]), scores)


@pytest.mark.parametrize(
    ("effects", "words"),
    [
        ((-0.02, -0.01, 0.0), "not known whether the effect depends on optimizer"),
        ((-0.02, -0.03, 0.05), "the effect depends on optimizer"),
        ((0.02, -0.03, -0.04), "the effect depends on optimizer"),
    ],
)
def test_a_main_effect_over_an_interaction_is_called_an_average(
    sweep_path: Path, effects: tuple[float, float, float], words: str | None
) -> None:
    data = factories.data(factories.study(sweep_path), *factories.tables(sweep_path, effects))
    results = study_results.analyze(data)
    main, _, interaction = (" ".join(row["notes"]) for row in results["contrasts"])
    assert "This is an average" not in interaction
    assert (words in main) if words else ("This is an average" not in main)
    assert "The effects that it compares: " not in main
    shown = "The claim is about their average, not about each of them." in main
    assert shown == (words == "the effect depends on optimizer")


def test_an_average_lists_its_simple_effects_in_the_contrasts_own_direction() -> None:
    """With a control that is the second level, both ends of the interval change sign and place."""
    study = plain_study()
    simple = {"levels": ["x", 0, 1], "difference": 0.03, "ci_low": 0.01, "ci_high": 0.06}
    simple |= {"confidence": 0.95, "at": [("optimizer", "sgd")], "sign": -1}
    signed = study.metric.show_signed
    said = notes._listed([simple], study)
    assert f"{signed(-0.03)}" in said
    assert f"[95 % CI {signed(-0.06)}, {signed(-0.01)}] with optimizer = sgd" in said
    lacking = simple | {"difference": None}
    assert notes._listed([simple, lacking], study) == " (see the simple effects)"


def effects_noted(tmp_path: Path, lost: dict[tuple[bool, str], list[int]]) -> str:
    """Return the note on an interaction of effects −0.02 and +0.03; ``lost``: diverged seeds."""
    path = factories.write_sweep(tmp_path / "s.yaml")
    runs, history = factories.tables(path, (-0.02, 0.005, 0.05))
    for (norm, optimizer), seeds in lost.items():
        rows = (runs["config.batch_norm"] == norm) & (runs["config.optimizer"] == optimizer)
        runs.loc[rows & runs["config.seed"].isin(seeds), "summary.diverged"] = True
    results = study_results.analyze(factories.data(factories.study(path), runs, history))
    row = results["contrasts"][2]
    (note,) = (note for note in row["notes"] if note.startswith("The effects that it compares: "))
    amounts = [float(one.replace("−", "-")) for one in re.findall(r"[+−]\d+\.\d+", note)]
    assert 100 * row["difference"] == pytest.approx(amounts[1] - amounts[0], abs=0.1)
    return note


def test_an_interaction_comes_with_the_two_effects_it_compares(tmp_path: Path) -> None:
    note = effects_noted(tmp_path, {})
    start = "The effects that it compares: optimizer = sgd instead of optimizer = adam, "
    number = r"[+−]\d\.\d\d percentage points"
    end = f"{number} with batch_norm = False and {number} with batch_norm = True."
    assert re.fullmatch(re.escape(start) + end, note)
    # Of a seed that failed in one variant, the runs of the other variants do not count either.
    everywhere = {(norm, name): [0, 3] for norm in (False, True) for name in ("adam", "sgd")}
    assert effects_noted(tmp_path, {(False, "adam"): [0, 3]}) != note
    assert effects_noted(tmp_path, {(False, "adam"): [0, 3]}) == effects_noted(tmp_path, everywhere)


def test_without_a_seed_there_are_no_effects_to_compare() -> None:
    contrast = contrasts.Contrast(
        "a × b", "interaction", np.zeros(3), np.ones(3), [OPTIMIZER, OPTIMIZER], ([0, 1], [2, 3])
    )
    failed = np.zeros((4, 3), dtype=bool)
    failed[0] = True
    (result,) = testing.run_tests([contrast], 0.05, paired=True, failed=failed)
    assert notes.simple_effects(result, plain_study()) == ""


def test_the_smallest_possible_p_is_said() -> None:
    """It is Holm's p of the family in which every contrast has the least p that its seeds allow."""
    study, floor = plain_study(), ", the smallest that these seeds can give"
    best, worse = np.arange(1.0, 9), np.array([-3.0, 1, 2, *range(4, 9)])
    with_zero = np.array([0.0, *range(2, 9)])  # least p .016; of the others .0078

    def said(*family: np.ndarray, paired: bool = True) -> list[tuple[str, bool]]:
        rows = [
            contrasts.Contrast(f"c{i}", "main", 0 * d, d, [OPTIMIZER], ([0], [1]))
            for i, d in enumerate(family)
        ]
        results = testing.run_tests(rows, 0.05, paired)
        texts = [sentences.numbers("inconclusive", one, study) for one in results]
        ends = [text.split("Holm p = ")[1] for text in texts]
        return [(text.removesuffix(floor), text.endswith(floor)) for text in ends]

    assert said(best) == [(".0078", True)]
    assert said(worse) == [(".039", False)]
    assert said(best, best, with_zero) == [(".023", True), (".023", True), (".023", True)]
    assert said(best, worse, best) == [(".023", True), (".039", False), (".023", True)]
    assert said(worse, with_zero) == [(".039", False), (".031", False)], ".016 with worse at .008"
    (unpaired,) = said(best + 10, paired=False)
    assert unpaired[1]


def test_opposite_simple_effects_are_said_without_an_interaction_in_the_family() -> None:
    study = plain_study()
    row = {"parts": [["optimizer", "adam", "sgd"]], "grade": "meaningful", "kind": "main"}
    rows = [
        {"levels": ["optimizer", "adam", "sgd"], "p_holm": 0.01, "rank_biserial": value}
        | {"difference": value}
        for value in (-0.4, 0.4)
    ]
    assert "opposite signs" in notes.qualification(row, [row], rows, study, {})[0]
    assert notes.qualification(row, [row], rows[:1], study, {}) == []
    rows[0]["p_holm"] = 0.5
    assert notes.qualification(row, [row], rows, study, {}) == []


def test_every_grade_has_its_meaning() -> None:
    assert set(grades.GRADES) == {example.split(",")[0] for example in EXAMPLES}
