"""Vectorized version of ``testing`` for thousands of simulated studies: error rates and power."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.statistics import contrasts, grades, intervals, rank_tests, testing
from lib.spec.study import Study


@dataclass(frozen=True)
class Claims:
    """Holm-adjusted p-values of each kind of claim in many studies, (studies, contrasts) each.

    ``difference``, ``beyond``, ``within``: of the three claims. ``trained``: of a difference among
    the seeds without a failed run. ``least``: ``difference`` if every contrast had the smallest p
    that its zeros allow (ties of unpaired seeds are not counted); ``design``: that the number of
    seeds allows. ``direction``: the sign of the difference over all seeds, or 0. ``estimate``: the
    Hodges–Lehmann difference over the seeds without a failed run, NaN if there are none.
    ``design_trained``: ``design`` of these seeds.
    """

    difference: np.ndarray
    beyond: np.ndarray
    within: np.ndarray
    trained: np.ndarray
    least: np.ndarray
    design: np.ndarray
    design_trained: np.ndarray
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
    """Test the contrasts of many studies of one design, like ``testing.run_tests`` for one study.

    ``tables``, ``failed``: (variants, studies, seeds).
    """
    variants, studies, n = tables.shape
    columns = []
    for contrast in contrasts.build(study, tables.reshape(variants, -1), resolution, splitting):
        pairs = testing.has_pairs(contrast, paired, splitting)
        flat = None if failed is None else failed.reshape(variants, -1)
        kept = [k.reshape(studies, n) for k in testing.kept_of(contrast, flat, pairs)]
        x, y = (v.reshape(studies, n) for v in (contrast.baseline, contrast.treatment))
        less, greater = testing.tails(x, y, pairs, contrast.tolerance)
        design, design_trained = np.full(studies, testing.smallest_p(n, n, pairs)), np.ones(studies)
        least = design
        if pairs:
            moving = (rank_tests.with_ties(y - x, contrast.tolerance) != 0).sum(axis=1)
            least = np.minimum(1.0, 2 * 0.5**moving)
        beyond, within, trained = np.ones(studies), np.ones(studies), np.ones(studies)
        estimate = np.full(studies, np.nan)
        for rows, sides in equally_many(x, y, kept):
            estimate[rows] = intervals.hodges_lehmann(*sides, pairs)
            counts = (side.shape[-1] for side in sides)
            design_trained[rows] = testing.smallest_p(*counts, pairs)
            without = testing.tails(*sides, pairs, contrast.tolerance)
            trained[rows] = rank_tests.two_sided(*without)
            if delta is not None:
                tested = testing.margins(*sides, pairs, contrast.tolerance, delta)
                beyond[rows], within[rows] = tested
        direction = np.sign(less - greater)
        columns.append(
            (
                rank_tests.two_sided(less, greater),
                beyond,
                within,
                trained,
                least,
                design,
                design_trained,
                direction,
                estimate,
            )
        )
    kinds = [np.stack(kind, axis=1) for kind in zip(*columns, strict=True)]
    return Claims(*(rank_tests.holm(p) for p in kinds[:7]), *kinds[7:])


def equally_many(
    x: np.ndarray, y: np.ndarray, kept: Sequence[np.ndarray]
) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]]:
    """Yield the rows of studies with the same numbers of kept seeds, and their kept values."""
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
    """Return the grade of each contrast in each study as text, (studies, contrasts).

    ``failed``: whether runs failed, so that a difference over all runs must also be shown by the
    seeds without a failed run to allow claims about ±δ.
    """
    shape = claims.difference.shape
    graded = np.full(shape, "not_testable", dtype=object)
    same = (claims.trained < alpha) & (np.sign(claims.estimate) == claims.direction)
    all_equal = (claims.least >= 1) & (claims.direction == 0)
    for index in zip(*np.nonzero((claims.design < alpha) & ~all_equal), strict=True):
        p = claims.difference[index], claims.beyond[index], claims.within[index]
        found = grades.decide(*p, alpha, bool(same[index]) or not failed)
        floors = claims.design[index], claims.design_trained[index], claims.least[index]
        graded[index] = grades.where_testable(found, *floors, alpha)
    return graded
