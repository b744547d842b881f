"""Two sources of uncertainty at once, seeds and test items: a crossed bootstrap, on arrays.

The seeds are a sample of trainings, the test items one of the items that could have been tested.
Owen (2007, Annals of Applied Statistics 1) shows that resampling both, each with replacement and
independently, is mildly conservative for a mean over such a crossed table.
"""

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.intervals import hodges_lehmann

RESAMPLES = 2_000
AT_A_TIME = 100  # resamples of 12,630 items: 10 MB


def means_over_items(
    scores: np.ndarray, clusters: ArrayLike | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Return bootstrap means over test items, (resamples, …), of ``scores`` (items, …).

    Items are drawn with replacement, all runs on the same ones. ``clusters`` (items,): items of one
    cluster, such as the photographs of one sign or patient, are drawn together.
    """
    rng, items = np.random.default_rng(seed), len(scores)
    flat = scores.reshape(items, -1)
    labels = np.arange(items) if clusters is None else np.asarray(clusters)
    _, member = np.unique(labels, return_inverse=True)
    size = np.bincount(member)
    sums = np.zeros((len(size), flat.shape[1]))
    np.add.at(sums, member, flat)
    found = []
    for start in range(0, resamples, AT_A_TIME):
        number = min(AT_A_TIME, resamples - start)
        counts = rng.multinomial(len(size), np.full(len(size), 1 / len(size)), number)
        found.append(counts @ sums / (counts @ size)[:, None])
    return np.concatenate(found).reshape(resamples, *scores.shape[1:])


def over_items(
    first: np.ndarray, second: np.ndarray, paired: bool, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the percentile interval over test items of the Hodges–Lehmann difference.

    ``first``, ``second``: bootstrap means of baseline and treatment, (resamples, seeds) each; the
    seeds stay as they are: what would other items have given with these networks?
    """
    return _percentiles(hodges_lehmann(first, second, paired), confidence)


def over_both(
    first: np.ndarray, second: np.ndarray, paired: bool, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile interval over seeds and test items of the Hodges–Lehmann difference.

    ``first``, ``second``: as for ``over_items``; in each resample the seeds are drawn with
    replacement too, pairs together.
    """
    rng = np.random.default_rng(seed)
    draws = [rng.integers(v.shape[1], size=v.shape) for v in (first, second)]
    draws = [draws[0]] * 2 if paired else draws
    first, second = (
        np.take_along_axis(v, drawn, 1) for v, drawn in zip((first, second), draws, strict=True)
    )
    return _percentiles(hodges_lehmann(first, second, paired), confidence)


def _percentiles(estimates: np.ndarray, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(estimates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def variance_components(scores: np.ndarray, clusters: ArrayLike | None = None) -> dict[str, float]:
    """Return standard deviations (in the score's unit) that say where a variant's spread is from.

    ``scores`` (items, seeds): each item's score by each run. ``seeds``: of the runs' means over
    these items, as seen; of that ``finite_test_set``, since runs err on different items and these
    are finitely many, and ``training``, what infinitely many items would leave. ``test_items``: of
    the mean over all runs, if other items of the kind were tested. From the two-way table of
    seeds × items (random effects, by the method of moments); items of one cluster together.
    """
    items, seeds = scores.shape
    labels = np.arange(items) if clusters is None else np.asarray(clusters)
    _, member = np.unique(labels, return_inverse=True)
    by_item, by_run, mean = scores.mean(axis=1), scores.mean(axis=0), scores.mean()
    rest = scores - by_item[:, None] - by_run + mean
    number = member.max() + 1
    share = number / (number - 1) / items**2
    sums = np.zeros((number, seeds))
    np.add.at(sums, member, rest)
    finite = share * (sums**2).sum(axis=0).mean() * seeds / (seeds - 1)
    own = np.bincount(member, by_item - mean)
    seen = by_run.var(ddof=1)
    return {
        "seeds": float(np.sqrt(seen)),
        "finite_test_set": float(np.sqrt(min(finite, seen))),
        "training": float(np.sqrt(max(0.0, seen - finite))),
        "test_items": float(np.sqrt(share * (own**2).sum())),
    }
