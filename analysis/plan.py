"""Say what a study can find out, before it costs machine hours.

    python -m analysis.plan gtsrb --effect 0.005 --pilot gtsrb_short

From the YAML alone: variants, seeds, runs, the family of contrasts, the smallest p that each test
can give after Holm's correction, with a warning where that is not below alpha. With a pilot study
(its name or the folder of its tables) also the power for a stated effect, the effect that is found
with power 0.8, and the hours.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.picture import Picture
from analysis.pages import render
from analysis.runs import provenance
from analysis.statistics import contrasts, rank_tests
from analysis.statistics.design import (
    RESAMPLES,
    Pilot,
    contrast_deviation,
    detectable,
    fewest_seeds,
    power_at,
    read_pilot,
)
from analysis.statistics.sentences import format_p
from lib.spec.errors import UserError, command
from lib.spec.metric import count
from lib.spec.study import Places, Study, load_study

SEEDS = range(3, 16)  # shown in figure 6


def describe(study: Study, effect: float | None, pilot: Pilot | None) -> tuple[str, int]:
    """Return the plan in words, and the size of the family."""
    dummy = np.zeros((len(study.variants), len(study.seeds)))
    names = [contrast.name for contrast in contrasts.build(study, dummy)]
    n, family, epochs = len(study.seeds), len(names), study.fixed.get("epochs")
    floor, runs = rank_tests.smallest_p(n), len(study.expected)
    lines = [
        f"{study.name}: {count(len(study.variants), 'variant')} × {count(n, 'seed')} = "
        f"{count(runs, 'run')}" + (f" of {count(epochs, 'epoch')}" if epochs else ""),
        f"metric {study.metric.key}, {study.metric.better} is better, score at "
        f"{study.rule_words}, alpha {study.alpha}",
        f"family of {family}: {'; '.join(names)}",
        f"smallest p of the signed-rank test at n = {n}: {format_p(floor)}; after Holm's "
        f"correction over {family}: {format_p(min(1.0, floor * family))}",
    ]
    if study.factors:
        least = format_p(rank_tests.smallest_p(n, n))
        lines.append(f"smallest p of Mann–Whitney (secondary) at {n} v {n}: {least}")
    if floor * family >= study.alpha:
        lines.append(
            f"WARNING: {count(n, 'seed')} and {count(family, 'contrast')} cannot reach p < "
            f"{format_p(study.alpha)}: at least {fewest_seeds(family, study.alpha)} seeds are "
            "needed"
        )
    if pilot:
        lines += _with_pilot(study, effect, pilot, family)
    return "\n".join(lines), family


def _with_pilot(study: Study, effect: float | None, pilot: Pilot, family: int) -> list[str]:
    amount = study.metric.show_amount
    lines = [
        f"pilot: {count(pilot.runs, 'run')}, standard deviation of a run within variant and seed "
        f"{amount(pilot.deviation)}"
    ]
    if pilot.mismatches:
        lines.append(f"WARNING: the pilot's recipe differs: {'; '.join(pilot.mismatches)}")
    lines += _power(study, effect, family, pilot.deviation)
    if pilot.outliers and pilot.without_outliers < pilot.deviation:
        lines.append(
            f"WARNING: the pilot has {count(pilot.outliers, 'outlier')}; without, the deviation "
            f"would be {amount(pilot.without_outliers)}, and then:"
        )
        lines += _power(study, effect, family, pilot.without_outliers)
    epochs = study.fixed.get("epochs")
    if epochs and pilot.seconds_per_epoch is not None:
        hours = len(study.expected) * epochs * pilot.seconds_per_epoch / 3600
        lines.append(
            f"hours at the pilot's {pilot.seconds_per_epoch:.1f} s per epoch: {hours:.1f}, "
            "divided by the number of runs at a time"
        )
    return lines


def _power(study: Study, effect: float | None, family: int, run_deviation: float) -> list[str]:
    """Say what the study finds when a run's score has this standard deviation."""
    deviation, n = contrast_deviation(study, run_deviation), len(study.seeds)
    lines, amount = [], study.metric.show_amount
    if effect and deviation > 0:
        found = power_at(n, effect / deviation, family, study.alpha, np.random.default_rng(0))
        lines.append(f"power for a main effect of {amount(effect)}: {found:.2f}")
    least = detectable(n, family, study.alpha)
    if math.isfinite(least):
        lines.append(f"found with power 0.8: {amount(least * deviation)}")
    return lines


def draw(study: Study, family: int) -> Figure:
    """Figure 6: smallest p after Holm, and power for three effects, against the number of seeds."""
    figure, (left, right) = style.subplots(2, 2.8, columns=2, sharey=False)
    floors = [min(1.0, rank_tests.smallest_p(n) * family) for n in SEEDS]
    left.plot(SEEDS, floors, color=style.COLOURS[0], marker="o")
    left.axhline(
        study.alpha, color="black", linewidth=0.8, linestyle="--", label=f"α = {study.alpha}"
    )
    left.set_yscale("log")
    left.set_ylabel(f"Smallest Holm p, family of {family}")
    left.legend(frameon=False)
    for i, effect in enumerate((1.0, 1.5, 2.0)):
        rng = np.random.default_rng(0)
        curve = [power_at(n, effect, family, study.alpha, rng) for n in SEEDS]
        look = {"color": style.colour(i), "marker": style.marker(i)}
        right.plot(SEEDS, curve, label=f"{effect:g}", **look)
    right.axhline(0.8, color="black", linewidth=0.8, linestyle="--")
    right.set_ylim(0, 1.02)
    right.set_ylabel("Power")
    right.legend(frameon=False, title="Effect (SD)", title_fontsize=8)
    for axis in (left, right):
        axis.set_xlabel("Seeds per variant")
        axis.axvline(len(study.seeds), color="0.6", linewidth=4, alpha=0.4)
    return figure


def caption(study: Study, family: int) -> str:
    """Return figure 6's caption."""
    return (
        f"Smallest two-sided signed-rank p after Holm's correction over {count(family, 'contrast')}"
        f" (left) and power for one real main effect, simulated with {RESAMPLES:,} normal studies "
        f"per point (right), against the number of seeds. Grey: the {len(study.seeds)} of "
        f"{study.name}. No runs are behind it."
    )


@command
def main() -> None:
    """Say what a study can find out, before it costs machine hours."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("study", help="a study's name, or the path of its sweep's YAML")
    parser.add_argument("--study", dest="declaration", type=Path, help="the declaration's YAML")
    parser.add_argument("--pilot", help="an earlier study's name, or the folder of its tables")
    parser.add_argument(
        "--effect",
        type=float,
        help="effect to find, above 0, in the metric's own unit (default: the smallest effect of "
        "interest that the study declares)",
    )
    parser.add_argument("--out", type=Path, help="folder for figure 6 (default: no figure)")
    arguments = parser.parse_args()
    sweep = Path(arguments.study) if arguments.study.endswith((".yaml", ".yml")) else None
    name = sweep.stem if sweep else arguments.study
    study = load_study(name, sweep=sweep, declaration=arguments.declaration)
    effect = arguments.effect
    if effect is not None:
        low, high = study.metric.bounds
        if not 0 < effect < high - low:
            raise UserError(
                f"--effect {effect}: must be above 0 and below the range of {study.metric.key}, "
                f"{low:g} to {high:g}; it is in the metric's own unit"
            )
    effect = effect or study.smallest_effect
    pilot = None
    if arguments.pilot:
        folder = Path(arguments.pilot)
        pilot = read_pilot(folder if folder.is_dir() else Places().tables(arguments.pilot), study)
    text, family = describe(study, effect, pilot)
    print(text)
    if arguments.out:
        picture = Picture("fig6_plan", caption(study, family), lambda: draw(study, family), [])
        origin = {"study": study.name, "config_sha256": provenance.config_hash(study)}
        render.save(arguments.out, picture, origin)
        print(f"{arguments.out / 'fig6_plan.png'}: {picture.caption}")


if __name__ == "__main__":
    main()
