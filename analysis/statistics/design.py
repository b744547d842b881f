"""What a number of seeds can find: smallest p, power, and how often each grade is reached."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from analysis.statistics import contrasts, grades, many, rank_tests
from lib.spec.study import Study

FEWEST_SEEDS = 4  # to draw residuals from
SIMULATED = 500  # studies per row of a design analysis: a standard error of at most 0.02
RESAMPLES = 2_000  # simulated studies per power: a standard error of at most 0.011


def power_at(n: int, effect: float, family: int, alpha: float, rng: np.random.Generator) -> float:
    """Return how often ``n`` seeds show one real effect, in standard deviations of the contrast.

    Exact signed-rank test at alpha / family: the level at which Holm's correction tests the
    smallest p, so the power while the other contrasts are null. Simulated with normal differences.
    """
    if rank_tests.smallest_p(n) >= alpha / family:
        return 0.0
    tails = rank_tests.signed_rank_tails(rng.normal(effect, 1, (RESAMPLES, n)))
    return float((rank_tests.two_sided(*tails) < alpha / family).mean())


def detectable(n: int, family: int, alpha: float, seed: int = 0) -> float:
    """Return the effect, in standard deviations of the contrast, that is found with power 0.8."""
    if rank_tests.smallest_p(n) >= alpha / family:
        return math.inf

    def lack(effect: float) -> float:
        return power_at(n, effect, family, alpha, np.random.default_rng(seed)) - 0.8

    return float(brentq(lack, 0.05, 10, xtol=0.02))


def fewest_seeds(family: int, alpha: float) -> int:
    """Return the least number of seeds whose smallest p passes Holm's correction."""
    return next(n for n in range(2, 100) if rank_tests.smallest_p(n) * family < alpha)


# ---------------------------------------------------------------------------------------------
# Design analysis: how often a study of n seeds reaches each grade


@dataclass(frozen=True)
class Outcome:
    """What simulated studies of ``n`` seeds find when one contrast's true effect is ``effect``.

    ``grades``: the probability of each grade; ``survives``: of a claim of a difference, the share
    that the other score rules confirm (None without other rules); ``wrong_sign``: the share of
    claimed differences that have the wrong sign (type S), ``exaggeration``: how many times too
    large these are on average (type M; Gelman & Carlin 2014). None where none was claimed.
    """

    contrast: str
    n: int
    effect: float
    grades: dict[str, float]
    survives: float | None
    wrong_sign: float | None
    exaggeration: float | None

    @property
    def found(self) -> float:
        """The probability that a difference is shown."""
        return sum(self.grades[name] for name in grades.SUPPORTED)


def residuals(scores: np.ndarray, failed: np.ndarray | None = None) -> np.ndarray | None:
    """Return what varies between seeds within each variant, (variants, seeds without failures).

    Scores minus their variant's mean, widened by √(k / (k - 1)) for the mean taken out of k seeds.
    None where fewer than ``FEWEST_SEEDS`` seeds have no failed run.
    """
    if failed is not None:
        scores = scores[:, ~failed.any(axis=0)]
    k = scores.shape[1]
    if k < FEWEST_SEEDS:
        return None
    return (scores - scores.mean(axis=1, keepdims=True)) * math.sqrt(k / (k - 1))


def outcome(
    study: Study,
    rules: Sequence[np.ndarray],
    contrast: int,
    n: int,
    effect: float,
    paired: bool = True,
    splitting: Sequence[str] = (),
    studies: int = SIMULATED,
) -> Outcome:
    """Simulate studies of ``n`` seeds in which one contrast's true effect is ``effect``.

    Seeds are drawn from the residuals with replacement, whole (all variants of a seed together)
    where they are pairs; the other contrasts' effects are 0; the real decision is run on each
    study. ``rules``: residuals under the declared score rule, then under others, of the same seeds.
    ``contrast``: its place among the primary ones. A jitter of 0.1 % of the spread breaks the ties
    that drawing a seed twice makes.
    """
    rng, (variants, k) = np.random.default_rng(0), rules[0].shape
    weights = contrasts.weights(study)[contrast]
    shift = effect * weights / (weights**2).sum()
    drawn = rng.integers(k, size=(1 if paired else variants, studies, n))
    drawn = np.broadcast_to(drawn, (variants, studies, n))
    jitter = rng.normal(0, 1e-3, drawn.shape)
    found = []
    for one in rules:
        table = one[np.arange(variants)[:, None, None], drawn] + shift[:, None, None]
        table = table + jitter * one.std()
        delta = study.smallest_effect if not found else None
        found.append(many.claims_of_many(study, table, paired, splitting, delta))
    own, *others = found
    floor = rank_tests.smallest_p(n, None if paired else n) * own.difference.shape[1]
    verdicts = ["not_testable"] * studies
    if floor < study.alpha:
        columns = (kind[:, contrast].tolist() for kind in (own.difference, own.beyond, own.within))
        verdicts = [grades.decide(*p, study.alpha) for p in zip(*columns, strict=True)]
    claimed = np.array([verdict in grades.SUPPORTED for verdict in verdicts])
    signs = [
        np.where(c.difference[:, contrast] < study.alpha, c.direction[:, contrast], 0)
        for c in found
    ]
    agree = np.all([sign == signs[0] for sign in signs], axis=0)
    sizes = own.estimate[claimed, contrast]
    known = bool(claimed.any()) and effect != 0
    return Outcome(
        contrasts_of(study)[contrast],
        n,
        effect,
        {name: verdicts.count(name) / studies for name in grades.GRADES},
        float(agree[claimed].mean()) if others and claimed.any() else None,
        float((np.sign(sizes) != np.sign(effect)).mean()) if known else None,
        float(np.abs(sizes).mean() / abs(effect)) if known else None,
    )


def contrasts_of(study: Study) -> list[str]:
    """Return the names of the study's primary contrasts."""
    dummy = np.zeros((len(study.variants), 2))
    return [contrast.name for contrast in contrasts.build(study, dummy)]
