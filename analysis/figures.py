"""The figures of a report: each function returns a matplotlib figure and its caption.

Numbers are those of the design's list: 1 learning curves, 3 final scores, 4 forest plot,
5 interaction, 7 integrity strip.
"""

import itertools
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis import plotting, robustness
from analysis.contrasts import Tested
from analysis.grid import RULES, Study, Sweep
from analysis.ledger import Ledger
from analysis.statement import format_p, subject
from analysis.tables import TableError

Scores = dict[tuple, list[float]]


def learning_curves(
    sweep: Sweep, study: Study, ledger: Ledger, history: pd.DataFrame
) -> tuple[Figure, str]:
    """Figure 1: validation metric against epoch, every seed, their median and a band."""
    quantity = study.metric.split("/")[-1]
    part = "val" if history.get(f"val/{quantity}", pd.Series()).notna().any() else "train"
    if f"{part}/{quantity}" not in history:
        raise TableError(f"history.csv has neither val/{quantity} nor train/{quantity} to draw")
    column, factor = f"{part}/{quantity}", plotting.display_factor(study)
    epochs = pd.RangeIndex(1, int(history["epoch"].max()) + 1, name="epoch")
    worst = 1.0 if study.direction == "lower" else 0.0
    first = next(iter(sweep.factors), None)
    panels = sweep.factors[first] if len(sweep.factors) > 1 else [None]
    figure, axes = plotting.subplots(len(panels), 3.4)
    for axis, level in zip(axes, panels, strict=True):
        cells = [c for c in sweep.cells if level is None or c[0] == level]
        for i, cell in enumerate(cells):
            runs = history[history["run_id"].isin(ledger.runs(cell))]
            table = runs.pivot(index="epoch", columns="run_id", values=column).reindex(epochs)
            table = table.fillna(worst) * factor  # gaps: a diverged run has stopped
            axis.plot(table, color=plotting.colour(i), linewidth=0.6, alpha=0.45)
            low, high = plotting.band(table)
            axis.fill_between(
                table.index, low, high, color=plotting.colour(i), alpha=0.15, linewidth=0
            )
            axis.plot(
                table.median(axis=1),
                color=plotting.colour(i),
                linewidth=2,
                linestyle=["-", "--", "-.", ":"][i % 4],
                marker=plotting.marker(i) if len(table) <= 12 else None,
                label=plotting.cell_label(
                    sweep, study, cell, skip=first if level is not None else None
                ),
            )
        axis.set_xlabel("Epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if level is not None:
            axis.set_title(study.level_label(first, level))
    plotting.legend_above(figure, axes[0])
    name = plotting.part_name(part, study)
    plotting.metric_axis(axes, history[column].to_numpy() * factor, f"{name}{plotting.unit(study)}")
    n = len(sweep.seeds)
    band = "minimum to maximum" if n <= 5 else "quartiles"
    return figure, (
        f"{name} against epoch. Thin lines: one per seed (n = {n} per variant); bold: "
        f"median over seeds; band: {band} over seeds; a diverged run counts with the worst value "
        f"after it stopped. {plotting.run_set(sweep, ledger)}"
    )


def final_scores(sweep: Sweep, study: Study, ledger: Ledger, scores: Scores) -> tuple[Figure, str]:
    """Figure 3: each run's score, a dot a run, lines joining the runs of a seed."""
    figure, (axis,) = plotting.subplots(1, 1.1 + 1.35 * len(sweep.cells))
    table = np.array([scores[cell] for cell in sweep.cells]) * plotting.display_factor(study)
    offsets = np.linspace(-0.12, 0.12, table.shape[1])  # by seed, so that equal scores stay apart
    places = np.arange(len(table))[:, None] + offsets
    axis.plot(places, table, color="0.75", linewidth=0.7, zorder=1)
    for i, values in enumerate(table):
        style = {"color": plotting.colour(i), "marker": plotting.marker(i)}
        axis.scatter(places[i], values, s=24, zorder=2, **style)
        middle = np.median(values)
        axis.plot([i - 0.22, i + 0.22], [middle, middle], color="black", linewidth=2, zorder=3)
        axis.annotate(
            f"{middle:.3g}" if study.percent else f"{middle:.4f}",
            (i + 0.25, middle),
            va="center",
            fontsize=8,
            annotation_clip=False,
        )
    axis.set_xticks(
        range(len(table)), [plotting.tick_lines(sweep, study, cell, 18) for cell in sweep.cells]
    )
    axis.set_xlim(-0.5, len(table) - 0.3)
    name = plotting.metric_name(study)
    plotting.metric_axis([axis], table, f"{name}{plotting.unit(study)}")
    return figure, (
        f"{name} per variant ({RULES[study.score_rule]}). One dot per run, "
        f"seeds from left to right (n = {len(sweep.seeds)} per variant), grey lines join runs with "
        f"the same seed, black bars and numbers: medians; "
        f"{study.direction} is better. {plotting.run_set(sweep, ledger)}"
    )


def forest(study: Study, tested: list[Tested], ledger: Ledger, sweep: Sweep) -> tuple[Figure, str]:
    """Figure 4: difference with exact interval for every primary contrast, with its numbers."""
    factor, n = plotting.display_factor(study), len(tested)
    figure, (axis, side) = plotting.subplots(2, 3.6, 1.3 + 0.62 * n, width_ratios=(3, 2))
    side.set_axis_off()
    delta = study.smallest_effect
    if delta:
        axis.axvspan(-delta * factor, delta * factor, color="0.9", label="±δ, set beforehand")
        axis.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    axis.axvline(0, color="black", linewidth=0.8)
    for i, t in enumerate(tested):
        estimate, low, high = (
            factor * v for v in (t.interval.estimate, t.interval.low, t.interval.high)
        )
        axis.plot([low, high], [i, i], color=plotting.COLOURS[0], linewidth=2)
        axis.plot(estimate, i, "o", color=plotting.COLOURS[0])
        cells = (t.n, format_p(t.test.p), format_p(t.p_holm), f"{t.rank_biserial:+.2f}")
        for x, cell in enumerate(cells):
            side.text(x, i, str(cell).replace("-", "−"), ha="center", va="center")
    for x, heading in enumerate(("n", "p", "Holm p", "r")):
        side.text(x, -0.5, heading, ha="center", va="center")
    side.set_xlim(-0.5, 3.5)
    axis.set_yticks(range(n), [plotting.wrap(subject(t.contrast, study)) for t in tested])
    axis.set_ylim(n - 0.5, -0.5)
    unit = " (percentage points)" if factor == 100 else ""
    bounds = factor * np.abs([(t.interval.low, t.interval.high) for t in tested])
    threshold = factor * delta if delta else bounds[bounds > 0].min(initial=np.inf)
    wide = bool(bounds.max() > 20 * threshold)
    if wide:  # single runs far off: a linear axis would hide all the rest
        plotting.symmetric_log(axis, threshold)
    axis.set_xlabel(f"Difference in {plotting.lower_first(plotting.metric_name(study))}{unit}")
    confidence = 100 * tested[0].interval.confidence
    test = "signed-rank test" if tested[0].paired else "Mann–Whitney test"
    pairs = "matched-pairs " if tested[0].paired else ""
    return figure, (
        f"Primary contrasts: Hodges–Lehmann difference and exact {confidence:.3g} % interval over "
        f"seeds (not corrected for several comparisons), level 2 minus level 1; p: exact "
        f"{test}, Holm p: corrected over {n}; r: {pairs}rank-biserial "
        f"correlation. Negative: level 2 has the lower value; {study.direction} is better. "
        f"{f'The axis is logarithmic beyond ±{threshold:g}. ' if wide else ''}"
        f"{plotting.run_set(sweep, ledger)}"
    )


def interactions(
    sweep: Sweep, study: Study, ledger: Ledger, scores: Scores
) -> tuple[Figure, str] | None:
    """Figure 5: the metric against one factor's level, a line per level of another; also on log.

    None when the sweep has fewer than two factors of two levels.
    """
    two = [i for i, levels in enumerate(sweep.factors.values()) if len(levels) == 2]
    pairs = list(itertools.combinations(two, 2))
    if not pairs:
        return None
    names = list(sweep.factors)
    table = np.array([scores[c] for c in sweep.cells])
    table = table.reshape(*(len(levels) for levels in sweep.factors.values()), -1)
    transformed, log_name = robustness.log_scale(table, study), robustness.log_scale_name(study)
    panels = [
        (pair, *view)
        for pair in pairs
        for view in (
            (
                table * plotting.display_factor(study),
                f"{plotting.metric_name(study)}{plotting.unit(study)}",
            ),
            (transformed, log_name),
        )
    ]
    figure, axes = plt.subplots(len(pairs), 2, figsize=(7.2, 3.1 * len(pairs)), squeeze=False)
    for axis, ((a, b), values, label) in zip(axes.ravel(), panels, strict=True):
        others = tuple(i for i in range(len(names)) if i not in (a, b))
        mean = values.mean(axis=others)  # (2, 2, seeds)
        for i, level in enumerate(sweep.factors[names[a]]):
            axis.plot([0, 1], mean[i], color=plotting.colour(i), linewidth=0.5, alpha=0.4)
            axis.plot(
                [0, 1],
                np.median(mean[i], axis=1),
                color=plotting.colour(i),
                marker=plotting.marker(i),
                linestyle=["-", "--"][i],
                linewidth=2,
                label=study.level_label(names[a], level),
            )
        ticks = [study.level_label(names[b], v) for v in sweep.factors[names[b]]]
        axis.set_xticks([0, 1], [textwrap.fill(tick, 18) for tick in ticks])
        axis.set_xlim(-0.25, 1.25)
        axis.set_ylabel(label)
    plotting.legend_above(figure, axes[0, 0])
    return figure, (
        f"Interaction: median over n = {len(sweep.seeds)} seeds (bold), each seed (thin); left in "
        f"the metric's unit, right as {log_name}. Lines that are parallel on one scale need not be "
        f"so on the other. {plotting.run_set(sweep, ledger)}"
    )


def integrity(sweep: Sweep, study: Study, ledger: Ledger) -> tuple[Figure, str]:
    """Figure 7: every expected cell × seed with its state, epochs and minutes."""
    rows, columns = len(sweep.cells), len(sweep.seeds)
    figure, (axis,) = plotting.subplots(1, 2.6 + 0.62 * columns, height=0.9 + 0.5 * rows)
    for k, entry in enumerate(ledger.entries):
        i, j = divmod(k, columns)
        colour = plotting.STATE_COLOURS[entry.state]
        axis.add_patch(
            plt.Rectangle((j, i), 1, 1, facecolor=colour, edgecolor="white", linewidth=2)
        )
        word = "" if entry.state == "finished" else f"{entry.state}\n"
        text = f"{word}{entry.epochs} ep\n{entry.seconds / 60:.1f} min" if entry.epochs else word
        axis.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=7)
    axis.set_xlim(0, columns)
    axis.set_ylim(rows, 0)
    axis.set_xticks(np.arange(columns) + 0.5, sweep.seeds)
    names = [plotting.cell_label(sweep, study, cell).replace(", ", "\n") for cell in sweep.cells]
    axis.set_yticks(np.arange(rows) + 0.5, names)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_xlabel("Seed")
    states = pd.Series([e.state for e in ledger.entries]).value_counts()
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    return figure, (
        f"Integrity: the {rows * columns} expected runs, one box a variant and seed, with epochs "
        f"and minutes of training; {counted}."
    )
