"""Exact intervals and tests of failure rates, on boolean arrays."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, fisher_exact


def clopper_pearson(failed: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of the rate ``failed`` / ``n`` (Clopper & Pearson 1934)."""
    interval = binomtest(failed, n).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def mcnemar(first: ArrayLike, second: ArrayLike) -> float:
    """Return the exact two-sided p of McNemar's test (1947) of equal failure rates in pairs (n,).

    The null hypothesis: among the pairs with one failure, either side is equally likely to fail.
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"pairs need equal lengths, got {first.shape} and {second.shape}")
    alone = int((first & ~second).sum()), int((second & ~first).sum())
    return float(binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0


def fisher(first: ArrayLike, second: ArrayLike) -> float:
    """Return the exact two-sided p of Fisher's test (1935) of equal failure rates, (n,), (m,)."""
    samples = [np.asarray(values, dtype=bool) for values in (first, second)]
    table = [[int(values.sum()), int((~values).sum())] for values in samples]
    return float(fisher_exact(table).pvalue)


def compare(first: ArrayLike, second: ArrayLike, paired: bool) -> float:
    """Return the exact p of equal failure rates: McNemar's test if paired, else Fisher's."""
    return mcnemar(first, second) if paired else fisher(first, second)
