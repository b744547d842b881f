"""From scores per variant and seed to the contrasts that a study compares."""

import itertools
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from analysis.statistics import rank_tests
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
    second factor at either level of the first. ``sides``: the places of the variants behind
    baseline and treatment. ``tolerance``: differences at most so far apart are equal, see
    rank_tests.
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
        """Treatment minus baseline, seed by seed; ties are equal and what round-off left is 0."""
        return rank_tests.with_ties(self.treatment - self.baseline, self.tolerance)


def build(study: Study, scores: np.ndarray, resolution: float | None = None) -> list[Contrast]:
    """Return the study's primary contrasts from ``scores`` (variants, seeds).

    ``resolution``: the smallest step of a score, where it is known.

    Main effects and two-way interactions of the two-level factors: with y[a][b] the scores of one
    seed, A = ((y11 + y10) - (y01 + y00)) / 2 and AB = (y11 - y10) - (y01 - y00), averaged over the
    levels of any further factors. A factor with more levels gives one main effect for each pair of
    them, or for each with the declared control. A study without factors is compared with each
    published score: the baseline is that number, n times, and a score that would round to it is
    taken as equal.

    Raises:
        StudyError: when ``primary`` names a contrast that the study does not have, or when there is
            nothing to compare.
    """
    if study.factors:
        contrasts = _of_factors(study, scores, resolution)
    else:
        contrasts = _with_published(study, scores)
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


def _of_factors(study: Study, scores: np.ndarray, resolution: float | None) -> list[Contrast]:
    names, levels = list(study.factors), list(study.factors.values())
    table = scores.reshape(*map(len, levels), -1)
    contrasts, near = [], tolerance(scores, resolution)
    places = np.arange(len(scores)).reshape(table.shape[:-1])
    for axis, name in enumerate(names):
        mean = table.mean(axis=tuple(i for i in range(len(names)) if i != axis))  # (levels, seeds)
        for i, j in _pairs(levels[axis], study.control):
            part = Part(name, levels[axis][i], levels[axis][j])
            words = f"{name}: {show_value(part.treatment)} - {show_value(part.baseline)}"
            label = name if len(levels[axis]) == 2 else words
            sides = tuple(places.take(k, axis).ravel().tolist() for k in (i, j))
            contrasts.append(Contrast(label, "main", mean[i], mean[j], [part], sides, near))
    two_level = [i for i in range(len(names)) if len(levels[i]) == 2]
    for a, b in itertools.combinations(two_level, 2):
        others = tuple(i for i in range(len(names)) if i not in (a, b))
        mean = table.mean(axis=others)  # (2, 2, seeds)
        parts = [Part(names[k], *levels[k]) for k in (a, b)]
        baseline, treatment = mean[0, 1] - mean[0, 0], mean[1, 1] - mean[1, 0]
        name = f"{names[a]} × {names[b]}"
        sides = tuple(places.take(k, a).ravel().tolist() for k in (0, 1))
        contrasts.append(Contrast(name, "interaction", baseline, treatment, parts, sides, near))
    return contrasts


def _pairs(levels: list[Any], control: Any) -> list[tuple[int, int]]:
    """Return the places of levels to compare: all pairs, or each with the control."""
    if control is not None and control in levels and len(levels) > 2:
        first = levels.index(control)
        return [(first, j) for j in range(len(levels)) if j != first]
    return list(itertools.combinations(range(len(levels)), 2))


def _with_published(study: Study, scores: np.ndarray) -> list[Contrast]:
    contrasts, digit = [], study.metric.shown_step  # published with as many digits as we show
    for words, value in study.declaration.published_scores.items():
        own = np.where(np.abs(scores[0] - value) < digit / 2, value, scores[0])
        contrasts.append(Contrast(words, "published", np.full(len(own), value), own))
    return contrasts


def tolerance(scores: np.ndarray, resolution: float | None = None) -> float:
    """Return how far apart contrasts of ``scores`` (variants, seeds) may be and still be equal.

    Where a score has a smallest step, the ``resolution``: a tenth of it, divided by the number of
    variants, since a contrast averages over some of them; else what arithmetic on scores of this
    size can leave.
    """
    if resolution is not None:
        return resolution / (10 * len(scores))
    known = np.abs(scores[np.isfinite(scores)])
    return ROUND_OFF * float(known.max()) if len(known) else 0.0


def weights(study: Study) -> np.ndarray:
    """Return each primary contrast's weights over the variants' scores, (contrasts, variants)."""
    unit = np.eye(len(study.variants))
    if not study.factors:
        return np.ones((len(study.declaration.published_scores), 1))
    return np.array([c.treatment - c.baseline for c in build(study, unit)])
