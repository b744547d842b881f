"""Exact rank tests: pure functions on arrays, one value per run.

``signed_rank`` and ``rank_sum`` test one data set and return all results. ``signed_rank_tails`` and
``rank_sum_tails`` return only the p-values, for many data sets at once (simulations).

The null distributions are computed by convolution for the observed ties and zeros, so p-values are
exact and equal to scipy's exact or full-permutation p-values. The one exception, marked by
``exact = False``, is the Mann–Whitney test of more than ``MOST_EXACT`` values in total.

Floating-point scores carry rounding errors: 0.1 + 0.2 is not 0.3. Values at most ``tolerance``
apart are therefore tied, and differences up to ``tolerance`` are 0. The default is ``RELATIVE``
times the largest value, so no result depends on the unit of measurement.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import mannwhitneyu, rankdata

RELATIVE = 1e-9  # far above the rounding errors of float64, far below measurable differences
MOST_EXACT = 80  # values in both samples: the cost grows with the fourth power


@dataclass(frozen=True)
class SignedRank:
    """Result of the signed-rank test on n paired differences."""

    n: int
    n_zero: int
    positive: int  # differences above 0
    negative: int  # differences below 0
    statistic: float  # the smaller rank sum, as scipy and R report it
    p: float  # two-sided, exact: twice the smaller of the next two
    p_less: float  # one-sided, alternative: differences below 0
    p_greater: float  # one-sided, alternative: differences above 0
    least_p: float  # the smallest p that differences of these sizes can give, with any signs
    rank_biserial: float  # (W+ - W-) / (W+ + W-), from -1 to 1 (Kerby 2014); 0 if all are 0


@dataclass(frozen=True)
class RankSum:
    """Result of the Mann–Whitney test of y against x."""

    n_x: int
    n_y: int
    statistic: float  # U of y: pairs with y > x, ties count half
    p: float  # two-sided: twice the smaller of the next two
    p_less: float  # one-sided, alternative: y below x
    p_greater: float  # one-sided, alternative: y above x
    least_p: float  # the smallest p that these values can give, however they are split
    a12: float  # probability that y exceeds x, ties count half (Vargha & Delaney 2000)
    exact: bool = True  # False: normal approximation


def signed_rank(differences: ArrayLike, tolerance: float | None = None) -> SignedRank:
    """Test exactly whether paired differences (n,) are symmetric about 0 (Wilcoxon 1945).

    Ties get midranks; zeros keep their ranks, half on each side (scipy's ``zsplit``). The p-value
    is twice the smaller tail over all 2^n sign flips.

    Raises:
        ValueError: if there is no value, or on NaN or infinity.
    """
    d = with_ties(checked(differences, "differences"), tolerance)
    doubled = _doubled_midranks(np.abs(d))
    plus, minus = int(doubled[d > 0].sum()), int(doubled[d < 0].sum())
    half_zeros = doubled[d == 0].sum() / 2
    less, greater = (float(tail) for tail in signed_rank_tails(d, 0.0))
    moving = int((d != 0).sum())
    return SignedRank(
        n=len(d),
        n_zero=len(d) - moving,
        positive=int((d > 0).sum()),
        negative=int((d < 0).sum()),
        statistic=float(min(plus, minus) + half_zeros) / 2,
        p=min(1.0, 2 * min(less, greater)),
        p_less=less,
        p_greater=greater,
        least_p=smallest_p(moving) if moving else 1.0,
        rank_biserial=float((plus - minus) / doubled.sum()) if moving else 0.0,
    )


def signed_rank_tails(
    differences: ArrayLike, tolerance: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact one-sided p-values (…) of paired differences (…, n), one test per row.

    The alternative is differences below 0 for the first, and differences above 0 for the second.
    """
    d = with_ties(differences, tolerance)
    doubled = _doubled_midranks(np.abs(d))
    plus, total = np.where(d > 0, doubled, 0).sum(-1), np.where(d != 0, doubled, 0).sum(-1)
    weights = np.sort(np.where(d != 0, doubled, 0), axis=-1)
    plain = (weights == 2 * np.arange(1, d.shape[-1] + 1)).all(-1)  # neither ties nor zeros
    less, greater = np.empty(plain.shape), np.empty(plain.shape)
    if plain.any():
        cdf = _sign_flip_cdf(tuple(range(1, d.shape[-1] + 1)))
        less[plain], greater[plain] = cdf[plus[plain] // 2], cdf[(total - plus)[plain] // 2]
    for row in np.ndindex(plain.shape):
        if plain[row]:
            continue
        nonzero = weights[row][weights[row] > 0]
        unit = max(1, np.gcd.reduce(nonzero))
        cdf = _sign_flip_cdf(tuple((nonzero // unit).tolist()))
        less[row], greater[row] = cdf[plus[row] // unit], cdf[(total[row] - plus[row]) // unit]
    return less, greater


def rank_sum(x: ArrayLike, y: ArrayLike, tolerance: float | None = None) -> RankSum:
    """Test whether y (m,) and x (n,) have the same distribution (Mann & Whitney 1947).

    The p-value is twice the smaller tail over all splits of the pooled midranks. For more than
    ``MOST_EXACT`` values it is the normal approximation, corrected for ties and continuity.

    Raises:
        ValueError: on an empty sample, NaN or infinity.
    """
    x, y = both_with_ties(checked(x, "x"), checked(y, "y"), tolerance)
    ranks = _doubled_midranks(np.concatenate([y, x]))
    u = (ranks[: len(y)].sum() - len(y) * (len(y) + 1)) / 2
    exact = len(ranks) <= MOST_EXACT
    less, greater = (float(tail) for tail in rank_sum_tails(x, y, 0.0))
    least = smallest_p(len(x), len(y))
    if exact:
        at_most, at_least = _arrangement_tails(tuple(np.sort(ranks).tolist()), len(y))
        ends = at_most[at_most > 0][0], at_least[at_least > 0][-1]
        least = min(1.0, 2 * float(min(ends)))
    elif np.ptp(ranks) == 0:
        least = 1.0
    p = min(1.0, 2 * min(less, greater))
    return RankSum(
        len(x), len(y), float(u), p, less, greater, least, float(u / (len(x) * len(y))), exact
    )


def rank_sum_tails(
    x: ArrayLike, y: ArrayLike, tolerance: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the one-sided p-values (…) of y (…, m) against x (…, n), one test per row.

    The alternative is y below x for the first, and y above x for the second. Exact up to
    ``MOST_EXACT`` values.
    """
    x, y = both_with_ties(x, y, tolerance)
    m = y.shape[-1]
    ranks = _doubled_midranks(np.concatenate([y, x], axis=-1))
    totals, ordered = ranks[..., :m].sum(-1), np.sort(ranks, axis=-1)
    less, greater = np.empty(totals.shape), np.empty(totals.shape)
    for row in np.ndindex(totals.shape):
        if ranks.shape[-1] <= MOST_EXACT:
            at_most, at_least = _arrangement_tails(tuple(ordered[row].tolist()), m)
            less[row], greater[row] = at_most[totals[row]], at_least[totals[row]]
        elif np.ptp(ranks[row]) == 0:
            less[row] = greater[row] = 1.0
        else:
            less[row], greater[row] = (
                mannwhitneyu(y[row], x[row], alternative=side, method="asymptotic").pvalue
                for side in ("less", "greater")
            )
    return less, greater


def two_sided(less: np.ndarray, greater: np.ndarray) -> np.ndarray:
    """Return two-sided p-values: twice the smaller tail, at most 1."""
    return np.minimum(1.0, 2 * np.minimum(less, greater))


def beyond_and_within(
    above: tuple[np.ndarray, np.ndarray], below: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the p-values of two claims: a difference lies beyond ±δ, and it lies within ±δ.

    ``above``: the tails (less, greater) of the differences minus δ; ``below``: of the differences
    plus δ. Beyond: the smaller one-sided p of "above δ" and "below -δ", doubled because both sides
    are tested. Within: the larger one-sided p of "below δ" and "above -δ" (two one-sided tests,
    Schuirmann 1987).
    """
    beyond = np.minimum(1.0, 2 * np.minimum(above[1], below[0]))
    return beyond, np.maximum(above[0], below[1])


def a12(x: ArrayLike, y: ArrayLike, tolerance: float | None = None) -> float:
    """Return the share of pairs in which y (m,) exceeds x (n,), ties half (Vargha & Delaney 2000).

    Raises:
        ValueError: on an empty sample, NaN or infinity.
    """
    x, y = both_with_ties(checked(x, "x"), checked(y, "y"), tolerance)
    return float((y[:, None] > x).mean() + (y[:, None] == x).mean() / 2)


def sign_flip(differences: ArrayLike, tolerance: float | None = None) -> float:
    """Return the exact two-sided p of the mean of paired differences (n,) under sign flips.

    Fisher's (1935) randomization test: p is the share of the 2^n sign patterns whose mean is at
    least as far from 0. Sums at most ``tolerance`` apart are equal. All patterns are listed, since
    real-valued sums cannot be counted by convolution; hence the limit of 20 values.

    Raises:
        ValueError: if there is no value, on NaN or infinity, or for more than 20 values.
    """
    d = with_ties(checked(differences, "differences"), tolerance)
    if len(d) > 20:
        raise ValueError(f"the sign-flip test takes at most 20 values, got {len(d)}")
    sums = np.zeros(1)
    for value in d:
        sums = np.concatenate([sums + value, sums - value])
    least = abs(sums[0]) - np.max(_tolerance(tolerance, d))
    return float((np.abs(sums) >= least).mean())


def smallest_p(n: int, m: int | None = None) -> float:
    """Return the smallest two-sided p of a signed-rank (n) or Mann–Whitney (n, m) test."""
    if m is None:
        return min(1.0, 2 * 0.5**n)
    return min(1.0, 2 / math.comb(n + m, n))


def holm(p: ArrayLike) -> np.ndarray:
    """Return p-values adjusted by Holm's (1979) step-down method (…, m); each row is one family.

    Same result as statsmodels' multipletests, which takes one family per call and is slow: it runs
    the garbage collector each time (0.1 s).
    """
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, axis=-1, kind="stable")
    steps = np.take_along_axis(values, order, -1) * np.arange(values.shape[-1], 0, -1)
    adjusted = np.empty_like(values)
    np.put_along_axis(
        adjusted, order, np.minimum(1.0, np.maximum.accumulate(steps, axis=-1)), axis=-1
    )
    return adjusted


def with_ties(differences: ArrayLike, tolerance: float | None = None) -> np.ndarray:
    """Return differences (…, n) with sizes at most ``tolerance`` apart, or from 0, made equal.

    Raises:
        ValueError: on NaN or infinity.
    """
    d = _finite(differences, "differences")
    sizes = np.concatenate([np.zeros((*d.shape[:-1], 1)), np.abs(d)], axis=-1)
    return np.sign(d) * _merged(sizes, _tolerance(tolerance, d))[..., 1:]


def both_with_ties(
    x: ArrayLike, y: ArrayLike, tolerance: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return two samples (…, n) and (…, m) with values at most ``tolerance`` apart made equal.

    Raises:
        ValueError: on NaN or infinity.
    """
    x, y = _finite(x, "x"), _finite(y, "y")
    both = np.concatenate([x, y], axis=-1)
    merged = _merged(both, _tolerance(tolerance, both))
    return merged[..., : x.shape[-1]], merged[..., x.shape[-1] :]


def distinct(values: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the sorted distinct values (k,) of an array; values within ``tolerance`` are one."""
    return np.unique(_merged(np.ravel(values), tolerance))


def _tolerance(given: float | None, values: np.ndarray) -> np.ndarray:
    """Return the given tolerance, or each row's default (…, 1)."""
    if given is not None:
        return np.asarray(given)
    return RELATIVE * np.abs(values).max(axis=-1, keepdims=True)


def _merged(values: np.ndarray, tolerance: ArrayLike) -> np.ndarray:
    """Return values (…, n) with each group of tied values replaced by its smallest value."""
    order = np.argsort(values, axis=-1, kind="stable")
    ordered = np.take_along_axis(values, order, -1)
    begins = np.diff(ordered, axis=-1, prepend=-np.inf) > tolerance
    first = np.maximum.accumulate(np.where(begins, np.arange(values.shape[-1]), 0), axis=-1)
    merged = np.empty_like(values)
    np.put_along_axis(merged, order, np.take_along_axis(ordered, first, -1), axis=-1)
    return merged


def _doubled_midranks(values: np.ndarray) -> np.ndarray:
    """Return twice the midranks (…, n), which are integers, as convolution needs them."""
    return np.rint(2 * rankdata(values, axis=-1)).astype(int)


def checked(values: ArrayLike, name: str) -> np.ndarray:
    """Return finite values (n,); raise ValueError on anything else."""
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name}: expected one value per run, got an array of shape {array.shape}")
    return _finite(array, name)


def _finite(values: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: values must be finite, got {array}; runs are never dropped")
    return array


@functools.lru_cache(maxsize=4096)
def _sign_flip_cdf(weights: tuple[int, ...]) -> np.ndarray:
    """Return P(sum <= s) for s = 0..sum(weights) if each weight is included with probability 1/2.

    The distribution is symmetric: P(sum >= s) = P(sum <= sum(weights) - s).
    """
    pmf = np.zeros(sum(weights) + 1)
    pmf[0], length = 1.0, 1
    for weight in weights:
        half = pmf[:length] / 2
        pmf[:length] = half
        pmf[weight : weight + length] += half
        length += weight
    return np.minimum(1.0, np.cumsum(pmf))


@functools.lru_cache(maxsize=1024)
def _arrangement_tails(weights: tuple[int, ...], m: int) -> tuple[np.ndarray, np.ndarray]:
    """Return P(sum <= s) and P(sum >= s) of m weights drawn at random without replacement."""
    counts = np.zeros((m + 1, sum(weights) + 1))
    counts[0, 0] = 1
    for weight in weights:
        counts[1:, weight:] += counts[:-1, : counts.shape[1] - weight].copy()
    pmf = counts[m] / counts[m].sum()
    return np.minimum(1.0, np.cumsum(pmf)), np.minimum(1.0, np.cumsum(pmf[::-1])[::-1])
