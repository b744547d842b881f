"""Exact tests and intervals against brute force, scipy and R's documented example."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import PermutationMethod, mannwhitneyu, rankdata, wilcoxon
from statsmodels.stats.multitest import multipletests

from analysis.statistics import intervals, rank_tests

# Few distinct values make ties and zeros; many make neither.
TIED = st.integers(-4, 4).map(lambda k: k / 100)
FINE = st.integers(-(10**6), 10**6).map(lambda k: k / 10**6)
PAIRS = st.one_of(st.lists(TIED, min_size=1, max_size=8), st.lists(FINE, min_size=1, max_size=8))
SAMPLES = st.one_of(
    st.tuples(*[st.lists(TIED, min_size=1, max_size=5)] * 2),
    st.tuples(*[st.lists(FINE, min_size=1, max_size=5)] * 2),
)

# Hamilton depression scale factor, R's ?wilcox.test (Hollander & Wolfe 1973).
FIRST = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
SECOND = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])


def tails(values: list[float], observed: float) -> float:
    """Return twice the smaller tail of equally likely ``values``."""
    values = np.array(values)
    low = np.mean(values <= observed + 1e-9)
    return min(1.0, 2 * min(low, np.mean(values >= observed - 1e-9)))


@given(PAIRS)
def test_signed_rank_is_all_sign_flips(differences: list[float]) -> None:
    d = np.array(differences)
    ranks = rankdata(np.abs(d))
    observed = (ranks * (np.sign(d) + 1) / 2).sum()  # zeros give half their rank: zsplit
    flips = itertools.product((-1, 1), repeat=len(d))
    null = [(ranks * (np.sign(d) * np.array(flip) + 1) / 2).sum() for flip in flips]
    result = rank_tests.signed_rank(d)
    assert result.p == pytest.approx(tails(null, observed), abs=1e-12)
    assert result.statistic == pytest.approx(min(observed, ranks.sum() - observed))
    assert (result.positive, result.negative, result.n_zero) == (
        (d > 0).sum(),
        (d < 0).sum(),
        (d == 0).sum(),
    )
    assert -1 <= result.rank_biserial <= 1


@given(SAMPLES)
def test_rank_sum_is_all_arrangements(samples: tuple[list[float], list[float]]) -> None:
    x, y = map(np.array, samples)
    ranks = rankdata(np.concatenate([y, x]))
    null = [ranks[list(c)].sum() for c in itertools.combinations(range(len(ranks)), len(y))]
    result = rank_tests.rank_sum(x, y)
    assert result.p == pytest.approx(tails(null, ranks[: len(y)].sum()), abs=1e-12)
    wins = (y[:, None] > x).mean() + (y[:, None] == x).mean() / 2
    assert result.a12 == pytest.approx(wins)
    assert result.statistic == pytest.approx(wins * len(x) * len(y))


@pytest.mark.parametrize("n", [5, 7, 10])
@pytest.mark.parametrize("step", [0.1, 1e-5])
def test_both_are_scipys_exact_tests(n: int, step: float) -> None:
    rng = np.random.default_rng(n)
    full = PermutationMethod(n_resamples=np.inf)
    for _ in range(3):
        x, y = np.round(rng.normal(0, 0.3, (2, n)) / step) * step
        d = np.round(y - x, 6)
        theirs = wilcoxon(d, zero_method="zsplit", method=full)
        assert rank_tests.signed_rank(d).p == pytest.approx(theirs.pvalue, abs=1e-12)
        if n < 10:  # scipy lists all 184,756 arrangements of ten and ten: seconds a test
            theirs = mannwhitneyu(np.round(y, 6), np.round(x, 6), method=full)
            assert rank_tests.rank_sum(x, y).p == pytest.approx(theirs.pvalue, abs=1e-12)
        if step == 1e-5:
            exact = mannwhitneyu(y, x, method="exact").pvalue
            assert rank_tests.rank_sum(x, y).p == pytest.approx(exact, abs=1e-12)
            exact = wilcoxon(d, method="exact").pvalue
            assert rank_tests.signed_rank(d).p == pytest.approx(exact, abs=1e-12)


def test_rs_documented_example() -> None:
    test = rank_tests.signed_rank(FIRST - SECOND)
    interval = intervals.paired_interval(FIRST - SECOND)
    assert round(test.p, 4) == 0.0391
    assert (test.n, test.statistic) == (9, 5)
    assert round(interval.estimate, 3) == 0.46
    assert (interval.low, interval.high) == pytest.approx((0.010, 0.786), abs=1e-12)


def test_large_samples_stay_exact_and_quick() -> None:
    d = np.round(np.random.default_rng(0).normal(0.2, 1, 60), 1)
    approximate = wilcoxon(d, zero_method="zsplit", method="approx").pvalue
    assert rank_tests.signed_rank(d).p == pytest.approx(approximate, rel=0.05)


def shifts_around(candidates: np.ndarray) -> np.ndarray:
    """Return a shift in every gap between the candidates, and one on either side."""
    edges = np.concatenate([[candidates[0] - 1], candidates, [candidates[-1] + 1]])
    return (edges[:-1] + edges[1:]) / 2


@given(PAIRS, st.sampled_from([0.8, 0.9, 0.95]))
def test_the_interval_is_what_the_test_keeps(differences: list[float], level: float) -> None:
    d = np.round(differences, 6)
    i, j = np.triu_indices(len(d))
    interval = intervals.paired_interval(d, level)
    alpha = max(1 - level, rank_tests.smallest_p(len(d)))
    shifts = shifts_around(np.unique(np.round((d[i] + d[j]) / 2, 7)))
    kept = [s for s in shifts if rank_tests.signed_rank(d - s).p > alpha * (1 + 1e-9)]
    assert all(interval.low <= s <= interval.high for s in kept)
    if kept:
        assert interval.low == pytest.approx(min(kept), abs=np.diff(shifts).max())
        assert interval.high == pytest.approx(max(kept), abs=np.diff(shifts).max())
        inside = shifts[(shifts > interval.low) & (shifts < interval.high)]
        assert min(kept) == inside.min()
        assert max(kept) == inside.max()
    assert interval.confidence <= level


@given(SAMPLES)
def test_the_shift_interval_is_what_the_test_keeps(samples: tuple) -> None:
    x, y = (np.round(sample, 6) for sample in samples)
    interval = intervals.shift_interval(x, y)
    alpha = max(0.05, rank_tests.smallest_p(len(x), len(y)))
    shifts = shifts_around(np.unique(np.round(y[:, None] - x, 6)))
    kept = [s for s in shifts if rank_tests.rank_sum(x, y - s).p > alpha * (1 + 1e-9)]
    inside = shifts[(shifts > interval.low) & (shifts < interval.high)]
    if kept:
        assert (min(kept), max(kept)) == (inside.min(), inside.max())


def test_rs_documented_two_sample_example() -> None:
    # Permeability of the chorioamnion, R's ?wilcox.test (Hollander & Wolfe 1973).
    at_term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
    earlier = [1.15, 0.88, 0.90, 0.74, 1.21]
    test = rank_tests.rank_sum(earlier, at_term)
    interval = intervals.shift_interval(earlier, at_term)
    assert (test.statistic, round(test.p / 2, 4)) == (35, 0.1272)
    assert round(interval.estimate, 3) == 0.305
    assert (interval.low, interval.high) == pytest.approx((-0.15, 0.76), abs=1e-12)


@example(([0.0, 0.0, 0.0, -3e-06], [0.0, 0.0, 0.0, 0.0, 1e-06]))  # at the limit of rounding
@given(SAMPLES)
def test_the_shift_interval_turns_with_its_samples(samples: tuple) -> None:
    x, y = samples
    there, back = intervals.shift_interval(x, y), intervals.shift_interval(y, x)
    assert there.low <= there.estimate + 1e-6
    assert there.estimate <= there.high + 1e-6
    assert there.estimate == pytest.approx(-back.estimate, abs=1e-9)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)


@pytest.mark.parametrize(
    ("n", "signed_rank", "rank_sum"),
    [
        (3, 0.25, 0.1),
        (4, 0.125, 0.0286),
        (5, 0.0625, 0.00794),
        (6, 0.03125, 0.00216),
        (7, 0.01563, 0.000583),
        (8, 0.00781, 0.000155),
        (10, 0.00195, 0.0000108),
    ],
)
def test_smallest_p(n: int, signed_rank: float, rank_sum: float) -> None:
    assert rank_tests.smallest_p(n) == pytest.approx(signed_rank, rel=5e-3)
    assert rank_tests.smallest_p(n, n) == pytest.approx(rank_sum, rel=5e-3)
    assert rank_tests.signed_rank(np.arange(1, n + 1)).p == rank_tests.smallest_p(n)
    assert rank_tests.rank_sum(np.arange(n), np.arange(n) + n).p == rank_tests.smallest_p(n, n)


def test_few_seeds_give_the_confidence_they_can() -> None:
    interval = intervals.paired_interval([0.1, 0.2, 0.3, 0.4, 0.6])
    assert (interval.low, interval.high, interval.confidence) == (0.1, 0.6, 0.9375)
    assert intervals.paired_interval(np.arange(7.0)).confidence == 0.95


def test_coverage_is_what_is_said() -> None:
    rng = np.random.default_rng(1)
    covered = [
        (i := intervals.paired_interval(rng.normal(0.3, 1, 7))).low <= 0.3 <= i.high
        for _ in range(600)
    ]
    # Seven seeds keep 95.3 % exactly; an interval that is too wide would be off as well.
    assert np.mean(covered) == pytest.approx(1 - 6 / 2**7, abs=3 * (0.95 * 0.05 / 600) ** 0.5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_his_step_down(p: list[float]) -> None:
    order, expected, running = np.argsort(p, kind="stable"), np.empty(len(p)), 0.0
    for rank, k in enumerate(order):
        running = max(running, min(1.0, (len(p) - rank) * p[k]))
        expected[k] = running
    assert rank_tests.holm(p).tolist() == pytest.approx(expected.tolist())


def test_holm_is_statsmodels() -> None:
    for n in range(1, 8):
        p = np.random.default_rng(n).choice([0.001, 0.01, 0.02, 0.04, 0.3, 1.0], n)
        assert rank_tests.holm(p).tolist() == pytest.approx(
            multipletests(p, method="holm")[1].tolist()
        )


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [float("inf")], [[0.1, 0.2]]])
def test_what_cannot_be_tested_is_refused(values: list) -> None:
    with pytest.raises(ValueError, match="differences"):
        rank_tests.signed_rank(values)


def test_zeros_and_ties_raise_the_least_p() -> None:
    """One zero among seven leaves six signs: 2 / 2^6, which three contrasts cannot afford."""
    assert rank_tests.signed_rank([0, 1, 2, 3, 4, 5, 6]).least_p == 2 / 2**6
    assert rank_tests.signed_rank([1, 2, 3, 4, 5, 6, 7]).least_p == rank_tests.smallest_p(7)
    assert rank_tests.signed_rank([0.0, 0.0]).least_p == 1
    assert rank_tests.rank_sum([1, 2, 3], [4, 5, 6]).least_p == rank_tests.smallest_p(3, 3)
    tied = rank_tests.rank_sum([1, 1, 1], [1, 1, 2])  # either sample may hold the 2
    assert (tied.p, tied.least_p) == (1.0, 1.0)
    assert rank_tests.rank_sum([1] * 8, [2] * 8).least_p == rank_tests.smallest_p(8, 8)


def test_all_zero_differences() -> None:
    result = rank_tests.signed_rank([0, 0, 1e-12], tolerance=1e-9)
    assert (result.p, result.n_zero, result.rank_biserial) == (1.0, 3, 0.0)
    assert rank_tests.signed_rank([0, 0, 1e-12]).positive == 1


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1 / 12630, 1e5])
def test_what_arithmetic_leaves_breaks_no_tie(unit: float) -> None:
    """0.1 + 0.2 is 0.3 to a test, in every unit; so are sums of sign flips on a grid."""
    exact = np.array([3, -1, 3, 0, 2, 2, 5]) * 1.0
    noise = np.array([1, -1, -1, 1, 1, -1, 0]) * 1e-15
    noisy = (exact + noise) * unit
    assert rank_tests.signed_rank(noisy) == rank_tests.signed_rank(exact)
    assert rank_tests.sign_flip(noisy) == rank_tests.sign_flip(exact)
    assert rank_tests.sign_flip(np.array([1, 1, -1]) * unit * (1 + noise[:3])) == 1
    x, y = rank_tests.both_with_ties(noisy[:3], noisy[3:])
    assert rank_tests.rank_sum(x, y) == rank_tests.rank_sum(exact[:3], exact[3:])
    interval = intervals.paired_interval(noisy, 0.9)
    expected = intervals.paired_interval(exact, 0.9)
    bounds = (interval.estimate / unit, interval.low / unit, interval.high / unit)
    assert bounds == pytest.approx((expected.estimate, expected.low, expected.high), abs=1e-9)


def test_the_estimates_of_many_rows_are_those_of_each() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (2, 20, 7)).round(3)
    both = zip(x, y, strict=True)
    pairs = [intervals.paired_interval(b - a).estimate for a, b in both]
    np.testing.assert_allclose(intervals.hodges_lehmann(x, y, True), pairs, atol=1e-9)
    shifts = [intervals.shift_interval(a, b).estimate for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(intervals.hodges_lehmann(x, y, False), shifts, atol=1e-9)


def test_only_mann_whitney_of_very_many_is_approximate_and_says_so() -> None:
    rng = np.random.default_rng(0)
    x, y = np.round(rng.normal(0, 1, (2, 40)), 1)
    exact = rank_tests.rank_sum(x, y)
    approximate = mannwhitneyu(y, x, method="asymptotic").pvalue
    assert exact.exact
    assert exact.p == pytest.approx(approximate, rel=0.02)
    many = rank_tests.rank_sum(x, np.append(y, 0.5))
    assert not many.exact
    assert many.p == pytest.approx(exact.p, rel=0.3)
    assert rank_tests.rank_sum(np.ones(50), np.ones(50)).p == 1.0
    x, y = rng.normal(0, 1, (2, 250))
    interval = intervals.shift_interval(x, y + 1)
    assert interval.low < 1 < interval.high
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * (2 / 250) ** 0.5, rel=0.15)
    d = rng.normal(0.15, 1, 250)
    assert intervals.paired_interval(d).low < 0.15 < intervals.paired_interval(d).high
    assert rank_tests.signed_rank(d).p == pytest.approx(
        wilcoxon(d, method="approx").pvalue, rel=0.05
    )


@pytest.mark.parametrize(
    ("differences", "hull"),
    [([0] * 11 + [0.5], (0, 0)), ([0] * 10 + [-1, 1], (0, 0)), ([0.25] * 12, (0.25, 0.25))],
)
def test_the_interval_of_mostly_equal_differences_is_what_the_test_keeps(
    differences: list[float], hull: tuple[float, float]
) -> None:
    interval = intervals.paired_interval(differences)
    assert (interval.low, interval.high) == hull
    d = np.array(differences, dtype=float)
    assert rank_tests.signed_rank(d - interval.low).p > 0.05
    for shift in (interval.low - 0.01, interval.high + 0.01):
        assert rank_tests.signed_rank(d - shift).p <= 0.05
