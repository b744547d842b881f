"""Crossed bootstrap on arrays: uncertainty from the seeds and from the test items together.

The seeds are a sample of possible trainings, the test items a sample of possible items. Owen (2007,
Annals of Applied Statistics 1) shows that resampling both, independently and with replacement, is
mildly conservative for the mean of such a crossed table.
"""

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.intervals import hodges_lehmann

RESAMPLES = 2_000
CHUNK = 100  # resamples per matrix product: 10 MB for 12,630 items


def means_over_items(
    scores: np.ndarray, clusters: ArrayLike | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Return bootstrap means over test items, (resamples, …), of ``scores`` (items, …).

    Items are drawn with replacement; all runs get the same draws. ``clusters`` (items,): the
    cluster of each item. Items of one cluster, such as the photographs of one sign or patient, are
    drawn together.
    """
    rng, items = np.random.default_rng(seed), len(scores)
    flat = scores.reshape(items, -1)
    labels = np.arange(items) if clusters is None else np.asarray(clusters)
    _, member = np.unique(labels, return_inverse=True)
    size = np.bincount(member)
    sums = np.zeros((len(size), flat.shape[1]))
    np.add.at(sums, member, flat)
    means = []
    for start in range(0, resamples, CHUNK):
        number = min(CHUNK, resamples - start)
        counts = rng.multinomial(len(size), np.full(len(size), 1 / len(size)), number)
        means.append(counts @ sums / (counts @ size)[:, None])
    return np.concatenate(means).reshape(resamples, *scores.shape[1:])


def over_items(
    first: np.ndarray, second: np.ndarray, paired: bool, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the percentile interval over test items of the Hodges–Lehmann difference.

    ``first``, ``second``: bootstrap means of baseline and treatment, (resamples, seeds) each. The
    seeds are fixed: the interval is about other items with the same trained networks.
    """
    return _percentiles(hodges_lehmann(first, second, paired), confidence)


def over_both(
    first: np.ndarray, second: np.ndarray, paired: bool, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile interval over seeds and test items of the Hodges–Lehmann difference.

    ``first``, ``second``: as for ``over_items``. Each resample also draws the seeds with
    replacement; paired seeds are drawn together.
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
    """Return the standard deviations of a variant's sources of variance, in the score's unit.

    ``scores`` (items, seeds): each item's score in each run; ``clusters`` as in
    ``means_over_items``. Random effects of the two-way table items × seeds, estimated by the method
    of moments. Keys:

    * ``seeds``: SD over runs of their mean score; its variance is the sum of the next two
    * ``finite_test_set``: the part due to the finite test set, since runs err on different items
    * ``training``: the part that would remain with infinitely many test items
    * ``test_items``: SD of the mean over all runs, over new samples of test items
    """
    items, seeds = scores.shape
    labels = np.arange(items) if clusters is None else np.asarray(clusters)
    _, member = np.unique(labels, return_inverse=True)
    by_item, by_run, mean = scores.mean(axis=1), scores.mean(axis=0), scores.mean()
    interaction = scores - by_item[:, None] - by_run + mean
    number = member.max() + 1
    share = number / (number - 1) / items**2
    sums = np.zeros((number, seeds))
    np.add.at(sums, member, interaction)
    finite = share * (sums**2).sum(axis=0).mean() * seeds / (seeds - 1)
    deviations = np.bincount(member, by_item - mean)
    observed = by_run.var(ddof=1)
    return {
        "seeds": float(np.sqrt(observed)),
        "finite_test_set": float(np.sqrt(min(finite, observed))),
        "training": float(np.sqrt(max(0.0, observed - finite))),
        "test_items": float(np.sqrt(share * (deviations**2).sum())),
    }
