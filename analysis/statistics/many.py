"""The decisions of ``testing`` for thousands of made-up studies at once, for rates and power."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics import contrasts, grades, intervals, rank_tests, testing
from lib.spec.study import Study


@dataclass(frozen=True)
class Claims:
    """Holm's p-values of three kinds of claim in many studies at once, (studies, contrasts) each.

    ``trained``: of a difference among seeds without a failed run. ``least``: the smallest p that
    the seeds could have given; ``direction``: 1, -1 or 0, over all seeds; ``estimate``:
    Hodges–Lehmann, of seeds without a failed run; NaN where there is none.
    """

    difference: np.ndarray
    beyond: np.ndarray
    within: np.ndarray
    trained: np.ndarray
    least: np.ndarray
    direction: np.ndarray
    estimate: np.ndarray


def claims_of_many(
    study: Study,
    tables: np.ndarray,
    paired: bool = True,
    splitting: Sequence[str] = (),
    delta: float | None = None,
    failed: np.ndarray | None = None,
    resolution: float | None = None,
) -> Claims:
    """Test the study's contrasts in many studies of one design, as ``testing.run_tests`` tests one.

    ``tables``, ``failed``: (variants, studies, seeds).
    """
    variants, studies, n = tables.shape
    found = []
    for contrast in contrasts.build(study, tables.reshape(variants, -1), resolution):
        pairs = testing.has_pairs(contrast, paired, splitting)
        flat = None if failed is None else failed.reshape(variants, -1)
        kept = [k.reshape(studies, n) for k in testing.kept_of(contrast, flat, pairs)]
        x, y = (v.reshape(studies, n) for v in (contrast.baseline, contrast.treatment))
        less, greater = testing.tails(x, y, pairs, contrast.tolerance)
        least = np.full(studies, rank_tests.smallest_p(n, n))
        if pairs:
            moving = (rank_tests.with_ties(y - x, contrast.tolerance) != 0).sum(axis=1)
            least = np.minimum(1.0, 2 * 0.5**moving)
        beyond, within, trained = np.ones(studies), np.ones(studies), np.ones(studies)
        estimate = np.full(studies, np.nan)
        for rows, own in equally_many(x, y, kept):
            estimate[rows] = intervals.hodges_lehmann(*own, pairs)
            without = testing.tails(*own, pairs, contrast.tolerance)
            trained[rows] = rank_tests.two_sided(*without)
            if delta is not None:
                beyond[rows], within[rows] = testing.margins(*own, pairs, contrast.tolerance, delta)
        direction = np.sign(less - greater)
        found.append(
            (
                rank_tests.two_sided(less, greater),
                beyond,
                within,
                trained,
                least,
                direction,
                estimate,
            )
        )
    kinds = [np.stack(kind, axis=1) for kind in zip(*found, strict=True)]
    return Claims(*(rank_tests.holm(p) for p in kinds[:4]), *kinds[4:])


def equally_many(
    x: np.ndarray, y: np.ndarray, kept: Sequence[np.ndarray]
) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]]:
    """Give the studies with equally many kept seeds on either side: rows, and their values."""
    counts = [k.sum(axis=1) for k in kept]
    ordered = [
        np.take_along_axis(v, np.argsort(~k, axis=1, kind="stable"), 1)
        for v, k in zip((x, y), kept, strict=True)
    ]
    for m, n in sorted(set(zip(*(c.tolist() for c in counts), strict=True))):
        rows = np.nonzero((counts[0] == m) & (counts[1] == n))[0]
        if m and n:
            yield rows, (ordered[0][rows, :m], ordered[1][rows, :n])


def grades_of(claims: Claims, alpha: float, failed: bool) -> np.ndarray:
    """Return the grade of each contrast of each study, (studies, contrasts) of text.

    ``failed``: whether some runs failed, so that all runs and the trained ones may disagree.
    """
    shape = claims.difference.shape
    found = np.full(shape, "not_testable", dtype=object)
    same = (claims.trained < alpha) & (np.sign(claims.estimate) == claims.direction)
    could = (claims.least * shape[1] < alpha) | (claims.difference < alpha)
    for at in zip(*np.nonzero(could), strict=True):
        p = claims.difference[at], claims.beyond[at], claims.within[at]
        found[at] = grades.decide(*p, alpha, bool(same[at]) or not failed)
    return found
