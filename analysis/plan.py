"""Say what a sweep can find out, before it costs machine hours.

    python -m analysis.plan sweeps/gtsrb.yaml --effect 0.005 --pilot analysis/results/gtsrb_short

From the YAML alone: cells, seeds, runs, the family of contrasts, the smallest p that each test can
give after Holm's correction, with a warning where that is not below alpha. With a pilot study (its
tables) also the power for a stated effect, the effect found with power 0.8, and the hours.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.optimize import brentq
from scipy.stats import power

from analysis.figures import style
from analysis.figures.catalogue import Drawn
from analysis.grid import RULES, SEED, GridError, Study, Sweep, load_study, load_sweep
from analysis.pages import render
from analysis.runs import provenance
from analysis.runs.tables import TableError, read_tables
from analysis.statistics import contrasts, rank_tests
from analysis.statistics.grades import amount, format_p

SEEDS = range(3, 16)  # shown in the table and in figure 6
FAR_OFF = 8  # robust standard deviations from a run's cell and seed; such a run is another story
RESAMPLES = 2_000  # simulated studies per power: a standard error of at most 0.011


@dataclass(frozen=True)
class Pilot:
    """What earlier runs say: spread over seeds within a cell, and seconds per epoch."""

    deviation: float  # standard deviation of a run's score within cell and seed
    without_far: float  # the same without the runs in ``far``
    far: int  # runs far off their cell and seed
    seconds_per_epoch: float | None
    runs: int
    unlike: list[str]  # where the pilot's recipe is not the plan's: "epochs is 4, planned 400"


def read_pilot(folder: Path, study: Study, sweep: Sweep) -> Pilot:
    """Return what the tables of an earlier study say about spread and speed.

    Where every cell has every seed, what a seed does to all cells alike is taken out: it cancels in
    paired contrasts.

    Raises:
        TableError: when they lack the study's score, a cell has two runs of a seed (as when the
            pilot varied something that the sweep does not), or no cell has two finished runs.
    """
    runs, history = read_tables(folder)
    column = study.score_column()
    names = [name for name in sweep.factors if name in runs]
    if column not in runs or (sweep.factors and not names):
        raise TableError(f"{folder}/runs.csv has no {column} or none of {', '.join(sweep.factors)}")
    runs = runs[(runs["state"] == "finished") & runs[column].notna()]
    if (twice := runs.duplicated([*names, SEED])).any():
        raise TableError(
            f"{folder}: {', '.join(names)} and {SEED} are the same in several runs, such as "
            f"{runs['run_id'][twice].iloc[0]}; did this pilot vary something else?"
        )
    scores = runs.assign(cell="all").pivot_table(index=SEED, columns=names or "cell", values=column)
    deviation = _spread(scores)
    if deviation is None:
        raise TableError(f"{folder} has no cell with two finished runs: no spread to learn from")
    centred = scores - scores.median()
    centred = centred.sub(centred.median(axis=1), axis=0)
    typical = 1.4826 * np.nanmedian(np.abs(centred))  # to a normal distribution's deviation
    off = np.abs(centred) > FAR_OFF * typical
    without = _spread(scores.mask(off)) if typical > 0 else None
    unlike = [
        f"{name} is {', '.join(map(str, sorted(runs[name].unique())))}, planned {value}"
        for name, value in sweep.fixed.items()
        if name in runs and name not in ("data", "checkpoint_every") and set(runs[name]) != {value}
    ]
    seconds = None
    if "seconds" in history:
        seconds = float(history[history["run_id"].isin(runs["run_id"])]["seconds"].median())
    return Pilot(
        deviation, without or deviation, int(off.sum(axis=None)), seconds, len(runs), unlike
    )


def _spread(scores: pd.DataFrame) -> float | None:
    """Return the standard deviation within cell and seed of a table (seeds, cells), if it has one.

    A seed's own effect is taken out where there are several cells; gaps cost degrees of freedom.
    """
    residuals = scores - scores.mean()
    freedom = int((scores.count() - 1).clip(lower=0).sum())
    if scores.shape[1] > 1 and (scores.count(axis=1) > 1).all():
        residuals = residuals.sub(residuals.mean(axis=1), axis=0)
        freedom -= scores.shape[0] - 1
    return float(np.sqrt((residuals**2).sum(axis=None) / freedom)) if freedom > 0 else None


def contrast_deviation(sweep: Sweep, deviation: float) -> float:
    """Return the standard deviation over seeds of a main effect, from that of a run.

    A main effect is a difference of two levels' means over the other factors' cells; with
    independent runs its variance is 2 deviation² / (cells per level). Of factors with unlike
    numbers of levels the one with the most decides: its contrasts are the least sure. Without
    factors a run is compared with a number, and the deviation is its own.
    """
    if not sweep.factors:
        return deviation
    most = max(len(levels) for levels in sweep.factors.values())
    return deviation * math.sqrt(2 / (len(sweep.cells) // most))


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


def describe(
    sweep: Sweep, study: Study, effect: float | None, pilot: Pilot | None
) -> tuple[str, int]:
    """Return the plan in words, and the size of the family."""
    dummy = {cell: [0.0] * len(sweep.seeds) for cell in sweep.cells}
    names = [contrast.name for contrast in contrasts.build(sweep, study, dummy)]
    n, family = len(sweep.seeds), len(names)
    floor = rank_tests.smallest_p(n)
    runs = len(sweep.cells) * n
    lines = [
        f"{sweep.name}: {len(sweep.cells)} cells × {n} seeds = {runs} runs"
        + (f" of {sweep.fixed['epochs']} epochs" if "epochs" in sweep.fixed else ""),
        f"metric {study.metric}, {study.direction} is better, score at "
        f"{RULES[study.score_rule]}, alpha {study.alpha}",
        f"family of {family}: {'; '.join(names)}",
        f"smallest p of the signed-rank test at n = {n}: {format_p(floor)}; after Holm's "
        f"correction over {family}: {format_p(min(1.0, floor * family))}",
    ]
    if sweep.factors:
        least = format_p(rank_tests.smallest_p(n, n))
        lines.append(f"smallest p of Mann–Whitney (secondary) at {n} v {n}: {least}")
    if floor * family >= study.alpha:
        lines.append(
            f"WARNING: {n} seeds and {family} contrasts cannot reach p < {format_p(study.alpha)}: "
            f"{fewest_seeds(family, study.alpha)} seeds are the least"
        )
    if pilot:
        lines.append(
            f"pilot: {pilot.runs} runs, standard deviation of a run within cell and seed "
            f"{amount(pilot.deviation, study)}"
        )
        if pilot.unlike:
            lines.append(f"WARNING: the pilot's recipe differs: {'; '.join(pilot.unlike)}")
        lines += _power(sweep, study, effect, family, pilot.deviation)
        if pilot.far and pilot.without_far < pilot.deviation:
            lines.append(
                f"WARNING: {pilot.far} run(s) of the pilot are far off; without them the deviation "
                f"would be {amount(pilot.without_far, study)}, and then:"
            )
            lines += _power(sweep, study, effect, family, pilot.without_far)
        if "epochs" in sweep.fixed and pilot.seconds_per_epoch is not None:
            hours = runs * sweep.fixed["epochs"] * pilot.seconds_per_epoch / 3600
            lines.append(
                f"hours at the pilot's {pilot.seconds_per_epoch:.1f} s per epoch: {hours:.1f}, "
                "divided by the number of runs at a time"
            )
    return "\n".join(lines), family


def _power(
    sweep: Sweep, study: Study, effect: float | None, family: int, run_deviation: float
) -> list[str]:
    """Say what the sweep finds when a run's score has this standard deviation."""
    deviation, n = contrast_deviation(sweep, run_deviation), len(sweep.seeds)
    lines = []
    if effect and deviation > 0:
        found = power_at(n, effect / deviation, family, study.alpha, np.random.default_rng(0))
        lines.append(f"power for a main effect of {amount(effect, study)}: {found:.2f}")
    least = detectable(n, family, study.alpha)
    if math.isfinite(least):
        lines.append(f"found with power 0.8: {amount(least * deviation, study)}")
    return lines


def draw(sweep: Sweep, family: int, alpha: float) -> tuple[Figure, str]:
    """Figure 6: smallest p after Holm, and power for three effects, against the number of seeds."""
    figure, (left, right) = style.subplots(2, 2.8, columns=2, sharey=False)
    floors = [min(1.0, rank_tests.smallest_p(n) * family) for n in SEEDS]
    left.plot(SEEDS, floors, color=style.COLOURS[0], marker="o")
    left.axhline(alpha, color="black", linewidth=0.8, linestyle="--", label=f"α = {alpha}")
    left.set_yscale("log")
    left.set_ylabel(f"Smallest Holm p, family of {family}")
    left.legend(frameon=False)
    for i, effect in enumerate((1.0, 1.5, 2.0)):
        rng = np.random.default_rng(0)
        curve = [power_at(n, effect, family, alpha, rng) for n in SEEDS]
        look = {"color": style.colour(i), "marker": style.marker(i)}
        right.plot(SEEDS, curve, label=f"{effect:g}", **look)
    right.axhline(0.8, color="black", linewidth=0.8, linestyle="--")
    right.set_ylim(0, 1.02)
    right.set_ylabel("Power")
    right.legend(frameon=False, title="Effect (SD)", title_fontsize=8)
    for axis in (left, right):
        axis.set_xlabel("Seeds per variant")
        axis.axvline(len(sweep.seeds), color="0.6", linewidth=4, alpha=0.4)
    return figure, (
        f"Smallest two-sided signed-rank p after Holm's correction over {family} contrasts (left) "
        f"and power for one real main effect, simulated with {RESAMPLES:,} normal studies a point "
        f"(right), against the number of seeds; grey: the {len(sweep.seeds)} of {sweep.name}. No "
        "runs are behind it."
    )


def main() -> None:
    """Say what a sweep can find out, before it costs machine hours."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("sweep", type=Path, help="the sweep's YAML")
    parser.add_argument("--pilot", type=Path, help="analysis/results/<study> of an earlier study")
    parser.add_argument(
        "--effect",
        type=float,
        help="effect to find, a fraction between 0 and 1 (default: the study's)",
    )
    parser.add_argument("--out", type=Path, help="folder for figure 6 (default: no figure)")
    arguments = parser.parse_args()
    if arguments.effect is not None and not 0 < arguments.effect < 1:
        parser.error(f"--effect {arguments.effect}: a fraction, such as 0.005 for half a point")
    try:
        sweep = load_sweep(arguments.sweep)
        study = load_study(sweep)
        effect = arguments.effect or study.smallest_effect
        pilot = None
        if arguments.pilot:
            pilot = read_pilot(arguments.pilot, study, sweep)
        text, family = describe(sweep, study, effect, pilot)
    except (GridError, TableError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    print(text)
    if arguments.out:
        figure, caption = draw(sweep, family, study.alpha)
        origin = {"study": sweep.name, "config_sha256": provenance.config_hash(sweep, study)}
        render.save(arguments.out, "fig6_plan", Drawn(figure, caption, []), origin)
        print(f"{arguments.out / 'fig6_plan.png'}: {caption}")


if __name__ == "__main__":
    main()
