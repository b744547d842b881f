"""How often runs fail, and whether one variant fails more often: exact, on arrays of booleans."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, fisher_exact


def clopper_pearson(failed: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a rate of ``failed`` in ``n`` (Clopper & Pearson 1934)."""
    interval = binomtest(failed, n).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def mcnemar(first: ArrayLike, second: ArrayLike) -> float:
    """Return the exact two-sided p that pairs (n,) fail equally often on both sides.

    McNemar's (1947) test: of the pairs of which one side alone failed, half should be either's.
    """
    first, second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"pairs need equal lengths, got {first.shape} and {second.shape}")
    alone = int((first & ~second).sum()), int((second & ~first).sum())
    return float(binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0


def fisher(first: ArrayLike, second: ArrayLike) -> float:
    """Return the exact two-sided p that two samples, (n,) and (m,), fail equally often.

    Fisher's (1935) test of the 2×2 table.
    """
    samples = [np.asarray(values, dtype=bool) for values in (first, second)]
    table = [[int(values.sum()), int((~values).sum())] for values in samples]
    return float(fisher_exact(table).pvalue)


def compare(first: ArrayLike, second: ArrayLike, paired: bool) -> float:
    """Return the exact p that both sides fail equally often: McNemar's, unpaired Fisher's."""
    return mcnemar(first, second) if paired else fisher(first, second)
