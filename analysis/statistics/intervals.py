"""Hodges–Lehmann estimates with exact intervals: the shifts that exact tests do not reject."""

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

MOST_AT_ONCE = 4_000_000  # averages that are held in memory


@dataclass(frozen=True)
class Interval:
    """A Hodges–Lehmann estimate with its exact confidence interval."""

    estimate: float
    low: float
    high: float
    confidence: float  # what was asked for, or the most that so few values can give


def hodges_lehmann(first: np.ndarray, second: np.ndarray, paired: bool) -> np.ndarray:
    """Return the Hodges–Lehmann difference of ``second`` against ``first`` (…, n), for each row.

    The median of the Walsh averages of paired differences, or of all differences of two samples.
    Many rows are taken in parts: each has as many averages as n² / 2.
    """
    part = max(1, MOST_AT_ONCE // (first.shape[-1] * second.shape[-1]))
    if first.ndim > 1 and len(first) > part:
        parts = range(0, len(first), part)
        return np.concatenate(
            [hodges_lehmann(first[k : k + part], second[k : k + part], paired) for k in parts]
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

    The estimate is the median of the Walsh averages (d_i + d_j) / 2, i <= j; the interval holds
    every shift that the signed-rank test does not reject (Hollander & Wolfe 1999, section 3.2).
    Where 2 / 2^n exceeds 1 - confidence the whole range of averages is given, with its confidence.
    ``tolerance``: see rank_tests.
    """
    d = with_ties(checked(differences, "differences"), tolerance)
    near = RELATIVE * np.abs(d).max() if tolerance is None else tolerance
    i, j = np.triu_indices(len(d))
    averages = distinct((d[i] + d[j]) / 2, near)
    estimate = float(np.median((d[i] + d[j]) / 2))
    floor = smallest_p(len(d))
    level = max(1 - confidence, floor)
    low, high = _invert(averages, estimate, level, lambda m: signed_rank(d - m, near / 4).p)
    return Interval(estimate, low, high, min(confidence, 1 - floor))


def shift_interval(
    x: ArrayLike, y: ArrayLike, confidence: float = 0.95, tolerance: float | None = None
) -> Interval:
    """Return the Hodges–Lehmann shift of y (m,) against x (n,) and its exact interval.

    The estimate is the median of all y_j - x_i; the interval holds every shift that the
    Mann–Whitney test does not reject. ``tolerance``: see rank_tests.
    """
    x, y = both_with_ties(checked(x, "x"), checked(y, "y"), tolerance)
    near = RELATIVE * max(np.abs(x).max(), np.abs(y).max()) if tolerance is None else tolerance
    pairs = (y[:, None] - x[None, :]).ravel()
    estimate = float(np.median(pairs))
    floor = smallest_p(len(x), len(y))
    low, high = _invert(
        distinct(pairs, near),
        estimate,
        max(1 - confidence, floor),
        lambda m: rank_sum(x, y - m, near / 4).p,
    )
    return Interval(estimate, low, high, min(confidence, 1 - floor))


def _invert(
    candidates: np.ndarray, estimate: float, level: float, p_at: Callable[[float], float]
) -> tuple[float, float]:
    """Return the hull of the shifts with p above ``level``.

    Between candidates p is constant, and it rises towards the estimate and falls beyond it: a
    binary search on either side finds where it leaves ``level``.
    """
    gaps = (candidates[:-1] + candidates[1:]) / 2

    def kept(k: int) -> bool:
        return p_at(gaps[k]) > level * (1 + 1e-9)

    place = bisect.bisect(gaps, estimate)
    near = [k for k in (place - 1, place) if 0 <= k < len(gaps)]
    middle = max(near, key=lambda k: p_at(gaps[k]), default=None)
    if middle is None or not kept(middle):  # so many ties that no shift between the candidates is
        k = bisect.bisect(candidates, estimate)
        around = [float(c) for c in candidates[max(0, k - 2) : k + 2]]
        alone = [c for c in around if p_at(c) > level * (1 + 1e-9)] or [estimate]
        return min(alone), max(alone)
    first = bisect.bisect_left(range(middle), True, key=kept)
    last = bisect.bisect_left(range(middle, len(gaps)), True, key=lambda k: not kept(k)) + middle
    return float(candidates[first]), float(candidates[last])
