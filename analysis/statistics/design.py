"""What a number of seeds can find: smallest p, power, and how often each grade is reached."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import chi2

from analysis.statistics import contrasts, grades, many, rank_tests, testing
from lib.spec.study import Study

MOST_CONTRASTS, MOST_SEEDS = 12, 50  # that a report's design analysis covers
SMOOTHED = 30  # with more seeds than these their own values will do
FEWEST_SEEDS = 4  # to draw residuals from
SIMULATED = 500  # studies per row of a design analysis: a simulation error of at most 0.02
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

    A seed's residuals (all variants of one seed together, where seeds are pairs) are drawn with
    replacement, with a random sign, so that the null is symmetric as the tests assume, and
    smoothed with noise of the residuals' own covariance where there are few (a smoothed bootstrap,
    Silverman's bandwidth, the variance kept). The other contrasts' effects are 0, as
    far as they are independent. The real decision is run on each study. ``rules``: residuals
    (variants, seeds) under the declared score rule, then under others, of the same seeds.
    ``contrast``: its place among the primary ones.
    """
    rng, (variants, k) = np.random.default_rng(0), rules[0].shape
    shift = effect * unit_effect(contrasts.weights(study), contrast)
    size = (1 if paired else variants, studies, n)
    drawn = np.broadcast_to(rng.integers(k, size=size), (variants, studies, n))
    signs = rng.choice([-1, 1], size=size)
    kernel = rng.normal(0, 1, (*size, k if k <= SMOOTHED else 0))
    width = 1.06 * k**-0.2 if k <= SMOOTHED else 0.0
    built = contrasts.build(study, np.zeros((variants, 2)))
    found = []
    for one in rules:
        own = signs * one[np.arange(variants)[:, None, None], drawn]
        if width:
            noise = (kernel * one[:, None, None, :]).sum(axis=-1) / math.sqrt(k)
            own = (own + width * noise) / math.sqrt(1 + width**2)
        table = own + shift[:, None, None]
        delta = study.smallest_effect if not found else None
        found.append(many.claims_of_many(study, table, paired, splitting, delta))
    own, *others = found
    pairs = testing.has_pairs(built[contrast], paired, splitting)
    floor = rank_tests.smallest_p(n, None if pairs else n) * len(built)
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
        built[contrast].name,
        n,
        effect,
        {name: verdicts.count(name) / studies for name in grades.GRADES},
        float(agree[claimed].mean()) if others and claimed.any() else None,
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

    ``differences`` (k,): of a pilot's seeds; studies of ``n`` seeds draw from them, centred, with
    random signs and smoothed as in ``outcome``, and add the true ``effect``. ``delta``: the
    smallest effect of interest, in the same unit; ``family``: how many contrasts are tested
    together, of which this one's p-values get the strictest correction (Bonferroni's).
    """
    rng, d = np.random.default_rng(0), np.asarray(differences, dtype=float)
    k = len(d)
    own = (d - d.mean()) * math.sqrt(k / (k - 1))
    width = 1.06 * k**-0.2 if k <= SMOOTHED else 0.0
    drawn = rng.choice([-1, 1], (studies, n)) * own[rng.integers(k, size=(studies, n))]
    noise = rng.normal(0, own.std(), (studies, n))
    table = (drawn + width * noise) / math.sqrt(1 + width**2) + effect
    p = rank_tests.two_sided(*rank_tests.signed_rank_tails(table))
    beyond = within = np.ones(studies)
    if delta is not None:
        shifted = [rank_tests.signed_rank_tails(table - shift) for shift in (delta, -delta)]
        beyond, within = rank_tests.beyond_and_within(*shifted)
    verdicts = ["not_testable"] * studies
    if rank_tests.smallest_p(n) * family < alpha:
        kinds = (np.minimum(1, family * kind) for kind in (p, beyond, within))
        verdicts = [grades.decide(*one, alpha) for one in zip(*kinds, strict=True)]
    return {name: verdicts.count(name) / studies for name in grades.GRADES}


def unit_effect(weights: np.ndarray, contrast: int) -> np.ndarray:
    """Return means (variants,) that give one contrast an effect of 1, and the others 0 if they can.

    ``weights`` (contrasts, variants). Where contrasts depend on one another, as all pairs of three
    levels do, the others get a share.
    """
    if np.linalg.matrix_rank(weights) == len(weights):
        return np.linalg.pinv(weights)[:, contrast]
    own = weights[contrast]
    return own / (own**2).sum()


def spread_factors(k: int) -> tuple[float, float]:
    """Return by what factors the spread that ``k`` seeds show may be off, at 95 %, if normal."""
    low, high = chi2.ppf([0.025, 0.975], k - 1)
    return math.sqrt((k - 1) / high), math.sqrt((k - 1) / low)


def contrasts_of(study: Study) -> list[str]:
    """Return the names of the study's primary contrasts."""
    dummy = np.zeros((len(study.variants), 2))
    return [contrast.name for contrast in contrasts.build(study, dummy)]
