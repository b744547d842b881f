"""Check whether a claim depends on a single seed, by leave-one-out over the seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics import many, rank_tests, testing
from analysis.statistics.grades import CLAIMS
from analysis.statistics.testing import Tested
from lib.spec.study import Study

# The claims that each grade needs, by their names in Claims.
KINDS = {
    "meaningful": ("beyond",),
    "support_small": ("difference", "within"),
    "preliminary_support": ("difference",),
    "practically_equivalent": ("within",),
}


@dataclass(frozen=True)
class Fragility:
    """How much a claim depends on single seeds.

    ``lost``: the indices of the seeds without which the claim is not established. ``could_not``:
    whether n - 1 seeds could not give any claim, whatever their scores. ``distance``: from
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
    family: Sequence[Tested], index: int, grade: str, without: many.Claims | None, study: Study
) -> Fragility | None:
    """Return how the claim of the contrast at ``index`` of its ``family`` depends on single seeds.

    None if it holds without each seed, if ``grade`` makes no claim, or if runs failed: notes on
    failures then describe what the claim rests on. ``without``: from ``leave_one_out``.
    """
    tested = family[index]
    if grade not in CLAIMS or without is None or tested.failures is not None:
        return None
    delta, kinds = study.smallest_effect, KINDS[grade]
    p_of = {kind: getattr(without, kind)[:, index] for kind in kinds}
    n = tested.n - 1
    floors = [rank_tests.smallest_p(n, None if one.paired else n) for one in family]
    could_not = rank_tests.holm(floors)[index] >= study.alpha  # as in grades.grade
    is_lost = np.max(list(p_of.values()), axis=0) >= study.alpha
    lost = np.nonzero(is_lost | could_not)[0].tolist()
    if not lost:
        return None
    # Of two claims the one that is lost with more seeds says which bound is near.
    kind = max(kinds, key=lambda name: int((p_of[name] >= study.alpha).sum()))
    one_sided = kind == "within"  # two tests, each of one side, at α
    confidence = 1 - (2 if one_sided else 1) * study.alpha / len(family)
    ends = testing.interval(*tested.values, tested.paired, tested.contrast.tolerance, confidence)
    low, high = ends.low, ends.high
    if not one_sided:
        target = delta if kind == "beyond" else 0.0
        up = tested.interval.estimate > 0
        distance, towards = (low - target, target) if up else (-target - high, -target)
    else:
        distance, towards = min((delta - high, delta), (low + delta, -delta))
    return Fragility(lost, bool(could_not), float(distance), float(towards), ends.confidence)
