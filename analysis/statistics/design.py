"""Design analysis: smallest p, power and the probability of each grade for a number of seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import chi2

from analysis.statistics import contrasts, grades, many, rank_tests
from lib.spec.study import Study

MOST_CONTRASTS, MOST_SEEDS = 12, 50  # a report skips the design analysis of larger studies
SMOOTHED = 30  # residuals of more seeds than this are resampled without smoothing
FEWEST_SEEDS = 4  # needed to resample residuals
SIMULATED = 500  # studies per row of a design analysis: a simulation error of at most 0.02
RESAMPLES = 2_000  # simulated studies per power: a standard error of at most 0.011


def power_at(n: int, effect: float, family: int, alpha: float, rng: np.random.Generator) -> float:
    """Return the power of ``n`` seeds for an ``effect`` in standard deviations of the contrast.

    Simulates normal differences and applies the exact signed-rank test at alpha / family. Holm's
    correction tests the smallest p at this level, so this is the power if all other contrasts are
    null.
    """
    if rank_tests.smallest_p(n) >= alpha / family:
        return 0.0
    tails = rank_tests.signed_rank_tails(rng.normal(effect, 1, (RESAMPLES, n)))
    return float((rank_tests.two_sided(*tails) < alpha / family).mean())


def detectable(n: int, family: int, alpha: float, seed: int = 0) -> float:
    """Return the effect with power 0.8, in standard deviations of the contrast."""
    if rank_tests.smallest_p(n) >= alpha / family:
        return math.inf

    def excess_power(effect: float) -> float:
        return power_at(n, effect, family, alpha, np.random.default_rng(seed)) - 0.8

    return float(brentq(excess_power, 0.05, 10, xtol=0.02))


def fewest_seeds(family: int, alpha: float) -> int:
    """Return the smallest number of seeds whose smallest p passes Holm's correction."""
    return next(n for n in range(2, 100) if rank_tests.smallest_p(n) * family < alpha)


# ---------------------------------------------------------------------------------------------
# Design analysis: the probability of each grade in a study of n seeds


@dataclass(frozen=True)
class Outcome:
    """Results of simulated studies of ``n`` seeds if one contrast's true effect is ``effect``.

    ``grades``: the probability of each grade. ``survives``: of the differences that the declared
    score rule would claim, the share that the other rules confirm; None without other rules.
    ``wrong_sign``: the share of claimed differences with the wrong sign (type S error).
    ``exaggeration``: the mean ratio of their estimated to their true size (type M error; Gelman &
    Carlin 2014). All three are None if no difference was claimed, the last two also for an effect
    of 0.
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
        """The probability of a grade that claims a difference."""
        return sum(self.grades[name] for name in grades.SUPPORTED)


def residuals(scores: np.ndarray, failed: np.ndarray | None = None) -> np.ndarray | None:
    """Return the residuals of the seeds without a failed run within each variant, (variants, k).

    These are the scores minus their variant's mean, times √(k / (k - 1)) because the mean is
    estimated from the same k seeds. None if fewer than ``FEWEST_SEEDS`` seeds have no failed run.
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

    Residuals are drawn with replacement and with a random sign, so that the null distribution is
    symmetric as the tests assume. If seeds are paired, the residuals of one seed are drawn together
    for all variants. Residuals of up to ``SMOOTHED`` seeds are smoothed with noise of their own
    covariance (smoothed bootstrap, Silverman's bandwidth, variance kept). The effects of the other
    contrasts are 0 as far as they are independent of this one. Each simulated study is graded by
    the same functions as a real one. ``rules``: the residuals (variants, seeds) of the same seeds,
    first under the declared score rule, then under the others. ``contrast``: its index among the
    primary contrasts.
    """
    rng, (variants, k) = np.random.default_rng(0), rules[0].shape
    shift = effect * unit_effect(contrasts.weights(study), contrast)
    size = (1 if paired else variants, studies, n)
    drawn = np.broadcast_to(rng.integers(k, size=size), (variants, studies, n))
    signs = rng.choice([-1, 1], size=size)
    kernel = rng.normal(0, 1, (*size, k if k <= SMOOTHED else 0))
    width = 1.06 * k**-0.2 if k <= SMOOTHED else 0.0
    name = contrasts.build(study, np.zeros((variants, 2)))[contrast].name
    by_rule, delta = [], study.smallest_effect
    for one in rules:
        errors = signs * one[np.arange(variants)[:, None, None], drawn]
        if width:
            noise = (kernel * one[:, None, None, :]).sum(axis=-1) / math.sqrt(k)
            errors = (errors + width * noise) / math.sqrt(1 + width**2)
        table = errors + shift[:, None, None]
        by_rule.append(many.claims_of_many(study, table, paired, splitting, delta))
    declared, *others = by_rule
    first, *rest = (many.grades_of(one, study.alpha, failed=False)[:, contrast] for one in by_rule)
    directions = [
        np.where(c.difference[:, contrast] < study.alpha, c.direction[:, contrast], 0)
        for c in by_rule
    ]
    same = [one == directions[0] for one in directions[1:]]
    graded = [
        grades.under_other_rules(grade, [(g[i], a[i]) for g, a in zip(rest, same, strict=True)])
        for i, grade in enumerate(first)
    ]
    before = np.isin(first, grades.SUPPORTED)
    claimed = np.isin(graded, grades.SUPPORTED)
    sizes = declared.estimate[claimed, contrast]
    known = bool(claimed.any()) and effect != 0
    return Outcome(
        name,
        n,
        effect,
        {name: graded.count(name) / studies for name in grades.GRADES},
        float(np.all(same, axis=0)[before].mean()) if others and before.any() else None,
        float((np.sign(sizes) != np.sign(effect)).mean()) if known else None,
        float(np.abs(sizes).mean() / abs(effect)) if known else None,
    )


def grades_of_differences(
    differences: np.ndarray,
    n: int,
    effect: float,
    delta: float | None = None,
    alpha: float = 0.05,
    family: int = 1,
    studies: int = SIMULATED,
) -> dict[str, float]:
    """Return the probability of each grade for one paired contrast, from arrays alone.

    ``differences`` (k,): the paired differences of a pilot's seeds. They are centered, resampled
    with random signs and smoothed as in ``outcome``, and the true ``effect`` is added. ``delta``:
    the smallest effect of interest in the same unit. ``family``: the number of contrasts tested
    together; the p-values are multiplied by it (Bonferroni, the strictest step of Holm's
    correction).
    """
    rng, d = np.random.default_rng(0), np.asarray(differences, dtype=float)
    k = len(d)
    centered = (d - d.mean()) * math.sqrt(k / (k - 1))
    width = 1.06 * k**-0.2 if k <= SMOOTHED else 0.0
    drawn = rng.choice([-1, 1], (studies, n)) * centered[rng.integers(k, size=(studies, n))]
    noise = rng.normal(0, centered.std(), (studies, n))
    table = (drawn + width * noise) / math.sqrt(1 + width**2) + effect
    p = rank_tests.two_sided(*rank_tests.signed_rank_tails(table))
    beyond = within = np.ones(studies)
    if delta is not None:
        shifted = [rank_tests.signed_rank_tails(table - shift) for shift in (delta, -delta)]
        beyond, within = rank_tests.beyond_and_within(*shifted)
    graded = ["not_testable"] * studies
    if rank_tests.smallest_p(n) * family < alpha:
        kinds = (np.minimum(1, family * kind) for kind in (p, beyond, within))
        graded = [grades.decide(*one, alpha) for one in zip(*kinds, strict=True)]
    return {name: graded.count(name) / studies for name in grades.GRADES}


def unit_effect(weights: np.ndarray, contrast: int) -> np.ndarray:
    """Return means (variants,) with an effect of 1 in one contrast and, if possible, 0 elsewhere.

    ``weights`` (contrasts, variants). If the contrasts are linearly dependent, such as all pairs of
    three levels, the others are not 0.
    """
    if np.linalg.matrix_rank(weights) == len(weights):
        return np.linalg.pinv(weights)[:, contrast]
    row = weights[contrast]
    return row / (row**2).sum()


def spread_factors(k: int) -> tuple[float, float]:
    """Return the 95 % interval of true SD / observed SD for ``k`` normally distributed seeds."""
    low, high = chi2.ppf([0.025, 0.975], k - 1)
    return math.sqrt((k - 1) / high), math.sqrt((k - 1) / low)


def contrasts_of(study: Study) -> list[str]:
    """Return the names of the study's primary contrasts."""
    dummy = np.zeros((len(study.variants), 2))
    return [contrast.name for contrast in contrasts.build(study, dummy)]
