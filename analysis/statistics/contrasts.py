"""From scores per cell and seed to tested contrasts: what differs, by how much, how surely."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from analysis.grid import REFERENCE, SPLITTING, GridError, Study, Sweep
from analysis.statistics import rank_tests

PUBLISHED_DIGIT = 1e-4  # published scores have two decimals of a percent


@dataclass(frozen=True)
class Contrast:
    """A planned comparison of ``second`` with ``first``, each with one value a seed.

    ``parts``: one (factor, level 1, level 2) for a main effect, two for an interaction. The values
    are those of level 1 and of level 2; for an interaction they are the effect of the second factor
    at either level of the first.
    """

    name: str
    parts: list[tuple[str, Any, Any]]
    first: np.ndarray
    second: np.ndarray

    @property
    def differences(self) -> np.ndarray:
        """Level 2 minus level 1, seed by seed."""
        return self.second - self.first


@dataclass(frozen=True)
class Tested:
    """A contrast with its exact test, Holm's p, and intervals at 1 - alpha and 1 - 2 alpha."""

    contrast: Contrast
    test: rank_tests.SignedRank | rank_tests.RankSum
    p_holm: float
    interval: rank_tests.Interval
    interval_90: rank_tests.Interval

    @property
    def paired(self) -> bool:
        """Whether the seeds are pairs; else the test is Mann–Whitney's."""
        return isinstance(self.test, rank_tests.SignedRank)

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.contrast.first)

    @property
    def smallest_p(self) -> float:
        """The least p that this test can give with so many seeds."""
        return (
            rank_tests.smallest_p(self.n) if self.paired else rank_tests.smallest_p(self.n, self.n)
        )

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
        return not np.round(self.contrast.differences, rank_tests.DECIMALS).any()


def build(sweep: Sweep, study: Study, scores: dict[tuple, list[float]]) -> list[Contrast]:
    """Return main effects and two-way interactions of the two-level factors, by name.

    With y[a][b] the scores of one seed: A = ((y11 + y10) - (y01 + y00)) / 2 and
    AB = (y11 - y10) - (y01 - y00), averaged over the levels of any further factors. A factor with
    more levels gives one main effect for each pair of them. A sweep that varies nothing but the
    seed is compared with each of the study's references: ``first`` is that number, n times, and a
    score that would round to it is taken as equal.

    Raises:
        GridError: when the study's family names a contrast that the sweep does not have, when the
            sweep varies nothing but the seed and there is no reference, or when both are there.
    """
    names = list(sweep.factors)
    table = np.array([scores[cell] for cell in sweep.cells])
    table = table.reshape(*(len(levels) for levels in sweep.factors.values()), -1)
    contrasts = []
    for axis, name in enumerate(names):
        levels = sweep.factors[name]
        mean = table.mean(axis=tuple(i for i in range(len(names)) if i != axis))  # (levels, seeds)
        for i, j in itertools.combinations(range(len(levels)), 2):
            label = name if len(levels) == 2 else f"{name}: {levels[j]} - {levels[i]}"
            contrasts.append(Contrast(label, [(name, levels[i], levels[j])], mean[i], mean[j]))
    two_level = [i for i, name in enumerate(names) if len(sweep.factors[name]) == 2]
    for a, b in itertools.combinations(two_level, 2):
        others = tuple(i for i in range(len(names)) if i not in (a, b))
        mean = table.mean(axis=others)  # (2, 2, seeds)
        parts = [(names[k], *sweep.factors[names[k]]) for k in (a, b)]
        first, second = mean[0, 1] - mean[0, 0], mean[1, 1] - mean[1, 0]
        contrasts.append(Contrast(f"{names[a]} × {names[b]}", parts, first, second))
    if names and study.references:
        raise GridError(
            f"{sweep.name} varies {', '.join(names)}, but its study has `references`: published "
            "scores are compared with a sweep that varies nothing but the seed"
        )
    for words, value in study.references.items():
        own = np.asarray(scores[()])
        own = np.where(np.abs(own - value) < PUBLISHED_DIGIT / 2, value, own)
        part = (REFERENCE, words, sweep.name)
        contrasts.append(Contrast(words, [part], np.full(len(own), value), own))
    if not contrasts:
        raise GridError(
            f"{sweep.name} varies nothing but the seed: there is nothing to compare, unless its "
            "file in analysis/studies names published scores as `references`"
        )
    if study.family is None:
        return contrasts
    by_name = {contrast.name: contrast for contrast in contrasts}
    if unknown := [name for name in study.family if name not in by_name]:
        raise GridError(
            f"the study's family names {', '.join(unknown)}; this sweep has {', '.join(by_name)}"
        )
    return [by_name[name] for name in study.family]


def test(contrasts: list[Contrast], alpha: float, paired: bool) -> list[Tested]:
    """Test each contrast exactly, with Holm over all: signed-rank over seeds where they are pairs.

    Where they are not (``paired`` False, or the contrast is over a factor that changes the split),
    Mann–Whitney between the levels' values.
    """
    tested = []
    for contrast in contrasts:
        x, y, d = contrast.first, contrast.second, contrast.differences
        levels = (1 - alpha, 1 - 2 * alpha)
        if paired and not any(name in SPLITTING for name, _, _ in contrast.parts):
            result = rank_tests.signed_rank(d)
            wide, narrow = (rank_tests.paired_interval(d, level) for level in levels)
        else:
            result = rank_tests.rank_sum(x, y)
            wide, narrow = (rank_tests.shift_interval(x, y, level) for level in levels)
        tested.append((contrast, result, wide, narrow))
    adjusted = rank_tests.holm([result.p for _, result, _, _ in tested])
    return [
        Tested(contrast, result, p_holm, wide, narrow)
        for (contrast, result, wide, narrow), p_holm in zip(tested, adjusted, strict=True)
    ]


def sensitivity(contrast: Contrast) -> dict[str, float | None]:
    """Return what other paired tests say: ``p_sign_flip`` of the mean and ``p_t``; never decisive.

    And ``correlation``, Pearson's between the two levels over seeds: what pairing removes. A value
    is None where it has no meaning: for fewer than three seeds, or without any spread.
    """
    x, y = (np.round(v, rank_tests.DECIMALS) for v in (contrast.first, contrast.second))
    d = np.round(y - x, rank_tests.DECIMALS)
    varied = len(d) > 2 and np.ptp(d) > 0
    return {
        "p_sign_flip": rank_tests.sign_flip(d) if 1 < len(d) <= 20 else None,
        "p_t": float(ttest_1samp(d, 0).pvalue) if varied else None,
        "correlation": float(np.corrcoef(x, y)[0, 1])
        if len(d) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0
        else None,
    }


def over_images(
    sweep: Sweep,
    study: Study,
    per_image: dict[tuple, np.ndarray],
    paired: list[bool],
    resamples: int = 2_000,
) -> list[tuple[float, float]]:
    """Return each contrast's bootstrap interval over test images, at 1 - alpha, by percentiles.

    ``per_image``: each cell's scores (images, seeds). Images are drawn anew, all runs on the same
    ones, and the Hodges–Lehmann difference over seeds is computed each time (``paired``: how, for
    each contrast): what would other images of the same kind have given with these networks?
    """
    rng, found = np.random.default_rng(0), []
    scores = np.concatenate([per_image[cell] for cell in sweep.cells], axis=1)
    n, seeds = len(scores), len(sweep.seeds)
    for start in range(0, resamples, 100):  # of 12,630 images: 10 MB at a time
        counts = rng.multinomial(n, np.full(n, 1 / n), min(100, resamples - start))
        means = (counts @ scores / n).reshape(len(counts), len(sweep.cells), seeds)
        flat = {cell: means[:, k].ravel() for k, cell in enumerate(sweep.cells)}
        built = build(sweep, study, flat)
        found.append(
            [
                rank_tests.hodges_lehmann(
                    *(v.reshape(-1, seeds) for v in (c.first, c.second)), pairs
                )
                for c, pairs in zip(built, paired, strict=True)
            ]
        )
    estimates = np.concatenate(found, axis=1)  # (contrasts, resamples)
    tails = [study.alpha / 2, 1 - study.alpha / 2]
    return [tuple(map(float, np.quantile(row, tails))) for row in estimates]


def simple_effects(sweep: Sweep, scores: dict[tuple, list[float]], alpha: float) -> list[dict]:
    """Compare cells that differ in one factor's level, by exact Mann–Whitney, Holm over all.

    The secondary family: returns one dict a comparison (name, cells, n, statistic, p, p_holm,
    difference, ci_low, ci_high, confidence, a12), level 2 against level 1.
    """
    rows = []
    for axis, (name, levels) in enumerate(sweep.factors.items()):
        for cell, level in itertools.product(sweep.cells, levels):
            if levels.index(cell[axis]) >= levels.index(level):
                continue
            other = (*cell[:axis], level, *cell[axis + 1 :])
            at = [(n, v) for n, v in zip(sweep.factors, cell, strict=True) if n != name]
            pair = name if len(levels) == 2 else f"{name}: {level} - {cell[axis]}"
            x, y = scores[cell], scores[other]
            result, interval = rank_tests.rank_sum(x, y), rank_tests.shift_interval(x, y, 1 - alpha)
            rows.append(
                {
                    "name": f"{pair} at {', '.join(f'{n}={v}' for n, v in at)}" if at else pair,
                    "levels": [name, cell[axis], level],
                    "cells": [list(cell), list(other)],
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
    for row, p_holm in zip(
        rows, rank_tests.holm([r["p"] for r in rows]) if rows else [], strict=True
    ):
        row["p_holm"] = p_holm
    return rows
