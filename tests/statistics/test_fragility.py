"""Does a claim rest on one seed? Each left out, against tests of what is left."""

from pathlib import Path

import numpy as np
import pytest

from analysis.statistics import contrasts, fragility, intervals, testing
from lib.spec.study import Study
from tests import factories

DELTA = 0.01


def judged(study: Study, d: np.ndarray, grade: str) -> tuple[testing.Tested, object]:
    """Return the contrast of two variants whose differences are ``d``, and what it rests on."""
    scores = np.stack([np.full(len(d), 0.2), 0.2 + d])
    failed = np.zeros(scores.shape, dtype=bool)
    built = contrasts.build(study, scores)
    (tested,) = testing.run_tests(built, 0.05, paired=True, delta=DELTA, failed=failed)
    without = fragility.leave_one_out(study, scores, failed, True, [])
    return tested, fragility.judge([tested], 0, grade, without, study)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Give a study of one factor."""
    path = factories.grid(tmp_path / "s.yaml", {"act": ["a", "b"]}, 8)
    return factories.study(path, smallest_effect=DELTA)


def holds(d: np.ndarray, kind: str) -> bool:
    """Say whether the claim is made of these differences alone."""
    contrast = contrasts.Contrast("x", "main", 0 * d, d, sides=([0], [1]))
    (one,) = testing.run_tests([contrast], 0.05, paired=True, delta=DELTA)
    return getattr(one, kind) < 0.05


@pytest.mark.parametrize(
    ("d", "grade", "kinds"),
    [
        ([-0.002, 0.003, 0.001, -0.0015, 0.0045, 0.0121], "practically_equivalent", ["p_within"]),
        (
            [-0.002, 0.003, 0.001, -0.0015, 0.0121, 0.0095, 0.0085],
            "practically_equivalent",
            ["p_within"],
        ),
        ([0.004, 0.006, 0.003, 0.007, 0.005, 0.008, -0.001], "preliminary_support", ["p_holm"]),
        (
            [0.004, 0.006, 0.003, 0.0072, 0.005, 0.0081, -0.001],
            "support_small",
            ["p_holm", "p_within"],
        ),
        ([0.03, 0.04, 0.02, 0.035, 0.025, 0.009, 0.05], "meaningful", ["p_beyond"]),
    ],
)
def test_the_seeds_that_decide_are_named(
    study: Study, d: list[float], grade: str, kinds: list[str]
) -> None:
    d = np.array(d)
    others = [np.delete(d, k) for k in range(len(d))]
    lost = [k for k, rest in enumerate(others) if not all(holds(rest, kind) for kind in kinds)]
    assert lost, "an example in which seeds decide"
    tested, found = judged(study, d, grade)
    assert found.could_not == (len(d) - 1 < 6)  # five pairs cannot show a difference
    assert found.lost == (list(range(len(d))) if found.could_not else lost)
    one_sided = grade == "practically_equivalent"
    interval = intervals.paired_interval(d, 1 - 0.05 * (2 if one_sided else 1))
    target = {"meaningful": DELTA, "practically_equivalent": None}.get(grade, 0.0)
    if target is None:
        assert found.distance == pytest.approx(min(DELTA - interval.high, interval.low + DELTA))
    else:
        assert found.distance == pytest.approx(interval.low - target)
    assert found.confidence == interval.confidence
    assert tested.failures is None


def test_the_fewest_seeds_that_can_give_a_claim_decide_together(study: Study) -> None:
    """Five seeds could show equivalence alone, but a study of five makes no claim at all."""
    d = np.array([-0.002, 0.003, 0.001, -0.0015, 0.0045, 0.002])
    assert all(holds(np.delete(d, k), "p_within") for k in range(6))
    _, found = judged(study, d, "practically_equivalent")
    assert found.could_not
    assert found.lost == list(range(6))


def test_a_claim_that_no_seed_decides_has_no_note(study: Study) -> None:
    assert judged(study, np.linspace(0.03, 0.05, 12), "meaningful")[1] is None
    assert judged(study, np.linspace(0.03, 0.05, 6), "inconclusive")[1] is None
