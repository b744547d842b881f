"""Seeds and test items together: coverage, clusters, and where the spread is from."""

import numpy as np
import pytest

from analysis.statistics import bootstrap


def crossed(rng: np.random.Generator, items: int, seeds: int, shift: float) -> np.ndarray:
    """Return scores (items, 2, seeds): items, seeds and their interplay vary, variants differ."""
    item = rng.normal(0, 1, (items, 1, 1))
    taste = rng.normal(0, 1, (items, 2, 1))  # which items suit a variant
    seed = rng.normal(0, 0.3, (1, 2, seeds))
    return item + taste + seed + rng.normal(0, 1, (items, 2, seeds)) + [[[0.0], [shift]]]


def test_the_intervals_cover_what_other_items_and_seeds_would_give() -> None:
    rng, over_items, over_both = np.random.default_rng(0), [], []
    for _ in range(200):
        means = bootstrap.means_over_items(crossed(rng, 60, 8, 0.5), resamples=400)
        low, high = bootstrap.over_both(means[:, 0], means[:, 1], paired=True)
        over_both.append(low <= 0.5 <= high)
        low, high = bootstrap.over_items(means[:, 0], means[:, 1], paired=True)
        over_items.append(low <= 0.5 <= high)
    assert 0.90 < np.mean(over_both) <= 1
    assert np.mean(over_items) < np.mean(over_both)  # the seeds are missing in it


def test_items_of_one_cluster_are_drawn_together() -> None:
    """Ten copies of each item say no more than the item: with clusters the spread is the same."""
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(50, 3))
    copies, groups = np.repeat(scores, 10, axis=0), np.repeat(np.arange(50), 10)
    single = bootstrap.means_over_items(scores).std(axis=0)
    together = bootstrap.means_over_items(copies, groups).std(axis=0)
    np.testing.assert_allclose(together, single, rtol=1e-12)  # the same draws
    apart = bootstrap.means_over_items(copies).std(axis=0)
    np.testing.assert_allclose(apart, single / np.sqrt(10), rtol=0.1)
    parts = bootstrap.variance_components(scores)
    assert bootstrap.variance_components(copies, groups) == pytest.approx(parts)
    assert bootstrap.variance_components(copies)["finite_test_set"] < parts["finite_test_set"]


def test_unpaired_sides_may_have_unlike_numbers_of_seeds() -> None:
    scores = crossed(np.random.default_rng(2), 40, 9, 3.0)
    means = bootstrap.means_over_items(scores)
    low, high = bootstrap.over_both(means[:, 0], means[:, 1, :5], paired=False)
    assert 1 < low < high < 5


def test_the_spread_over_seeds_is_taken_apart() -> None:
    rng, found = np.random.default_rng(3), []
    for _ in range(300):
        item, seed = rng.normal(0, 2, (40, 1)), rng.normal(0, 0.5, (1, 20))
        found.append(bootstrap.variance_components(item + seed + rng.normal(0, 3, (40, 20))))
    mean = {name: np.mean([one[name] ** 2 for one in found]) for name in found[0]}
    assert mean["finite_test_set"] == pytest.approx(9 / 40, rel=0.1)
    assert mean["seeds"] == pytest.approx(0.25 + 9 / 40, rel=0.1)
    assert mean["training"] == pytest.approx(0.25, rel=0.25)
    assert mean["test_items"] == pytest.approx((4 + 9 / 20) / 40, rel=0.1)
