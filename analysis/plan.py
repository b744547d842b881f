"""Estimate what a study can detect, before any of its runs.

    python -m analysis.plan gtsrb --effect 0.005 --pilot gtsrb_short

From the YAML alone: variants, seeds, runs, the family of contrasts, and the smallest p-value that
each test can give after Holm's correction, with a warning if it is not below alpha. With a pilot
study (its name or the folder of its tables) also the hours, the main effect that is detected with
power 0.8, and a design analysis: for each contrast, including interactions, the probability of each
grade if the true effect is 0, δ or 2δ, simulated from the pilot's residuals.
"""

import argparse
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.picture import Picture
from analysis.pages import render
from analysis.pages.formats import Table, to_markdown
from analysis.runs import provenance
from analysis.statistics import contrasts, rank_tests
from analysis.statistics.design import (
    RESAMPLES,
    SIMULATED,
    contrasts_of,
    detectable,
    fewest_seeds,
    outcome,
    power_at,
)
from analysis.statistics.pilot import Pilot, contrast_deviation, read_pilot
from analysis.statistics.sentences import format_p
from lib.spec.errors import UserError, command
from lib.spec.load import load_study
from lib.spec.study import Places, Study
from lib.spec.words import count

SEEDS = range(3, 16)  # x axis of the figure


def describe(study: Study, effect: float | None, pilot: Pilot | None) -> tuple[str, int]:
    """Return the plan as text, and the number of contrasts in the family."""
    dummy = np.zeros((len(study.variants), len(study.seeds)))
    names = [contrast.name for contrast in contrasts.build(study, dummy)]
    n, family, epochs = len(study.seeds), len(names), study.fixed.get("epochs")
    floor, runs = rank_tests.smallest_p(n), len(study.expected)
    blocks = f" × {count(len(study.blocks), 'block')}" if len(study.blocks) > 1 else ""
    unit = study.declaration.unit
    length = f" of {count(epochs, 'epoch')}" if isinstance(epochs, int) else ""
    lines = [
        f"{study.name}: {count(len(study.variants), 'variant')} × {count(n, unit)}{blocks} = "
        f"{count(runs, 'run')}{length}",
        f"metric {study.metric.key}, {study.metric.better} is better, score at "
        f"{study.rule_words}, alpha {study.alpha}",
        f"family of {family}: {'; '.join(names)}",
        f"smallest p of the signed-rank test at n = {n}: {format_p(floor)}; after Holm's "
        f"correction over {family}: {format_p(min(1.0, floor * family))}",
    ]
    if study.factors:
        least = format_p(rank_tests.smallest_p(n, n))
        lines.append(
            f"smallest p of the Mann–Whitney test, if the {unit}s are not pairs, at {n} vs {n} "
            f"runs: {least}"
        )
    if floor * family >= study.alpha:
        lines.append(
            f"WARNING: {count(n, unit)} and {count(family, 'contrast')} cannot reach p < "
            f"{format_p(study.alpha)}; use at least {fewest_seeds(family, study.alpha)} {unit}s"
        )
    for seeds, level in sorted((study.declaration.looks or {}).items()):
        least = format_p(min(1.0, rank_tests.smallest_p(seeds) * family))
        lines.append(f"planned look at {count(seeds, unit)}, α {level:g}: smallest Holm p {least}")
    if pilot:
        lines += _with_pilot(study, effect, pilot, family)
    return "\n".join(lines), family


def _with_pilot(study: Study, effect: float | None, pilot: Pilot, family: int) -> list[str]:
    amount = study.metric.show_amount
    left_out = f" ({pilot.failed} failed, left out)" if pilot.failed else ""
    lines = [
        f"pilot: {count(pilot.runs, 'run')}{left_out}, residual standard deviation of a run's "
        f"score {amount(pilot.deviation)}"
    ]
    if pilot.mismatches:
        differ = "; ".join(pilot.mismatches.values())
        lines.append(f"WARNING: the pilot's recipe differs: {differ}")
    lines += _power(study, effect, family, pilot.deviation)
    if pilot.outliers and pilot.without_outliers < pilot.deviation:
        lines.append(
            f"WARNING: the pilot has {count(pilot.outliers, 'outlier')}; without outliers, the "
            f"standard deviation is {amount(pilot.without_outliers)}, which gives:"
        )
        lines += _power(study, effect, family, pilot.without_outliers)
    return [*lines, *_hours(study, pilot), *_outcomes(study, effect, pilot)]


def _hours(study: Study, pilot: Pilot) -> list[str]:
    """Return the line with the study's hours; empty without timings or an epoch count."""
    epochs = study.fixed.get("epochs")
    if not isinstance(epochs, int) or pilot.seconds_per_epoch is None:
        return []
    if differ := [name for name in pilot.mismatches if name != "epochs"]:
        return [f"hours: not estimated because the pilot's recipe differs in {', '.join(differ)}"]
    startup = pilot.startup_seconds
    hours = len(study.expected) * (epochs * pilot.seconds_per_epoch + (startup or 0)) / 3600
    added = " (startup and test time not included: not in the pilot's tables)"
    if startup is not None:
        added = f" and {startup:.1f} s per run for startup and test"
    return [
        f"hours at the pilot's {pilot.seconds_per_epoch:.1f} s per epoch{added}: {hours:.1f}, to "
        "be divided by the number of parallel runs"
    ]


def _outcomes(study: Study, effect: float | None, pilot: Pilot) -> list[str]:
    """Return the design analysis of all contrasts: a title and a Markdown table."""
    if not study.factors or not effect:
        return []
    source = "the pilot's residuals"
    residuals = pilot.residuals
    if not residuals:
        spread = pilot.without_outliers
        residuals = [np.random.default_rng(0).normal(0, spread, (len(study.variants), 1_000))]
        source = "normal noise (the pilot has too few seeds or not all of the plan's variants)"
    assumed = replace(
        study, declaration=study.declaration.model_copy(update={"smallest_effect": effect})
    )
    n, rows = len(study.seeds), []
    for i in range(len(contrasts_of(study))):
        for true in (0.0, effect, 2 * effect):
            simulated = outcome(assumed, residuals, i, n, true)
            probabilities = {
                name.replace("_", " "): f"{p:.2f}"
                for name, p in simulated.grades.items()
                if name != "not_testable"
            }
            survives = "–" if simulated.survives is None else f"{simulated.survives:.2f}"
            row = {"contrast": simulated.contrast, "true effect": study.metric.show(true)}
            rows.append(row | probabilities | {"holds under other score rules": survives})
    table = Table("outcomes", pd.DataFrame(rows))
    return [
        f"probability of each grade with {count(n, study.declaration.unit)}, "
        f"δ = {study.metric.show_exactly(effect)}, if this contrast has the true effect and all "
        f"that are independent of it have none; {SIMULATED} studies per row, simulated from "
        f"{source}:",
        to_markdown(table),
    ]


def _power(study: Study, effect: float | None, family: int, run_deviation: float) -> list[str]:
    """Return lines with power and detectable effect, for a run's residual standard deviation."""
    deviation, n = contrast_deviation(study, run_deviation), len(study.seeds)
    lines, amount = [], study.metric.show_amount
    if effect and deviation > 0:
        power = power_at(n, effect / deviation, family, study.alpha, np.random.default_rng(0))
        exactly = study.metric.show_exactly(effect)
        lines.append(f"power for a main effect of {exactly}: {power:.2f}")
    least = detectable(n, family, study.alpha)
    if math.isfinite(least):
        lines.append(f"main effect detected with power 0.8: {amount(least * deviation)}")
    return lines


def draw(study: Study, family: int) -> Figure:
    """Draw the smallest Holm p, and the power for three effects, against the number of seeds."""
    figure, (left, right) = style.subplots(2, 2.8, columns=2, sharey=False)
    floors = [min(1.0, rank_tests.smallest_p(n) * family) for n in SEEDS]
    left.plot(SEEDS, floors, color=style.COLORS[0], marker="o")
    left.axhline(
        study.alpha, color="black", linewidth=0.8, linestyle="--", label=f"α = {study.alpha}"
    )
    left.set_yscale("log")
    left.set_ylabel(f"Smallest Holm p, family of {family}")
    left.legend(frameon=False)
    for i, effect in enumerate((1.0, 1.5, 2.0)):
        rng = np.random.default_rng(0)
        curve = [power_at(n, effect, family, study.alpha, rng) for n in SEEDS]
        look = {"color": style.color(i), "marker": style.marker(i)}
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
    """Return the figure's caption."""
    return (
        f"Smallest two-sided signed-rank p after Holm's correction over {count(family, 'contrast')}"
        f" (left) and power for one nonzero main effect, simulated with {RESAMPLES:,} studies with "
        f"normal noise per point (right), against the number of seeds. Gray: the "
        f"{len(study.seeds)} seeds of {study.name}. No measured runs enter this figure."
    )


@command
def main() -> None:
    """Estimate what a study can detect, before any of its runs."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("study", help="a study's name, or the path of its sweep's YAML")
    parser.add_argument("--study", dest="declaration", type=Path, help="the declaration's YAML")
    parser.add_argument("--pilot", help="an earlier study's name, or the folder of its tables")
    parser.add_argument(
        "--effect",
        type=float,
        help="effect to detect, above 0, in the unit of the logged metric (default: the declared "
        "smallest effect of interest)",
    )
    parser.add_argument(
        "--out", type=Path, help="folder for the planning figure (default: do not draw it)"
    )
    arguments = parser.parse_args()
    sweep = Path(arguments.study) if arguments.study.endswith((".yaml", ".yml")) else None
    name = sweep.stem if sweep else arguments.study
    study = load_study(name, sweep=sweep, declaration=arguments.declaration)
    for planned in study.sweeps:
        planned.require_clear()
    if study.declaration.repeats:
        raise UserError(
            f"{study.name} has no planned seeds (seed: {{repeat: true}}); to plan it, add a seed "
            "with its values to the sweep"
        )
    if study.declaration.looks:
        study = study.at_look(max(study.declaration.looks))  # its α is that of the last look
    effect = arguments.effect
    if effect is not None:
        low, high = study.metric.bounds
        if not 0 < effect < high - low:
            raise UserError(
                f"--effect must be above 0 and below the width of the range of "
                f"{study.metric.key}, {low:g} to {high:g}, got {effect}"
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
