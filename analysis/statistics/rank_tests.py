"""Exact rank tests: pure functions on arrays, one value per run.

The null distributions are enumerated (by convolution, not by listing), given the ties and zeros at
hand: p-values are exact, and the same as scipy's exact or full-permutation ones. One exception,
which carries ``exact = False``: Mann–Whitney between more than ``MOST_EXACT`` runs in all.

Scores are often fractions, in which arithmetic leaves traces: 0.1 + 0.2 is not 0.3. So values at
most ``tolerance`` apart are ties, and differences at most so large are 0; by default this is
``RELATIVE`` times the largest value, so that no test depends on the unit of measurement.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import mannwhitneyu, rankdata

RELATIVE = 1e-9  # far above what arithmetic in 64 bits leaves, far below what anyone measures
MOST_EXACT = 80  # values in two samples together: the work grows with the fourth power


@dataclass(frozen=True)
class SignedRank:
    """Result of the signed-rank test on n paired differences."""

    n: int
    n_zero: int
    positive: int  # differences above 0
    negative: int  # differences below 0
    statistic: float  # the smaller rank sum, as scipy and R report it
    p: float  # two-sided, exact: twice the smaller of the next two
    p_less: float  # one-sided, against differences below 0
    p_greater: float  # one-sided, against differences above 0
    least_p: float  # the smallest p that other signs of the same differences would give
    rank_biserial: float  # (W+ - W-) / (W+ + W-), from -1 to 1 (Kerby 2014); 0 if all are 0


@dataclass(frozen=True)
class RankSum:
    """Result of the Mann–Whitney test of y against x."""

    n_x: int
    n_y: int
    statistic: float  # U of y: pairs with y > x, ties count half
    p: float  # two-sided, exact: twice the smaller of the next two
    p_less: float  # one-sided, against y below x
    p_greater: float  # one-sided, against y above x
    least_p: float  # the smallest p that another arrangement of the same values would give
    a12: float  # probability that y exceeds x, ties count half (Vargha & Delaney 2000)
    exact: bool = True


def signed_rank(differences: ArrayLike, tolerance: float | None = None) -> SignedRank:
    """Test exactly whether paired differences (n,) are symmetric about 0 (Wilcoxon 1945).

    Ties share midranks; zeros keep their ranks and give half to each side (scipy's ``zsplit``). The
    p-value is twice the smaller tail over all 2^n sign flips.

    Raises:
        ValueError: on no value, NaN or infinity.
    """
    d = with_ties(differences, tolerance)
    doubled = np.rint(2 * rankdata(np.abs(d))).astype(int)  # midranks are halves: make them whole
    plus, minus = doubled[d > 0].sum(), doubled[d < 0].sum()
    weights = doubled[d != 0]
    unit = max(1, np.gcd.reduce(weights))  # 2 without ties: half the sums to enumerate
    less, greater = _tails(_sign_flip_pmf(weights // unit), plus // unit)
    half_zeros = doubled[d == 0].sum() / 2
    return SignedRank(
        n=len(d),
        n_zero=int((d == 0).sum()),
        positive=int((d > 0).sum()),
        negative=int((d < 0).sum()),
        statistic=float(min(plus, minus) + half_zeros) / 2,
        p=min(1.0, 2 * min(less, greater)),
        p_less=less,
        p_greater=greater,
        least_p=smallest_p(len(weights)) if len(weights) else 1.0,
        rank_biserial=float((plus - minus) / doubled.sum()) if (d != 0).any() else 0.0,
    )


def rank_sum(x: ArrayLike, y: ArrayLike, tolerance: float | None = None) -> RankSum:
    """Test exactly whether y (m,) and x (n,) come from one distribution (Mann & Whitney 1947).

    The p-value is twice the smaller tail over all arrangements of the pooled midranks; for more
    than ``MOST_EXACT`` values the normal approximation, with corrections for ties and continuity.

    Raises:
        ValueError: on an empty sample, NaN or infinity.
    """
    x, y = both_with_ties(x, y, tolerance)
    doubled = np.rint(2 * rankdata(np.concatenate([y, x]))).astype(int)
    total = doubled[: len(y)].sum()
    u = (total - len(y) * (len(y) + 1)) / 2
    exact = len(doubled) <= MOST_EXACT
    least = smallest_p(len(x), len(y))
    if exact:
        pmf = _arrangement_pmf(doubled, len(y))
        (less, greater), possible = _tails(pmf, total), pmf[pmf > 0]
        least = min(1.0, 2 * min(possible[0], possible[-1]))
    elif np.ptp(doubled) == 0:
        less = greater = least = 1.0
    else:
        less, greater = (
            float(mannwhitneyu(y, x, alternative=side, method="asymptotic").pvalue)
            for side in ("less", "greater")
        )
    p = min(1.0, 2 * min(less, greater))
    return RankSum(
        len(x), len(y), float(u), p, less, greater, least, float(u / (len(x) * len(y))), exact
    )


def beyond_and_within(
    above: SignedRank | RankSum, below: SignedRank | RankSum
) -> tuple[float, float]:
    """Return the exact p-values of two claims: a difference lies beyond ±δ, and within ±δ.

    ``above``: the test of the differences minus δ; ``below``: of the differences plus δ. Beyond:
    the smaller one-sided p of being above δ or below -δ, doubled as both sides are looked at.
    Within: the larger p of being below δ and above -δ (two one-sided tests, Schuirmann 1987).
    """
    beyond = min(1.0, 2 * min(above.p_greater, below.p_less))
    return beyond, max(above.p_less, below.p_greater)


def a12(x: ArrayLike, y: ArrayLike, tolerance: float | None = None) -> float:
    """Return the probability that y (m,) exceeds x (n,), ties count half (Vargha & Delaney 2000).

    Raises:
        ValueError: on an empty sample, NaN or infinity.
    """
    x, y = both_with_ties(x, y, tolerance)
    return float((y[:, None] > x).mean() + (y[:, None] == x).mean() / 2)


def sign_flip(differences: ArrayLike, tolerance: float | None = None) -> float:
    """Return the exact two-sided p of the mean of paired differences (n,) under sign flips.

    Fisher's (1935) randomization test: p is the share of the 2^n sign patterns whose mean is at
    least as far from 0; sums at most ``tolerance`` apart are equal. Enumerated up to n = 20, beyond
    that an error: sums have no common grid.

    Raises:
        ValueError: on no value, NaN, infinity, or more than 20 values.
    """
    d = with_ties(differences, tolerance)
    if len(d) > 20:
        raise ValueError(f"{len(d)} values: all sign flips are listed for 20 at most")
    sums = np.zeros(1)
    for value in d:
        sums = np.concatenate([sums + value, sums - value])
    least = abs(sums[0]) - _tolerance(tolerance, d)
    return float((np.abs(sums) >= least).mean())


def smallest_p(n: int, m: int | None = None) -> float:
    """Return the least two-sided p of the signed-rank test (n) or of Mann–Whitney (n, m)."""
    if m is None:
        return min(1.0, 2 * 0.5**n)
    return min(1.0, 2 / math.comb(n + m, n))


def holm(p: ArrayLike) -> list[float]:
    """Return Holm's (1979) step-down adjusted p-values, in the order given.

    The same as statsmodels' multipletests, which collects garbage at each call: 0.1 s of waiting.
    """
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted.tolist()


def with_ties(differences: ArrayLike, tolerance: float | None = None) -> np.ndarray:
    """Return differences (n,) in which ties are equal: sizes at most ``tolerance`` apart, and 0.

    Raises:
        ValueError: on no value, NaN or infinity.
    """
    d = checked(differences, "differences")
    sizes = _merged(np.concatenate([[0.0], np.abs(d)]), _tolerance(tolerance, d))
    return np.sign(d) * sizes[1:]


def both_with_ties(
    x: ArrayLike, y: ArrayLike, tolerance: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return two samples (n,) and (m,) in which values at most ``tolerance`` apart are equal.

    Raises:
        ValueError: on an empty sample, NaN or infinity.
    """
    x, y = checked(x, "x"), checked(y, "y")
    both = np.concatenate([x, y])
    merged = _merged(both, _tolerance(tolerance, both))
    return merged[: len(x)], merged[len(x) :]


def distinct(values: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the values (any shape) that differ by more than ``tolerance``, sorted (k,)."""
    return np.unique(_merged(np.ravel(values), tolerance))


def _tolerance(given: float | None, values: np.ndarray) -> float:
    return RELATIVE * float(np.abs(values).max()) if given is None else given


def _merged(values: np.ndarray, tolerance: float) -> np.ndarray:
    """Return values (n,) in which each group of neighbours has its least value."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    begins = np.concatenate([[True], np.diff(ordered) > tolerance])
    merged = np.empty_like(values)
    merged[order] = ordered[begins][np.cumsum(begins) - 1]
    return merged


def checked(values: ArrayLike, name: str) -> np.ndarray:
    """Return finite values (n,); raise ValueError on anything else."""
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name}: expected one value per run, got an array of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: NaN or infinity among {array}; such runs are never left out")
    return array


def _sign_flip_pmf(weights: np.ndarray) -> np.ndarray:
    """Return the probabilities of each sum 0..sum(weights) when every weight counts or not."""
    pmf = np.zeros(int(weights.sum()) + 1)
    pmf[0], reached = 1.0, 1
    for weight in weights:
        half = pmf[:reached] / 2
        pmf[:reached] = half
        pmf[weight : weight + reached] += half
        reached += weight
    return pmf


def _arrangement_pmf(weights: np.ndarray, m: int) -> np.ndarray:
    """Return the probabilities of each sum of m of the weights, all choices equally likely."""
    counts = np.zeros((m + 1, int(weights.sum()) + 1))
    counts[0, 0] = 1
    for weight in weights:
        counts[1:, weight:] += counts[:-1, : counts.shape[1] - weight].copy()
    return counts[m] / counts[m].sum()


def _tails(pmf: np.ndarray, observed: int) -> tuple[float, float]:
    """Return the probabilities of at most and of at least the observed sum."""
    return min(1.0, float(pmf[: observed + 1].sum())), min(1.0, float(pmf[observed:].sum()))
