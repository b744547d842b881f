"""Check whether a claim depends on a single seed, by leave-one-out over the seeds."""

from dataclasses import dataclass

import numpy as np

from analysis.statistics import many, rank_tests, testing
from analysis.statistics.grades import CLAIMS, SUPPORTED
from analysis.statistics.testing import Tested
from lib.spec.study import Study


@dataclass(frozen=True)
class Fragility:
    """How much a claim depends on single seeds.

    ``lost``: the indices of the seeds without which the claim is not established. ``could_not``:
    whether n - 1 seeds could not give the claim, whatever their scores. ``distance``: from
    ``towards``, the value that the claim excludes, to the nearest end of the interval with
    ``confidence``; negative if the interval contains that value.
    """

    lost: list[int]
    could_not: bool
    distance: float
    towards: float
    confidence: float


def leave_one_out(
    study: Study,
    scores: np.ndarray,
    failed: np.ndarray,
    paired: bool,
    splitting: list[str],
    resolution: float | None = None,
) -> many.Claims | None:
    """Return the claims without each seed in turn, (seeds, contrasts); None if n < 3.

    ``scores``, ``failed``: (variants, seeds).
    """
    n = scores.shape[1]
    if n < 3:
        return None
    others = np.array([np.delete(np.arange(n), k) for k in range(n)])
    delta = study.smallest_effect
    scores, failed = scores[:, others], failed[:, others]
    return many.claims_of_many(study, scores, paired, splitting, delta, failed, resolution)


def judge(
    tested: Tested, grade: str, without: many.Claims | None, index: int, study: Study
) -> Fragility | None:
    """Return how the claim of the contrast at ``index`` depends on single seeds.

    None if it holds without each seed, if ``grade`` makes no claim, or if runs failed: notes on
    failures then describe what the claim rests on. ``without``: from ``leave_one_out``.
    """
    if grade not in CLAIMS or without is None or tested.failures is not None:
        return None
    delta, family = study.smallest_effect, without.difference.shape[1]
    if grade == "meaningful":
        p = without.beyond[:, index]
    elif grade == "support_small":
        p = np.maximum(without.difference[:, index], without.within[:, index])
    elif grade == "preliminary_support":
        p = without.difference[:, index]
    else:
        p = without.within[:, index]
    lost = np.nonzero(p >= study.alpha)[0].tolist()
    if not lost:
        return None
    one_sided = grade == "practically_equivalent"  # two tests, each of one side, at α
    confidence = 1 - (2 if one_sided else 1) * study.alpha / family
    ends = testing.interval(*tested.values, tested.paired, tested.contrast.tolerance, confidence)
    low, high = ends.low, ends.high
    if grade in SUPPORTED:
        target = delta if grade == "meaningful" else 0.0
        up = tested.interval.estimate > 0
        distance, towards = (low - target, target) if up else (-target - high, -target)
    else:
        distance, towards = min((delta - high, delta), (low + delta, -delta))
    fewer = tested.n - 1
    floor = rank_tests.smallest_p(fewer, None if tested.paired else fewer)
    could_not = floor * family / (2 if one_sided else 1) >= study.alpha
    return Fragility(lost, could_not, float(distance), float(towards), ends.confidence)
