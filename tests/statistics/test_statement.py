"""Contrasts and the words for them: definitions, every rung of the ladder, strict declarations."""

import re
from pathlib import Path

import numpy as np
import pytest

from analysis import grid, report
from analysis.runs import completeness
from analysis.statistics import contrasts, grades, rank_tests
from tests import factories

FORBIDDEN = re.compile(r"no difference|trend toward|proves?\b|significant|no effect|confirms", re.I)


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """Give a 2×2 sweep with seven seeds."""
    return factories.write_sweep(tmp_path / "made_up.yaml")


@pytest.mark.parametrize("seed", range(3))
def test_contrasts_are_their_definition(sweep_path: Path, seed: int) -> None:
    sweep = grid.load_sweep(sweep_path)
    study = grid.load_study(sweep)
    y = np.random.default_rng(seed).normal(size=(2, 2, 7))
    scores = {cell: list(values) for cell, values in zip(sweep.cells, y.reshape(4, 7), strict=True)}
    a, b, ab = contrasts.build(sweep, study, scores)
    np.testing.assert_allclose(a.differences, ((y[1, 1] + y[1, 0]) - (y[0, 1] + y[0, 0])) / 2)
    np.testing.assert_allclose(b.differences, ((y[1, 1] + y[0, 1]) - (y[1, 0] + y[0, 0])) / 2)
    np.testing.assert_allclose(ab.differences, (y[1, 1] - y[1, 0]) - (y[0, 1] - y[0, 0]))
    seeds = np.random.default_rng(9).normal(size=7)  # a seed's own effect cancels
    shifted = {cell: list(np.array(values) + seeds) for cell, values in scores.items()}
    for one, other in zip((a, b, ab), contrasts.build(sweep, study, shifted), strict=True):
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


def put_to_test(differences: np.ndarray) -> contrasts.Tested:
    contrast = contrasts.Contrast(
        "optimizer", [("optimizer", "adam", "sgd")], 0 * differences, differences
    )
    test = rank_tests.signed_rank(differences)
    intervals = (rank_tests.paired_interval(differences, level) for level in (0.95, 0.9))
    return contrasts.Tested(contrast, test, min(1.0, 3 * test.p), *intervals)


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("direction", ["lower", "higher"])
def test_every_rung_is_reached_in_careful_words(rung: str, direction: str) -> None:
    differences, agree = RUNGS[rung]
    metric = "test/error" if direction == "lower" else "test/dice"
    study = grid.Study(metric=metric, direction=direction, smallest_effect=0.01)
    for sign in (1, -1):
        result = put_to_test(sign * differences)
        state = grades.decide(result, 3, study, agree)
        assert state == rung.split(",")[0]
        text = grades.sentence(state, result, 3, study, 4, agree)
        assert not FORBIDDEN.search(text), text
        assert f"n = {len(differences)}" in text
        better = (sign > 0) == (direction == "higher")
        if state in ("preliminary_support", "support_small", "meaningful"):
            assert ("(better)" if better else "(worse)") in text
            assert text.startswith("Preliminary evidence")
            assert "these learning rates" in text


def test_an_interval_that_touches_zero_is_said_so() -> None:
    study = grid.Study(metric="test/error", direction="lower")
    d = np.array([-0.02, -0.01, 0.02, 0.03, 0.04, 0.05, 0.05, 0.06])
    test, interval = rank_tests.signed_rank(d), rank_tests.paired_interval(d)
    assert (test.p < 0.05, interval.low) == (True, 0)
    contrast = contrasts.Contrast("optimizer", [("optimizer", "adam", "sgd")], 0 * d, d)
    result = contrasts.Tested(contrast, test, test.p, interval, interval)
    state = grades.decide(result, 1, study, True)
    assert state == "suggestive"
    assert "touches zero" in grades.sentence(state, result, 1, study, 4, True)


def test_without_a_smallest_effect_nothing_is_called_meaningful_or_equivalent() -> None:
    study = grid.Study(metric="test/error", direction="lower")
    states = {
        grades.decide(put_to_test(differences), 3, study, True) for differences, _ in RUNGS.values()
    }
    assert states == {"not_testable", "inconclusive", "suggestive", "preliminary_support"}


def test_identical_variants_are_seen() -> None:
    study = grid.Study(metric="test/error", direction="lower")
    result = put_to_test(np.zeros(10))
    state = grades.decide(result, 1, study, True)
    assert "probably ran the same code" in grades.sentence(state, result, 1, study, 4, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("metric: test/error\ndirection: down", "direction = 'down'"),
        ("metric: test/error\ndirection: lower\nalpha: '0.05'", "alpha = '0.05'"),
        ("metric: test/error\ndirection: lower\nsmallest_effect: 0", "smallest_effect = 0"),
        ("metric: test/error\ndirection: lower\nmargin: 1", "margin = 1"),
        ("metric: test/error\ndirection: lower\nscore_rule: best_on_test", "on the test set"),
        ("metric: [", "cannot read"),
    ],
)
def test_declarations_are_strict(sweep_path: Path, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "made_up.yaml").rename(tmp_path / "sweep.yaml")
    (tmp_path / "made_up.yaml").write_text(text)
    sweep = grid.load_sweep(tmp_path / "sweep.yaml")
    with pytest.raises(grid.GridError) as error:
        grid.load_study(grid.Sweep("made_up", *list(vars(sweep).values())[1:]), tmp_path)
    assert words in str(error.value)


def test_without_a_declaration_the_sweeps_metric_counts(sweep_path: Path) -> None:
    study = grid.load_study(grid.load_sweep(sweep_path))
    assert (study.metric, study.direction, study.score_rule) == ("test/error", "lower", "last")
    assert (study.alpha, study.smallest_effect) == (0.05, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("method: random\nparameters: {}", "only from `method: grid`"),
        ("method: grid\nparameters: {a: {value: 1}}", "no `seed`"),
        ("method: grid\nparameters: {seed: {values: [1, 1]}}", "seed lists a value twice"),
        ("method: grid\nparameters: {seed: {values: []}}", "a list with a value in it, not []"),
        ("method: grid\nparameters: {a: {values: adam}}", "a list with a value in it, not 'adam'"),
        ("method: grid\nparameters: {a: {values: 5}}", "a list with a value in it, not 5"),
        ("method: grid\nparameters: {a: {values: [null]}}", "may hold text, numbers, true, false"),
        ("method: grid\nparameters: {a: {value: 2026-01-01}}", "may hold text, numbers"),
        ("method: grid\nparameters: {seed: {min: 1}}", "needs `value:`"),
        ("- 1", "not a mapping"),
    ],
)
def test_sweeps_that_plan_nothing(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(grid.GridError) as error:
        grid.load_sweep(tmp_path / "s.yaml")
    assert words in str(error.value)


def test_more_factors_and_levels(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "method: grid\nmetric: {name: val/error, goal: minimize}\nparameters:\n"
        "  a: {values: [x, y, z]}\n  b: {values: [1, 2]}\n  seed: {values: [0, 1, 2]}\n"
    )
    sweep = grid.load_sweep(tmp_path / "s.yaml")
    study = grid.load_study(sweep)
    level = {"x": 0.0, "y": 1.0, "z": 3.0}
    scores = {cell: [level[cell[0]] + 10.0 * cell[1]] * 3 for cell in sweep.cells}
    built = {c.name: c.differences.round(9).tolist() for c in contrasts.build(sweep, study, scores)}
    assert built == {"a: y - x": [1] * 3, "a: z - x": [3] * 3, "a: z - y": [2] * 3, "b": [10] * 3}
    assert completeness._same(True, True)
    assert not completeness._same(True, 1)


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
    sweep = grid.load_sweep(sweep_path)
    study = grid.load_study(sweep)
    runs, history = factories.tables(sweep_path, effects)
    book = completeness.check(sweep, study, runs, history)
    results = report.analyse(sweep, study, book, runs, None)
    main, _, interaction = (row["sentence"] for row in results["contrasts"])
    assert "This is an average" not in interaction
    assert (words in main) if words else ("This is an average" not in main)


def test_opposite_simple_effects_are_said_without_an_interaction_in_the_family() -> None:
    study = grid.Study(metric="test/error", direction="lower")
    row = {"parts": [["optimizer", "adam", "sgd"]], "state": "meaningful"}
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
