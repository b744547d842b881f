"""Compute a study's contrasts from the scores per variant and seed."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from analysis.statistics import rank_tests
from lib.spec.declaration import StudyError
from lib.spec.study import Study
from lib.spec.sweep import same_value, show_value

# Sums of a few scores err less than this.
ROUND_OFF = 1e-12  # relative to the largest score, in float64
ROUND_OFF_32 = 5e-7  # relative to the median score, in float32


class Part(NamedTuple):
    """A factor with the two levels that a contrast compares."""

    factor: str
    baseline: Any
    treatment: Any


@dataclass(frozen=True)
class Contrast:
    """A planned comparison of ``treatment`` with ``baseline``, (n,) each, one value per seed.

    ``parts``: one for a main effect, two for an interaction, none for a comparison with the
    published score that ``name`` describes. For an interaction, ``baseline`` and ``treatment`` are
    the effects of the second factor at the two levels of the first. ``sides``: the indices of the
    variants that baseline and treatment average over. ``tolerance``: values at most this far apart
    are tied (see rank_tests).
    """

    name: str
    kind: Literal["main", "interaction", "published"]
    baseline: np.ndarray
    treatment: np.ndarray
    parts: list[Part] = field(default_factory=list)
    sides: tuple[list[int], list[int]] = ([], [0])
    tolerance: float | None = None

    @property
    def differences(self) -> np.ndarray:
        """Treatment minus baseline per seed, with ties made equal and rounding errors set to 0."""
        return rank_tests.with_ties(self.treatment - self.baseline, self.tolerance)


def build(
    study: Study,
    scores: np.ndarray,
    resolution: float | None = None,
    splitting: Sequence[str] = (),
) -> list[Contrast]:
    """Return the study's primary contrasts from ``scores`` (variants, seeds).

    ``resolution``: the smallest step of a score, or None if unknown. ``splitting``: the factors
    that change the data split. Such a factor is the first of an interaction: the effects of the
    other one are then differences within a split, and those of two splits are independent.

    These are the main effects, and the two-way interactions of two-level factors. With y[a][b] the
    scores of one seed, A = ((y11 + y10) - (y01 + y00)) / 2 and AB = (y11 - y10) - (y01 - y00),
    averaged over the levels of all other factors. A factor with more than two levels gives one
    contrast per pair of levels or, with a declared control, one per other level against it. The
    control is the baseline of main effects; interactions keep the order of the levels. A
    study without factors is compared with each published score: the baseline is that number for
    every seed, and a score that rounds to it counts as equal.

    Raises:
        StudyError: if ``primary`` names an unknown contrast, or if there is nothing to compare.
    """
    if study.factors:
        contrasts = _of_factors(study, scores, resolution, splitting)
    else:
        contrasts = _with_published(study, scores)
    if not contrasts:
        raise StudyError(
            f"{study.name} varies only the seed: there is nothing to compare. Vary a factor in the "
            "sweep, or add `published_scores:` to the declaration."
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
            f"`primary:` names unknown contrasts of {study.name}: {', '.join(unknown)}. Accepted: "
            f"{', '.join(by_name)}"
        )
    return [by_name[name] for name in wanted]


def _of_factors(
    study: Study, scores: np.ndarray, resolution: float | None, splitting: Sequence[str]
) -> list[Contrast]:
    names, levels = list(study.factors), list(study.factors.values())
    table = scores.reshape(*map(len, levels), -1)
    contrasts, tied = [], tolerance(scores, resolution)
    indices = np.arange(len(scores)).reshape(table.shape[:-1])
    for axis, name in enumerate(names):
        mean = table.mean(axis=tuple(i for i in range(len(names)) if i != axis))  # (levels, seeds)
        for i, j in _pairs(levels[axis], study.control):
            part = Part(name, levels[axis][i], levels[axis][j])
            words = f"{name}: {show_value(part.treatment)} - {show_value(part.baseline)}"
            label = name if len(levels[axis]) == 2 else words
            sides = tuple(indices.take(k, axis).ravel().tolist() for k in (i, j))
            contrasts.append(Contrast(label, "main", mean[i], mean[j], [part], sides, tied))
    two_level = [i for i in range(len(names)) if len(levels[i]) == 2]
    for a, b in itertools.combinations(two_level, 2):
        others = tuple(i for i in range(len(names)) if i not in (a, b))
        mean = table.mean(axis=others)  # (2, 2, seeds)
        name = f"{names[a]} × {names[b]}"
        if names[b] in splitting and names[a] not in splitting:
            a, b, mean = b, a, mean.swapaxes(0, 1)
        parts = [Part(names[k], *levels[k]) for k in (a, b)]
        baseline, treatment = mean[0, 1] - mean[0, 0], mean[1, 1] - mean[1, 0]
        sides = tuple(indices.take(k, a).ravel().tolist() for k in (0, 1))
        contrasts.append(Contrast(name, "interaction", baseline, treatment, parts, sides, tied))
    return contrasts


def _pairs(levels: list[Any], control: Any) -> list[tuple[int, int]]:
    """Return the indices of the levels to compare: all pairs, or each other with the control.

    The first index is that of the baseline.
    """
    is_control = [control is not None and same_value(level, control) for level in levels]
    if any(is_control):
        first = is_control.index(True)
        return [(first, j) for j in range(len(levels)) if j != first]
    return list(itertools.combinations(range(len(levels)), 2))


def _with_published(study: Study, scores: np.ndarray) -> list[Contrast]:
    contrasts, step = [], study.metric.shown_step  # published with as many digits as we show
    for words, value in study.declaration.published_scores.items():
        ours = np.where(np.abs(scores[0] - value) < step / 2, value, scores[0])
        contrasts.append(Contrast(words, "published", np.full(len(ours), value), ours))
    return contrasts


def tolerance(scores: np.ndarray, resolution: float | None = None) -> float:
    """Return the difference up to which contrasts of ``scores`` (variants, seeds) are tied.

    With a ``resolution``, a tenth of it divided by the number of variants, since a contrast
    averages over variants. Otherwise a bound on the rounding error of scores of this size: in
    float32 if that can represent each of them (and not all are whole numbers), else in float64.
    """
    if resolution is not None:
        return resolution / (10 * len(scores))
    known = np.abs(scores[np.isfinite(scores)])
    if not len(known):
        return 0.0
    with np.errstate(over="ignore"):
        single = (known.astype(np.float32) == known).all() and (known % 1 != 0).any()
    bound = ROUND_OFF * float(known.max())
    return max(bound, ROUND_OFF_32 * float(np.median(known))) if single else bound


def weights(study: Study) -> np.ndarray:
    """Return each primary contrast's weights over the variants' scores, (contrasts, variants)."""
    unit = np.eye(len(study.variants))
    if not study.factors:
        return np.ones((len(study.declaration.published_scores), 1))
    return np.array([c.treatment - c.baseline for c in build(study, unit)])
