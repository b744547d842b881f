"""The exact tests and intervals against R's, on 240 simulated data sets of many sizes."""

import json

import numpy as np
import pytest
from scipy.stats import rankdata

from analysis.statistics import intervals, rank_tests
from tests.conftest import ROOT

REFERENCE = ROOT.parent / "shared" / "reference" / "rank_tests_r.json"
LEVELS = (0.95, 0.9)


@pytest.fixture(scope="module")
def sets() -> list[dict]:
    """Give R's data sets and results."""
    if not REFERENCE.exists():
        pytest.skip(f"R's results are not here ({REFERENCE})")
    found = json.loads(REFERENCE.read_text())["sets"]
    assert len(found) == 240
    return found


def require(ours: float | None, theirs: float | None, size: float = 1.0) -> None:
    """Compare with a value of R's, where it has one, to nine digits of ``size``."""
    if theirs is not None:
        assert ours == pytest.approx(theirs * size, rel=1e-9, abs=1e-9 * size)


@pytest.mark.real_data
@pytest.mark.parametrize("scale", [1, 1e-4, 1e-6, 1e5])
def test_one_sample_is_as_in_r(sets: list[dict], scale: float) -> None:
    """Without ties wilcox.test, with ties coin's Pratt; R saw d, we see d times its unit."""
    compared = 0
    for one in (one for one in sets if one["kind"] == "one-sample"):
        unit = one["unit"] * scale
        d = np.array(one["d"]) * unit
        result = rank_tests.signed_rank(d)
        require(result.p, one["p_wilcox_test"])
        require(result.p, one["p_pratt_exact"])
        require(rank_tests.sign_flip(d), one["p_sign_flip_mean"])
        for level in LEVELS:
            interval = intervals.paired_interval(d, level)
            size = unit * np.abs(one["d"]).max()
            for name, value in (("low", interval.low), ("high", interval.high)):
                r = one[f"{name}{level:.0%}".rstrip("%")]
                require(value / size, None if r is None else r * unit / size)
        if one["estimate"] is not None:
            require(interval.estimate / size, one["estimate"] * unit / size)
        compared += 1
    assert compared == 179


@pytest.mark.real_data
@pytest.mark.parametrize("scale", [1, 1e-4, 1e-6, 1e5])
def test_two_samples_are_as_in_r(sets: list[dict], scale: float) -> None:
    """With ties coin's p counts what is as far from the mean; ours is twice the smaller tail."""
    compared = 0
    for one in (one for one in sets if one["kind"] == "two-sample"):
        unit = one["unit"] * scale
        y, x = np.array(one["d"]) * unit, np.array(one["x"]) * unit
        result = rank_tests.rank_sum(x, y)
        require(result.p, one["p_wilcox_test"])
        require(two_sided_about_the_mean(*rank_tests.both_with_ties(x, y)), one["p_coin_exact"])
        size = unit * np.abs([*one["d"], *one["x"]]).max()
        for level in LEVELS:
            interval = intervals.shift_interval(x, y, level)
            for name, value in (("low", interval.low), ("high", interval.high)):
                r = one[f"{name}{level:.0%}".rstrip("%")]
                require(value / size, None if r is None else r * unit / size)
        if one["estimate"] is not None:
            require(interval.estimate / size, one["estimate"] * unit / size)
        compared += 1
    assert compared == 61


def two_sided_about_the_mean(x: np.ndarray, y: np.ndarray) -> float:
    """Return coin's p: the share of arrangements whose rank sum is as far from its mean."""
    doubled = np.rint(2 * rankdata(np.concatenate([y, x]))).astype(int)
    pmf = np.diff(rank_tests._arrangement_tails(tuple(doubled.tolist()), len(y))[0], prepend=0.0)
    mean = doubled.sum() * len(y) / len(doubled)
    far = np.abs(np.arange(len(pmf)) - mean)
    return float(pmf[far >= abs(doubled[: len(y)].sum() - mean) - 1e-9].sum())
