"""Contrasts of one study, tested exactly: is there a difference, and beyond or within ±δ."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from analysis.statistics import failures, intervals, rank_tests
from analysis.statistics.contrasts import Contrast, tolerance
from analysis.statistics.intervals import Interval
from analysis.statistics.rank_tests import RankSum, SignedRank
from lib.spec.study import Study
from lib.spec.sweep import show_value


@dataclass(frozen=True)
class Failures:
    """Failed runs on either side of a contrast: how many ``failed`` of how many ``runs``.

    ``seeds``: on how many seeds of either side some run failed. ``p``: exact, that this is equally
    often so (McNemar over seeds, Fisher where these are no pairs); None for an interaction or a
    published score, which have no two sides to compare.
    """

    failed: tuple[int, int]
    runs: tuple[int, int]
    seeds: tuple[int, int]
    p: float | None


@dataclass(frozen=True)
class Tested:
    """A contrast with its exact tests, its intervals, and Holm's p of three claims.

    ``test`` is over all seeds, failed runs counted as worst; ``p_holm``: there is a difference.
    ``trained`` is the same test over the seeds in which no run of the contrast failed: ``interval``
    (simultaneous over the family), ``interval_alone`` (of this contrast only), ``p_beyond`` and
    ``p_within`` (it lies beyond ±δ, within ±δ, each kind with a correction of its own) are about
    these. Without failures they are the same seeds. None where no such seed is left, or without a
    smallest effect of interest.
    """

    contrast: Contrast
    test: SignedRank | RankSum
    p_holm: float
    trained: SignedRank | RankSum | None
    interval: Interval | None
    interval_alone: Interval | None
    p_beyond: float | None = None
    p_within: float | None = None
    p_trained: float = 1.0  # Holm's, of a difference among the seeds without a failed run
    failures: Failures | None = None
    kept: tuple[np.ndarray, np.ndarray] = ()  # which seeds of either side have no failed run

    @property
    def paired(self) -> bool:
        """Whether the seeds are pairs; else the test is Mann–Whitney's."""
        return isinstance(self.test, SignedRank)

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.contrast.baseline)

    @property
    def n_trained(self) -> int:
        """The number of seeds without a failed run; of runs on the smaller side if unpaired."""
        if self.trained is None:
            return 0
        return self.trained.n if self.paired else min(self.trained.n_x, self.trained.n_y)

    @property
    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """Baseline and treatment of the seeds without a failed run."""
        return self.contrast.baseline[self.kept[0]], self.contrast.treatment[self.kept[1]]

    @property
    def per_seed(self) -> np.ndarray:
        """Treatment minus baseline, seed by seed; NaN where a run failed."""
        return np.where(self.kept[0] & self.kept[1], self.contrast.differences, np.nan)

    @property
    def smallest_p(self) -> float:
        """The least p that these seeds could have given, zeros and ties as they are."""
        return self.test.least_p

    @property
    def rank_biserial(self) -> float:
        """The rank-biserial correlation, from -1 to 1: matched pairs', or 2 A12 - 1."""
        return self.test.rank_biserial if self.paired else 2 * self.test.a12 - 1

    @property
    def exact(self) -> bool:
        """Whether p and intervals are exact: all are but Mann–Whitney's of very many seeds."""
        return self.paired or self.test.exact

    @property
    def all_equal(self) -> bool:
        """Whether both levels gave the same in every seed."""
        return not self.contrast.differences.any()

    @property
    def direction(self) -> int:
        """1 where the treatment has the higher values over all seeds, -1 where lower, or 0."""
        return int(np.sign(self.rank_biserial))

    def same_without_failures(self, alpha: float) -> bool:
        """Say whether the seeds without a failed run show a difference in the same direction."""
        if self.failures is None:
            return True
        return self.trained is not None and (
            self.p_trained < alpha and np.sign(self.interval.estimate) == self.direction
        )


def tails(
    x: np.ndarray, y: np.ndarray, paired: bool, near: float | None, shift: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact one-sided p-values (…) that y - x is below, and above, ``shift``.

    ``x``, ``y`` (…, n): one test per row, signed-rank where seeds are pairs, else Mann–Whitney.
    """
    if paired:
        d = rank_tests.with_ties(y - x, near)
        return rank_tests.signed_rank_tails(d - shift, near)
    return rank_tests.rank_sum_tails(x, y - shift, near)


def margins(
    x: np.ndarray, y: np.ndarray, paired: bool, near: float | None, delta: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact p-values (…) that y - x lies beyond ±``delta``, and within."""
    shifted = [tails(x, y, paired, near, shift) for shift in (delta, -delta)]
    return rank_tests.beyond_and_within(*shifted)


def kept_of(
    contrast: Contrast, failed: np.ndarray | None, paired: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return which seeds of baseline and treatment have no failed run (bool), (…,) each.

    ``failed`` (variants, …). Where seeds are pairs a failure on one side takes the pair out.
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
    """Say whether a contrast's seeds are pairs: not over a factor that changes the split."""
    return paired and not any(part.factor in splitting for part in contrast.parts)


def run_tests(
    contrasts: Sequence[Contrast],
    alpha: float,
    paired: bool,
    splitting: Sequence[str] = (),
    delta: float | None = None,
    failed: np.ndarray | None = None,
) -> list[Tested]:
    """Test each contrast exactly, with Holm over all: signed-rank over seeds where they are pairs.

    Where they are not (``paired`` False, or the contrast is over a factor in ``splitting``, which
    changes the split), Mann–Whitney between the levels' values. With ``delta``, the smallest effect
    of interest, each kind of claim about it is wrong somewhere in at most ``alpha`` of studies too.
    ``failed`` (variants, seeds): which runs failed; their scores must be the worst.
    """
    found, about_delta, family = [], [], len(contrasts)
    for contrast in contrasts:
        x, y, near = contrast.baseline, contrast.treatment, contrast.tolerance
        pairs = has_pairs(contrast, paired, splitting)
        kept = kept_of(contrast, failed, pairs)
        own = x[kept[0]], y[kept[1]]
        trained = _test(*own, pairs, near) if min(map(len, own)) else None
        bounds = [None, None]
        if trained:
            bounds = [interval(*own, pairs, near, 1 - a) for a in (alpha / family, alpha)]
        found.append(
            {
                "contrast": contrast,
                "test": _test(x, y, pairs, near),
                "trained": trained,
                "interval": bounds[0],
                "interval_alone": bounds[1],
                "failures": _failures(contrast, failed, pairs),
                "kept": kept,
            }
        )
        known = trained is not None and delta is not None
        about_delta.append(margins(*own, pairs, near, delta) if known else (1.0, 1.0))
    p_holm = rank_tests.holm([one["test"].p for one in found]).tolist()
    beyond = within = [None] * family
    if delta is not None:
        beyond, within = (
            rank_tests.holm([float(p) for p in kind]).tolist()
            for kind in zip(*about_delta, strict=True)
        )
    alone = [one["trained"].p if one["trained"] else 1.0 for one in found]
    kinds = zip(p_holm, beyond, within, rank_tests.holm(alone).tolist(), strict=True)
    names = ("p_holm", "p_beyond", "p_within", "p_trained")
    return [
        Tested(**one, **dict(zip(names, ps, strict=True)))
        for one, ps in zip(found, kinds, strict=True)
    ]


def _test(x: np.ndarray, y: np.ndarray, pairs: bool, near: float | None) -> SignedRank | RankSum:
    if pairs:
        return rank_tests.signed_rank(rank_tests.with_ties(y - x, near), near)
    return rank_tests.rank_sum(x, y, near)


def interval(
    x: np.ndarray, y: np.ndarray, pairs: bool, near: float | None, confidence: float
) -> Interval:
    """Return the Hodges–Lehmann difference of ``y`` against ``x`` with its exact interval."""
    if pairs:
        d = rank_tests.with_ties(y - x, near)
        return intervals.paired_interval(d, confidence, near)
    return intervals.shift_interval(x, y, confidence, near)


def _failures(contrast: Contrast, failed: np.ndarray | None, pairs: bool) -> Failures | None:
    if failed is None or not failed[[*contrast.sides[0], *contrast.sides[1]]].any():
        return None
    counts = tuple(int(failed[side].sum()) for side in contrast.sides)
    runs = tuple(len(side) * failed.shape[1] for side in contrast.sides)
    by_seed = [failed[side].any(axis=0) for side in contrast.sides]
    seeds = tuple(int(lost.sum()) for lost in by_seed)
    p = failures.compare(*by_seed, pairs) if contrast.kind == "main" else None
    return Failures(counts, runs, seeds, p)


def sensitivity(tested: Tested) -> dict[str, float | None]:
    """Return what other paired tests say: ``p_sign_flip`` of the mean and ``p_t``; never decisive.

    And ``correlation``, Pearson's between the two levels over seeds: what pairing removes. All over
    the seeds without a failed run; None where a value has no meaning: for fewer than three seeds,
    or without any spread.
    """
    near, kept = tested.contrast.tolerance, np.isfinite(tested.per_seed)
    x, y = tested.contrast.baseline[kept], tested.contrast.treatment[kept]
    d = tested.per_seed[kept]
    varied = len(d) > 2 and np.ptp(d) > 0
    return {
        "p_sign_flip": rank_tests.sign_flip(d, near) if 1 < len(d) <= 20 else None,
        "p_t": float(ttest_1samp(d, 0).pvalue) if varied else None,
        "correlation": float(np.corrcoef(x, y)[0, 1])
        if len(d) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0
        else None,
    }


def simple_effects(
    study: Study,
    scores: np.ndarray,
    failed: np.ndarray | None = None,
    resolution: float | None = None,
) -> list[dict[str, Any]]:
    """Compare variants that differ in one factor's level, by exact Mann–Whitney, Holm over all.

    The secondary family: returns one dict per comparison (name, variants, n, statistic, p, p_holm,
    difference, ci_low, ci_high, confidence, a12), treatment against baseline. The test is over all
    runs; n, difference and interval (simultaneous) are of those that did not fail, None if none is
    left. ``scores``, ``failed``: (variants, seeds).
    """
    rows, near = [], tolerance(scores, resolution)
    failed = np.zeros(scores.shape, dtype=bool) if failed is None else failed
    place = {variant: i for i, variant in enumerate(study.variants)}
    for axis, (name, levels) in enumerate(study.factors.items()):
        for variant, level in itertools.product(study.variants, levels):
            if levels.index(variant[axis]) >= levels.index(level):
                continue
            other = (*variant[:axis], level, *variant[axis + 1 :])
            at = [(n, v) for n, v in zip(study.factors, variant, strict=True) if n != name]
            pair = name
            if len(levels) > 2:
                pair = f"{name}: {show_value(level)} - {show_value(variant[axis])}"
            where = ", ".join(f"{n}={show_value(v)}" for n, v in at)
            both = place[variant], place[other]
            result = rank_tests.rank_sum(*(scores[i] for i in both), near)
            rows.append(
                {
                    "name": f"{pair} at {where}" if at else pair,
                    "levels": [name, variant[axis], level],
                    "variants": [list(variant), list(other)],
                    "at": at,
                    "n": [int((~failed[i]).sum()) for i in both],
                    "statistic": result.statistic,
                    "p": result.p,
                    "exact": result.exact,
                    "a12": result.a12,
                    "own": [scores[i][~failed[i]] for i in both],
                }
            )
    adjusted = rank_tests.holm([row["p"] for row in rows]).tolist() if rows else []
    for row, p_holm in zip(rows, adjusted, strict=True):
        row["p_holm"], own = p_holm, row.pop("own")
        bounds = None
        if min(map(len, own)):
            bounds = intervals.shift_interval(*own, 1 - study.alpha / len(rows), near)
        row["difference"] = bounds and bounds.estimate
        row["ci_low"], row["ci_high"] = bounds and bounds.low, bounds and bounds.high
        row["confidence"] = bounds and bounds.confidence
    return rows
