"""What a number of seeds can find: smallest p, power, and the spread that a pilot study shows."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import power

from analysis.runs.tables import CONFIG, TableError, encode, numbers, read_tables
from analysis.statistics import rank_tests
from lib.spec.study import NUISANCE_FIELDS, Study
from lib.spec.sweep import same_value, show_value

OUTLIER = 8  # robust standard deviations from a run's variant and seed
RESAMPLES = 2_000  # simulated studies per power: a standard error of at most 0.011


@dataclass(frozen=True)
class Pilot:
    """What earlier runs say: spread over seeds within a variant, and seconds per epoch.

    ``deviation``: standard deviation of a run's score within variant and seed;
    ``without_outliers``: the same without the ``outliers``; ``mismatches``: where the pilot's
    recipe is not the plan's.
    """

    deviation: float
    without_outliers: float
    outliers: int
    seconds_per_epoch: float | None
    runs: int
    mismatches: list[str]


def read_pilot(folder: Path, study: Study) -> Pilot:
    """Return what the tables of an earlier study say about spread and speed.

    Where every variant has every seed, what a seed does to all variants alike is taken out: it
    cancels in paired contrasts.

    Raises:
        TableError: when they lack the study's score, a variant has two runs of a seed (as when the
            pilot varied something that the study does not), or none has two finished runs.
    """
    runs, history = read_tables(folder)
    seed, key = CONFIG + study.declaration.seed, study.score_key()
    names = [CONFIG + name for name in study.factor_keys if CONFIG + name in runs]
    scores = numbers(runs, key)
    if scores.isna().all() or seed not in runs or (study.factor_keys and not names):
        wanted = ", ".join(study.factor_keys) or study.declaration.seed
        raise TableError(f"{folder}/runs.csv has no scores {key} or none of {wanted}")
    runs = runs.assign(score=scores)[(runs["state"] == "finished") & scores.notna()]
    plain = runs[[*names, seed]].map(encode)
    if (twice := plain.duplicated()).any():
        told = ", ".join(name.removeprefix(CONFIG) for name in [*names, seed])
        raise TableError(
            f"{folder}: {told} are the same in several runs, such as "
            f"{runs['run_id'][twice].iloc[0]}; did this pilot vary something else?"
        )
    plain = plain.assign(score=runs["score"], variant="all")
    table = plain.pivot_table(index=seed, columns=names or "variant", values="score")
    deviation = _spread(table)
    if deviation is None:
        raise TableError(
            f"{folder} has no variant with two finished runs: there is no spread to learn from"
        )
    centred = table - table.median()
    centred = centred.sub(centred.median(axis=1), axis=0)
    typical = 1.4826 * np.nanmedian(np.abs(centred))  # to a normal distribution's deviation
    off = np.abs(centred) > OUTLIER * typical
    without = _spread(table.mask(off)) if typical > 0 else None
    seconds = None
    if "seconds" in history:
        seconds = float(history[history["run_id"].isin(runs["run_id"])]["seconds"].median())
    return Pilot(
        deviation,
        without or deviation,
        int(off.sum(axis=None)),
        seconds,
        len(runs),
        _mismatches(study, runs),
    )


def _mismatches(study: Study, runs: pd.DataFrame) -> list[str]:
    found = []
    for name, value in study.fixed.items():
        own = runs.get(CONFIG + name)
        if own is None or name in NUISANCE_FIELDS or name == "data":
            continue
        if not all(same_value(one, value) for one in own):
            shown = ", ".join(sorted({show_value(one) for one in own}))
            found.append(f"{name} = {shown}, planned {show_value(value)}")
    return found


def _spread(scores: pd.DataFrame) -> float | None:
    """Return the standard deviation within variant and seed of a table (seeds, variants).

    A seed's own effect is taken out where there are several variants; gaps cost degrees of freedom.
    """
    residuals = scores - scores.mean()
    freedom = int((scores.count() - 1).clip(lower=0).sum())
    if scores.shape[1] > 1 and (scores.count(axis=1) > 1).all():
        residuals = residuals.sub(residuals.mean(axis=1), axis=0)
        freedom -= scores.shape[0] - 1
    return float(np.sqrt((residuals**2).sum(axis=None) / freedom)) if freedom > 0 else None


def contrast_deviation(study: Study, deviation: float) -> float:
    """Return the standard deviation over seeds of a main effect, from that of a run.

    A main effect is a difference of two levels' means over the other factors' variants; with
    independent runs its variance is 2 deviation² / (variants per level). Of factors with unlike
    numbers of levels the one with the most decides: its contrasts are the least sure. Without
    factors a run is compared with a number, and the deviation is its own.
    """
    if not study.factors:
        return deviation
    most = max(len(levels) for levels in study.factors.values())
    return deviation * math.sqrt(2 / (len(study.variants) // most))


def power_at(n: int, effect: float, family: int, alpha: float, rng: np.random.Generator) -> float:
    """Return how often ``n`` seeds show one real effect, in standard deviations of the contrast.

    Exact signed-rank test at alpha / family: the level at which Holm's correction tests the
    smallest p, so the power while the other contrasts are null. Simulated with normal differences.
    """
    if rank_tests.smallest_p(n) >= alpha / family:
        return 0.0

    def p_values(samples: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.apply_along_axis(lambda d: rank_tests.signed_rank(d).p, axis, samples)

    result = power(
        p_values,
        lambda size: rng.normal(effect, 1, size),
        n,
        significance=alpha / family,
        vectorized=True,
        n_resamples=RESAMPLES,
    )
    return float(result.power)


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
