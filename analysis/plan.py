"""Say what a study can find out, before it costs machine hours.

    python -m analysis.plan gtsrb --effect 0.005 --pilot gtsrb_short

From the YAML alone: variants, seeds, runs, the family of contrasts, the smallest p that each test
can give after Holm's correction, with a warning where that is not below alpha. With a pilot study
(its name or the folder of its tables) also a design analysis: for each contrast, interactions
included, how often such a study ends in each grade when the true effect is 0, δ or 2δ, simulated
from the pilot's residuals; the effect of a factor that is found with power 0.8; and the hours.
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
from analysis.pages.tables import Table, to_markdown
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
from lib.spec.metric import count
from lib.spec.study import Places, Study, load_study

SEEDS = range(3, 16)  # shown in the figure


def describe(study: Study, effect: float | None, pilot: Pilot | None) -> tuple[str, int]:
    """Return the plan in words, and the size of the family."""
    if study.declaration.looks:
        study = study.at_look(max(study.declaration.looks))  # α of the last look
    dummy = np.zeros((len(study.variants), len(study.seeds)))
    names = [contrast.name for contrast in contrasts.build(study, dummy)]
    n, family, epochs = len(study.seeds), len(names), study.fixed.get("epochs")
    floor, runs = rank_tests.smallest_p(n), len(study.expected)
    blocks = f" × {count(len(study.blocks), 'block')}" if len(study.blocks) > 1 else ""
    lines = [
        f"{study.name}: {count(len(study.variants), 'variant')} × {count(n, 'seed')}{blocks} = "
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
    for seeds, level in sorted((study.declaration.looks or {}).items()):
        least = format_p(min(1.0, rank_tests.smallest_p(seeds) * family))
        lines.append(
            f"planned look at {count(seeds, 'seed')}, α {level:g}: smallest Holm p {least}"
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
        differ = "; ".join(pilot.mismatches.values())
        lines.append(f"WARNING: the pilot's recipe differs: {differ}")
    lines += _power(study, effect, family, pilot.deviation)
    if pilot.outliers and pilot.without_outliers < pilot.deviation:
        lines.append(
            f"WARNING: the pilot has {count(pilot.outliers, 'outlier')}; without, the deviation "
            f"would be {amount(pilot.without_outliers)}, and then:"
        )
        lines += _power(study, effect, family, pilot.without_outliers)
    return [*lines, *_hours(study, pilot), *_outcomes(study, effect, pilot)]


def _hours(study: Study, pilot: Pilot) -> list[str]:
    """Say how long the study takes, unless the pilot's runs did something else."""
    epochs = study.fixed.get("epochs")
    if not epochs or pilot.seconds_per_epoch is None:
        return []
    if differ := [name for name in pilot.mismatches if name != "epochs"]:
        return [f"hours: not estimated, since the pilot's recipe differs in {', '.join(differ)}"]
    startup = pilot.startup_seconds
    hours = len(study.expected) * (epochs * pilot.seconds_per_epoch + (startup or 0)) / 3600
    added = ", without the start of a run, which the pilot's tables do not tell"
    if startup is not None:
        added = f" and {startup:.1f} s per run to start and test"
    return [
        f"hours at the pilot's {pilot.seconds_per_epoch:.1f} s per epoch{added}: {hours:.1f}, "
        "divided by the number of runs at a time"
    ]


def _outcomes(study: Study, effect: float | None, pilot: Pilot) -> list[str]:
    """Return the table of the design analysis for each contrast, as lines of Markdown."""
    if not study.factors or not effect:
        return []
    source = "the pilot's residuals"
    rules = pilot.residuals
    if not rules:
        spread = pilot.without_outliers
        rules = [np.random.default_rng(0).normal(0, spread, (len(study.variants), 1_000))]
        source = "normal noise of the pilot's spread (it has not all of the plan's variants)"
    assumed = replace(
        study, declaration=study.declaration.model_copy(update={"smallest_effect": effect})
    )
    n, rows = len(study.seeds), []
    for i in range(len(contrasts_of(study))):
        for true in (0.0, effect, 2 * effect):
            one = outcome(assumed, rules, i, n, true)
            probabilities = {
                name.replace("_", " "): f"{p:.2f}"
                for name, p in one.grades.items()
                if name != "not_testable"
            }
            survives = "–" if one.survives is None else f"{one.survives:.2f}"
            row = {"contrast": one.contrast, "true effect": study.metric.show(true)}
            rows.append(row | probabilities | {"survives other rules": survives})
    table = Table("outcomes", pd.DataFrame(rows))
    return [
        f"probability of each grade with {count(n, 'seed')}, δ = {study.metric.show_amount(effect)}"
        f", when one contrast has the true effect and the others none; {SIMULATED} studies per "
        f"row, from {source}:",
        to_markdown(table),
    ]


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
    """Smallest p after Holm, and power for three effects, against the number of seeds."""
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
    """Return the figure's caption."""
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
    parser.add_argument(
        "--out", type=Path, help="folder for the planning figure (default: no figure)"
    )
    arguments = parser.parse_args()
    sweep = Path(arguments.study) if arguments.study.endswith((".yaml", ".yml")) else None
    name = sweep.stem if sweep else arguments.study
    study = load_study(name, sweep=sweep, declaration=arguments.declaration)
    for one in study.sweeps:
        one.require_clear()
    if study.declaration.repeats:
        raise UserError(
            f"{study.name} has no seeds that are planned (seed: {{repeat: true}}), so nothing can "
            "be said of them; put a seed with its values into the sweep to plan it"
        )
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
