"""From scores per variant and seed to tested contrasts: what differs, by how much, how surely."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.stats import ttest_1samp

from analysis.statistics import intervals, rank_tests
from analysis.statistics.intervals import Interval
from analysis.statistics.rank_tests import RankSum, SignedRank
from lib.spec.declaration import StudyError
from lib.spec.study import Study
from lib.spec.sweep import show_value

ROUND_OFF = 1e-12  # of the largest score: sums of some scores in 64 bits stay well below


class Part(NamedTuple):
    """A factor with the two levels that a contrast compares."""

    factor: str
    baseline: Any
    treatment: Any


@dataclass(frozen=True)
class Contrast:
    """A planned comparison of ``treatment`` with ``baseline``, (n,) each, one value per seed.

    ``parts``: one factor for a main effect, two for an interaction, none for a comparison with a
    published score, which ``name`` names. For an interaction the values are the effect of the
    second factor at either level of the first. ``tolerance``: differences at most so far apart are
    equal, see rank_tests.
    """

    name: str
    kind: Literal["main", "interaction", "published"]
    baseline: np.ndarray
    treatment: np.ndarray
    parts: list[Part] = field(default_factory=list)
    tolerance: float | None = None

    @property
    def differences(self) -> np.ndarray:
        """Treatment minus baseline, seed by seed; ties are equal and what round-off left is 0."""
        return rank_tests.with_ties(self.treatment - self.baseline, self.tolerance)


@dataclass(frozen=True)
class Tested:
    """A contrast with its exact test, its interval at 1 - alpha, and Holm's p of three claims.

    ``p_holm``: there is a difference; ``p_beyond`` and ``p_within``: it lies beyond ±δ, within ±δ,
    each with a correction of its own; None without a smallest effect of interest.
    """

    contrast: Contrast
    test: SignedRank | RankSum
    p_holm: float
    interval: Interval
    p_beyond: float | None = None
    p_within: float | None = None

    @property
    def paired(self) -> bool:
        """Whether the seeds are pairs; else the test is Mann–Whitney's."""
        return isinstance(self.test, SignedRank)

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.contrast.baseline)

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


def build(study: Study, scores: np.ndarray) -> list[Contrast]:
    """Return the study's primary contrasts from ``scores`` (variants, seeds).

    Main effects and two-way interactions of the two-level factors: with y[a][b] the scores of one
    seed, A = ((y11 + y10) - (y01 + y00)) / 2 and AB = (y11 - y10) - (y01 - y00), averaged over the
    levels of any further factors. A factor with more levels gives one main effect for each pair of
    them. A study without factors is compared with each published score: the baseline is that
    number, n times, and a score that would round to it is taken as equal.

    Raises:
        StudyError: when ``primary`` names a contrast that the study does not have, or when there is
            nothing to compare.
    """
    contrasts = _of_factors(study, scores) if study.factors else _with_published(study, scores)
    if not contrasts:
        raise StudyError(
            f"{study.name} varies nothing but the seed: there is nothing to compare. Vary a factor "
            "in the sweep, or name `published_scores:` in its declaration."
        )
    if study.declaration.primary is None:
        return contrasts
    by_name = {contrast.name: contrast for contrast in contrasts}
    crossed = {}
    for a, b in itertools.combinations(study.factors, 2):
        crossed |= dict.fromkeys((f"{a}:{b}", f"{b}:{a}"), f"{a} × {b}")
    wanted = [crossed.get(name, name) for name in study.declaration.primary]
    if unknown := [name for name in wanted if name not in by_name]:
        raise StudyError(
            f"`primary:` names {', '.join(unknown)}, which {study.name} does not have; accepted: "
            f"{', '.join(by_name)}"
        )
    return [by_name[name] for name in wanted]


def _of_factors(study: Study, scores: np.ndarray) -> list[Contrast]:
    names, levels = list(study.factors), list(study.factors.values())
    table = scores.reshape(*map(len, levels), -1)
    contrasts, near = [], tolerance(study, scores)
    for axis, name in enumerate(names):
        mean = table.mean(axis=tuple(i for i in range(len(names)) if i != axis))  # (levels, seeds)
        for i, j in itertools.combinations(range(len(levels[axis])), 2):
            part = Part(name, levels[axis][i], levels[axis][j])
            words = f"{name}: {show_value(part.treatment)} - {show_value(part.baseline)}"
            label = name if len(levels[axis]) == 2 else words
            contrasts.append(Contrast(label, "main", mean[i], mean[j], [part], near))
    two_level = [i for i in range(len(names)) if len(levels[i]) == 2]
    for a, b in itertools.combinations(two_level, 2):
        others = tuple(i for i in range(len(names)) if i not in (a, b))
        mean = table.mean(axis=others)  # (2, 2, seeds)
        parts = [Part(names[k], *levels[k]) for k in (a, b)]
        baseline, treatment = mean[0, 1] - mean[0, 0], mean[1, 1] - mean[1, 0]
        name = f"{names[a]} × {names[b]}"
        contrasts.append(Contrast(name, "interaction", baseline, treatment, parts, near))
    return contrasts


def _with_published(study: Study, scores: np.ndarray) -> list[Contrast]:
    contrasts, digit = [], study.metric.shown_step  # published with as many digits as we show
    for words, value in study.declaration.published_scores.items():
        own = np.where(np.abs(scores[0] - value) < digit / 2, value, scores[0])
        contrasts.append(Contrast(words, "published", np.full(len(own), value), own))
    return contrasts


def tolerance(study: Study, scores: np.ndarray) -> float:
    """Return how far apart contrasts of ``scores`` (variants, seeds) may be and still be equal.

    Where the metric declares a resolution: a tenth of it, divided by the number of variants, since
    a contrast averages over some of them (and a score over five epochs); else what arithmetic on
    scores of this size can leave.
    """
    if study.metric.resolution is not None:
        return study.metric.resolution / (10 * len(scores))
    return ROUND_OFF * float(np.abs(scores).max())


def run_tests(
    contrasts: Sequence[Contrast],
    alpha: float,
    paired: bool,
    splitting: Sequence[str] = (),
    delta: float | None = None,
) -> list[Tested]:
    """Test each contrast exactly, with Holm over all: signed-rank over seeds where they are pairs.

    Where they are not (``paired`` False, or the contrast is over a factor in ``splitting``, which
    changes the split), Mann–Whitney between the levels' values. With ``delta``, the smallest effect
    of interest, each kind of claim about it is wrong somewhere in at most ``alpha`` of studies too.
    """
    results, bounds, margins = [], [], []
    for contrast in contrasts:
        x, y, d = contrast.baseline, contrast.treatment, contrast.differences
        near = contrast.tolerance
        if paired and not any(part.factor in splitting for part in contrast.parts):
            results.append(rank_tests.signed_rank(d, near))
            bounds.append(intervals.paired_interval(d, 1 - alpha, near))
            shifted = [rank_tests.signed_rank(d - m, near) for m in (delta or 0, -(delta or 0))]
        else:
            results.append(rank_tests.rank_sum(x, y, near))
            bounds.append(intervals.shift_interval(x, y, 1 - alpha, near))
            shifted = [rank_tests.rank_sum(x, y - m, near) for m in (delta or 0, -(delta or 0))]
        margins.append(rank_tests.beyond_and_within(*shifted))
    p_holm = rank_tests.holm([result.p for result in results])
    beyond = within = [None] * len(results)
    if delta:
        beyond, within = (rank_tests.holm(p) for p in zip(*margins, strict=True))
    found = zip(contrasts, results, p_holm, bounds, beyond, within, strict=True)
    return [Tested(*one) for one in found]


def sensitivity(contrast: Contrast) -> dict[str, float | None]:
    """Return what other paired tests say: ``p_sign_flip`` of the mean and ``p_t``; never decisive.

    And ``correlation``, Pearson's between the two levels over seeds: what pairing removes. A value
    is None where it has no meaning: for fewer than three seeds, or without any spread.
    """
    x, y, d = contrast.baseline, contrast.treatment, contrast.differences
    varied = len(d) > 2 and np.ptp(d) > 0
    return {
        "p_sign_flip": rank_tests.sign_flip(d, contrast.tolerance) if 1 < len(d) <= 20 else None,
        "p_t": float(ttest_1samp(d, 0).pvalue) if varied else None,
        "correlation": float(np.corrcoef(x, y)[0, 1])
        if len(d) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0
        else None,
    }


def over_items(
    study: Study, per_item: np.ndarray, paired: Sequence[bool], resamples: int = 2_000
) -> list[tuple[float, float]]:
    """Return each contrast's bootstrap interval over test items, at 1 - alpha, by percentiles.

    ``per_item``: scores (items, variants, seeds). Items are drawn with replacement, all runs on the
    same ones, and the Hodges–Lehmann difference over seeds is computed each time (``paired``: how,
    for each contrast): what would other items of the same kind have given with these networks?
    """
    rng, found = np.random.default_rng(0), []
    n, variants, seeds = per_item.shape
    scores = per_item.reshape(n, variants * seeds)
    for start in range(0, resamples, 100):  # of 12,630 items: 10 MB at a time
        counts = rng.multinomial(n, np.full(n, 1 / n), min(100, resamples - start))
        means = (counts @ scores / n).reshape(len(counts), variants, seeds)
        flat = means.transpose(1, 0, 2).reshape(variants, -1)
        rows = []
        for contrast, pairs in zip(build(study, flat), paired, strict=True):
            arms = (v.reshape(-1, seeds) for v in (contrast.baseline, contrast.treatment))
            rows.append(intervals.hodges_lehmann(*arms, pairs))
        found.append(rows)
    estimates = np.concatenate(found, axis=1)  # (contrasts, resamples)
    tails = [study.alpha / 2, 1 - study.alpha / 2]
    return [tuple(map(float, np.quantile(row, tails))) for row in estimates]


def simple_effects(study: Study, scores: np.ndarray) -> list[dict[str, Any]]:
    """Compare variants that differ in one factor's level, by exact Mann–Whitney, Holm over all.

    The secondary family: returns one dict per comparison (name, variants, n, statistic, p, p_holm,
    difference, ci_low, ci_high, confidence, a12), treatment against baseline.
    """
    by_variant = dict(zip(study.variants, scores, strict=True))
    rows, near = [], tolerance(study, scores)
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
            x, y = by_variant[variant], by_variant[other]
            result = rank_tests.rank_sum(x, y, near)
            interval = intervals.shift_interval(x, y, 1 - study.alpha, near)
            rows.append(
                {
                    "name": f"{pair} at {where}" if at else pair,
                    "levels": [name, variant[axis], level],
                    "variants": [list(variant), list(other)],
                    "at": at,
                    "n": [result.n_x, result.n_y],
                    "statistic": result.statistic,
                    "p": result.p,
                    "exact": result.exact,
                    "difference": interval.estimate,
                    "ci_low": interval.low,
                    "ci_high": interval.high,
                    "confidence": interval.confidence,
                    "a12": result.a12,
                }
            )
    adjusted = rank_tests.holm([row["p"] for row in rows]) if rows else []
    for row, p_holm in zip(rows, adjusted, strict=True):
        row["p_holm"] = p_holm
    return rows
