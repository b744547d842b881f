"""Hodges–Lehmann estimates with the intervals of all shifts that the rank tests do not reject."""

import bisect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.rank_tests import (
    RELATIVE,
    both_with_ties,
    checked,
    distinct,
    rank_sum,
    signed_rank,
    smallest_p,
    with_ties,
)

MOST_AT_ONCE = 4_000_000  # pairwise values held in memory


@dataclass(frozen=True)
class Interval:
    """A Hodges–Lehmann estimate with its confidence interval."""

    estimate: float
    low: float
    high: float
    confidence: float  # as requested, or the highest level that this number of values allows


def hodges_lehmann(first: np.ndarray, second: np.ndarray, paired: bool) -> np.ndarray:
    """Return the Hodges–Lehmann difference of ``second`` minus ``first`` (…, n), for each row.

    If paired, the median of the Walsh averages of the differences; otherwise the median of all
    pairwise differences. Works in chunks, since each row needs about n² / 2 values, or n².
    """
    chunk = max(1, MOST_AT_ONCE // (first.shape[-1] * second.shape[-1]))
    if first.ndim > 1 and len(first) > chunk:
        starts = range(0, len(first), chunk)
        return np.concatenate(
            [hodges_lehmann(first[k : k + chunk], second[k : k + chunk], paired) for k in starts]
        )
    if paired:
        i, j = np.triu_indices(first.shape[-1])
        d = second - first
        return np.median((d[..., i] + d[..., j]) / 2, axis=-1)
    pairs = second[..., :, None] - first[..., None, :]
    return np.median(pairs.reshape(*pairs.shape[:-2], -1), axis=-1)


def paired_interval(
    differences: ArrayLike, confidence: float = 0.95, tolerance: float | None = None
) -> Interval:
    """Return the Hodges–Lehmann estimate of paired differences (n,) and its exact interval.

    The estimate is the median of the Walsh averages (d_i + d_j) / 2, i <= j. The interval contains
    every shift that the signed-rank test does not reject (Hollander & Wolfe 1999, section 3.2). If
    2 / 2^n exceeds 1 - confidence, it is the whole range of averages, with its own confidence.
    ``tolerance``: see rank_tests.
    """
    d = with_ties(checked(differences, "differences"), tolerance)
    tied = RELATIVE * np.abs(d).max() if tolerance is None else tolerance
    i, j = np.triu_indices(len(d))
    averages = distinct((d[i] + d[j]) / 2, tied)
    estimate = float(np.median((d[i] + d[j]) / 2))
    floor = smallest_p(len(d))
    level = max(1 - confidence, floor)
    low, high = _invert(averages, estimate, level, lambda m: signed_rank(d - m, tied / 4).p)
    return Interval(estimate, low, high, min(confidence, 1 - floor))


def shift_interval(
    x: ArrayLike, y: ArrayLike, confidence: float = 0.95, tolerance: float | None = None
) -> Interval:
    """Return the Hodges–Lehmann shift of y (m,) against x (n,) and its interval.

    The estimate is the median of all y_j - x_i. The interval contains every shift that the
    Mann–Whitney test does not reject: exact up to ``MOST_EXACT`` values, see rank_tests, also for
    ``tolerance``.
    """
    x, y = both_with_ties(checked(x, "x"), checked(y, "y"), tolerance)
    tied = RELATIVE * max(np.abs(x).max(), np.abs(y).max()) if tolerance is None else tolerance
    pairs = (y[:, None] - x[None, :]).ravel()
    estimate = float(np.median(pairs))
    floor = smallest_p(len(x), len(y))
    low, high = _invert(
        distinct(pairs, tied),
        estimate,
        max(1 - confidence, floor),
        lambda m: rank_sum(x, y - m, tied / 4).p,
    )
    return Interval(estimate, low, high, min(confidence, 1 - floor))


def _invert(
    candidates: np.ndarray, estimate: float, level: float, p_at: Callable[[float], float]
) -> tuple[float, float]:
    """Return the smallest interval that contains all shifts with p above ``level``.

    ``candidates``: the sorted shifts at which p can change. Between them p is constant; it rises up
    to the estimate and falls after it, so a binary search on each side finds where it crosses
    ``level``.
    """
    gaps = (candidates[:-1] + candidates[1:]) / 2

    def kept(k: int) -> bool:
        return p_at(gaps[k]) > level * (1 + 1e-9)

    index = bisect.bisect(gaps, estimate)
    adjacent = [k for k in (index - 1, index) if 0 <= k < len(gaps)]
    middle = max(adjacent, key=lambda k: p_at(gaps[k]), default=None)
    if middle is None or not kept(middle):  # with many ties only a candidate itself may be kept
        k = bisect.bisect(candidates, estimate)
        around = [float(c) for c in candidates[max(0, k - 2) : k + 2]]
        alone = [c for c in around if p_at(c) > level * (1 + 1e-9)] or [estimate]
        return min(alone), max(alone)
    first = bisect.bisect_left(range(middle), True, key=kept)
    last = bisect.bisect_left(range(middle, len(gaps)), True, key=lambda k: not kept(k)) + middle
    return float(candidates[first]), float(candidates[last])


def ends(
    bounds: Interval | None, low: str = "ci_low", high: str = "ci_high", level: str = "confidence"
) -> dict[str, float | None]:
    """Return an interval as entries of results.json: low end, high end, confidence.

    All are None without an interval, and for that of a single pair, which has no confidence.
    """
    if bounds is None or not bounds.confidence > 0:
        return dict.fromkeys((low, high, level))
    return {low: bounds.low, high: bounds.high, level: bounds.confidence}
