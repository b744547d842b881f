"""Test the contrasts of one study: for a difference, and for one beyond or within ±δ."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.statistics import failures, intervals, rank_tests
from analysis.statistics.contrasts import Contrast
from analysis.statistics.intervals import Interval
from analysis.statistics.rank_tests import RankSum, SignedRank


@dataclass(frozen=True)
class Failures:
    """Failed runs on the two sides of a contrast, baseline and treatment.

    ``failed`` of ``runs``: the numbers of runs. ``seeds``: the number of seeds with a failed run.
    ``p``: exact test of equal failure rates (McNemar over seeds, or Fisher if unpaired); None for
    an interaction or a published score, which have no two groups of runs to compare.
    """

    failed: tuple[int, int]
    runs: tuple[int, int]
    seeds: tuple[int, int]
    p: float | None


@dataclass(frozen=True)
class Tested:
    """A contrast with its tests, its intervals, and the Holm-adjusted p of three claims.

    Over all seeds, with failed runs ranked as worst: ``test``, and ``p_holm`` for the claim of a
    difference. Over the seeds in which no run of the contrast failed: ``trained`` (the same test),
    ``interval`` (simultaneous over the family), ``interval_alone`` (of this contrast only), and
    ``p_beyond`` and ``p_within`` for the claims beyond ±δ and within ±δ. Holm's correction is
    applied to each kind of claim separately. If no such seed is left, ``trained`` and the intervals
    are None, and ``p_beyond`` and ``p_within`` are 1; without a δ, these two are None.
    """

    contrast: Contrast
    test: SignedRank | RankSum
    p_holm: float
    trained: SignedRank | RankSum | None
    interval: Interval | None
    interval_alone: Interval | None
    p_beyond: float | None = None
    p_within: float | None = None
    p_trained: float = 1.0  # Holm-adjusted, for a difference among seeds without a failed run
    least_holm: float = 0.0  # p_holm if every contrast had the smallest p that its seeds can give
    least_trained: float = 0.0  # the same for p_trained
    design_holm: float = 0.0  # least_holm without ties and zeros: of the number of seeds alone
    design_trained: float = 0.0  # design_holm of the seeds without a failed run
    failures: Failures | None = None
    kept: tuple[np.ndarray, np.ndarray] = ()  # per side: which seeds have no failed run

    @property
    def paired(self) -> bool:
        """Whether the seeds are paired (signed-rank test); otherwise Mann–Whitney."""
        return isinstance(self.test, SignedRank)

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.contrast.baseline)

    @property
    def n_trained(self) -> int:
        """The number of seeds without a failed run; if unpaired, on the side with fewer of them."""
        if self.trained is None:
            return 0
        return self.trained.n if self.paired else min(self.trained.n_x, self.trained.n_y)

    @property
    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """Baseline and treatment values of the seeds without a failed run."""
        return self.contrast.baseline[self.kept[0]], self.contrast.treatment[self.kept[1]]

    @property
    def per_seed(self) -> np.ndarray:
        """Treatment minus baseline, seed by seed; NaN where a run failed."""
        return np.where(self.kept[0] & self.kept[1], self.contrast.differences, np.nan)

    @property
    def rank_biserial(self) -> float:
        """The rank-biserial correlation, from -1 to 1; 2 A12 - 1 if unpaired."""
        return self.test.rank_biserial if self.paired else 2 * self.test.a12 - 1

    @property
    def exact(self) -> bool:
        """Whether p and intervals are exact: all except Mann–Whitney of many seeds (MOST_EXACT)."""
        return self.paired or self.test.exact

    @property
    def all_equal(self) -> bool:
        """Whether baseline and treatment are equal (tied) in every seed."""
        return not self.contrast.differences.any()

    @property
    def direction(self) -> int:
        """1 if the treatment has the higher values over all seeds, -1 if lower, else 0."""
        return int(np.sign(self.rank_biserial))

    def same_without_failures(self, alpha: float) -> bool:
        """Return whether the seeds without a failed run show a difference in the same direction."""
        if self.failures is None:
            return True
        return self.trained is not None and (
            self.p_trained < alpha and np.sign(self.interval.estimate) == self.direction
        )


def tails(
    x: np.ndarray, y: np.ndarray, paired: bool, tied: float | None, shift: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the one-sided p-values (…): alternatives y - x below ``shift``, and above ``shift``.

    ``x``, ``y`` (…, n): one test per row, signed-rank if ``paired``, else Mann–Whitney. ``tied``:
    the tolerance for ties, see rank_tests.
    """
    if paired:
        d = rank_tests.with_ties(y - x, tied)
        return rank_tests.signed_rank_tails(d - shift, tied)
    return rank_tests.rank_sum_tails(x, y - shift, tied)


def margins(
    x: np.ndarray, y: np.ndarray, paired: bool, tied: float | None, delta: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the p-values (…) of the claims that y - x lies beyond ±``delta``, and within it."""
    shifted = [tails(x, y, paired, tied, shift) for shift in (delta, -delta)]
    return rank_tests.beyond_and_within(*shifted)


def kept_of(
    contrast: Contrast, failed: np.ndarray | None, paired: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return which seeds of baseline and treatment have no failed run (bool), (…,) each.

    ``failed`` (variants, …). If paired, a failure on one side excludes the whole pair.
    """
    shape = contrast.baseline.shape
    if failed is None:
        return np.ones(shape, dtype=bool), np.ones(shape, dtype=bool)
    sides = [
        failed[side].any(axis=0) if side else np.zeros(shape, dtype=bool) for side in contrast.sides
    ]
    if paired:
        sides = [sides[0] | sides[1]] * 2
    return ~sides[0], ~sides[1]


def has_pairs(contrast: Contrast, paired: bool, splitting: Sequence[str]) -> bool:
    """Return whether a contrast's seeds are paired: not if its factor changes the data split.

    A comparison with a published score always is: that number belongs to every seed.
    """
    if contrast.kind == "published":
        return True
    return paired and not any(part.factor in splitting for part in contrast.parts)


def run_tests(
    contrasts: Sequence[Contrast],
    alpha: float,
    paired: bool,
    splitting: Sequence[str] = (),
    delta: float | None = None,
    failed: np.ndarray | None = None,
) -> list[Tested]:
    """Test all contrasts, with Holm's correction for each kind of claim.

    Signed-rank tests over seeds if these are paired. Mann–Whitney tests if ``paired`` is False, or
    for contrasts over a factor in ``splitting``, which changes the data split. ``delta``: the
    smallest effect of interest; each kind of claim has a family-wise error rate of at most
    ``alpha``. ``failed`` (variants, seeds): which runs failed; they must have the worst score.
    """
    found = []
    for contrast in contrasts:
        x, y, tied = contrast.baseline, contrast.treatment, contrast.tolerance
        pairs = has_pairs(contrast, paired, splitting)
        kept = kept_of(contrast, failed, pairs)
        sides = x[kept[0]], y[kept[1]]
        test, trained, simultaneous, alone = _test(x, y, pairs, tied), None, None, None
        if min(map(len, sides)):
            trained = _test(*sides, pairs, tied)
            simultaneous = interval(*sides, pairs, tied, 1 - alpha / len(contrasts))
            alone = interval(*sides, pairs, tied, 1 - alpha)
        beyond = within = None
        if delta is not None:
            beyond, within = margins(*sides, pairs, tied, delta) if trained else (1.0, 1.0)
        found.append(
            Tested(
                contrast=contrast,
                test=test,
                p_holm=test.p,
                trained=trained,
                interval=simultaneous,
                interval_alone=alone,
                p_beyond=beyond,
                p_within=within,
                p_trained=trained.p if trained else 1.0,
                least_holm=test.least_p,
                least_trained=trained.least_p if trained else 1.0,
                design_holm=smallest_p(len(x), len(y), pairs),
                design_trained=smallest_p(*map(len, sides), pairs),
                failures=_failures(contrast, failed, pairs),
                kept=kept,
            )
        )
    return _corrected(found)


CORRECTED = ("p_holm", "p_beyond", "p_within", "p_trained")
CORRECTED += ("least_holm", "least_trained", "design_holm", "design_trained")


def _corrected(family: list[Tested]) -> list[Tested]:
    """Return the tests of a family with Holm's correction applied to each kind of p."""
    adjusted = {
        name: rank_tests.holm([float(getattr(one, name)) for one in family]).tolist()
        for name in CORRECTED
        if all(getattr(one, name) is not None for one in family)
    }
    return [
        replace(one, **{name: values[i] for name, values in adjusted.items()})
        for i, one in enumerate(family)
    ]


def smallest_p(baseline: int, treatment: int, paired: bool) -> float:
    """Return the smallest p that these numbers of seeds can give; 1 without any."""
    if not min(baseline, treatment):
        return 1.0
    return rank_tests.smallest_p(baseline, None if paired else treatment)


def _test(x: np.ndarray, y: np.ndarray, pairs: bool, tied: float | None) -> SignedRank | RankSum:
    if pairs:
        return rank_tests.signed_rank(rank_tests.with_ties(y - x, tied), tied)
    return rank_tests.rank_sum(x, y, tied)


def interval(
    x: np.ndarray, y: np.ndarray, pairs: bool, tied: float | None, confidence: float
) -> Interval:
    """Return the Hodges–Lehmann difference of ``y`` minus ``x`` with its interval."""
    if pairs:
        d = rank_tests.with_ties(y - x, tied)
        return intervals.paired_interval(d, confidence, tied)
    return intervals.shift_interval(x, y, confidence, tied)


def _failures(contrast: Contrast, failed: np.ndarray | None, pairs: bool) -> Failures | None:
    if failed is None or not failed[[*contrast.sides[0], *contrast.sides[1]]].any():
        return None
    counts = tuple(int(failed[side].sum()) for side in contrast.sides)
    runs = tuple(len(side) * failed.shape[1] for side in contrast.sides)
    by_seed = [failed[side].any(axis=0) for side in contrast.sides]
    seeds = tuple(int(side.sum()) for side in by_seed)
    p = failures.compare(*by_seed, pairs) if contrast.kind == "main" else None
    return Failures(counts, runs, seeds, p)
