"""Figures of runs: 1 learning curves, 3 final scores, 7 integrity strip, 10 epochs to a threshold.

Each function returns a matplotlib figure and its caption. The figures of contrasts are in
analysis.effects, those of test images in analysis.signs and analysis.segmentation.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures import style
from analysis.grid import RULES, Study, Sweep
from analysis.runs import histories
from analysis.runs.completeness import Ledger

Scores = dict[tuple, list[float]]

STATE_COLOURS = {"finished": "#BFE3D5", "diverged": "#F5C9A8", "missing": "#FFFFFF"}
UNFINISHED = "#E9B7CE"  # crashed, killed, short, duplicate and the like
MOST_BOXES = 12  # seeds; with more the strip has no text


def learning_curves(
    sweep: Sweep, study: Study, ledger: Ledger, history: pd.DataFrame, name: str
) -> tuple[Figure, str]:
    """Figure 1: metric ``name`` against epoch: every seed, their median, a band, early stops."""
    factor = style.display_factor(study)
    values = histories.by_cell(sweep, study, ledger, history, name)
    first = next(iter(sweep.factors), None)
    groups = style.groups(sweep, study)
    apart = len(groups) == len(sweep.cells) and len(sweep.factors) > 1
    panels = sweep.factors[first] if apart else [None]
    figure, axes = style.subplots(len(panels), 2.7, columns=min(2, len(panels)))
    place = {}
    for axis, level in zip(axes, panels, strict=True):
        own = [(lab, cells) for lab, cells in groups if level is None or cells[0][0] == level]
        for i, (label, cells) in enumerate(own):
            place |= dict.fromkeys(cells, (axis, i))
            if level is not None:  # it stands above the panel
                label = style.cell_label(sweep, study, cells[0], skip=first)
            curve = np.concatenate([values[cell] for cell in cells]) * factor
            style.draw_seeds(axis, np.arange(1, curve.shape[1] + 1), curve, i, label)
        axis.set_xlabel("Epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        if level is not None:
            axis.set_title(study.level_label(first, level))
    stopped = histories.stops(ledger, history, name)
    for cell, state, epochs, found in stopped:
        axis, i = place[cell]
        if state == "replaced":  # the run that counts is drawn as all others are
            axis.plot(epochs, found * factor, color=style.colour(i), linewidth=0.8, ls=":")
        axis.plot(epochs[-1], found[-1] * factor, "x", color="black", markersize=6, zorder=5)
    style.legend_above(figure, axes[0])
    words = style.part_name(name.split("/")[0], study)
    for axis in axes[:: min(2, len(panels))]:
        axis.set_ylabel(f"{words}{style.unit(study)}")
    style.metric_scale(axes, history[name].to_numpy() * factor)
    n, together = len(sweep.seeds), max(len(cells) for _, cells in groups)
    cross = f"Crosses: {len(stopped)} run(s) that stopped before the end. " if stopped else ""
    return figure, (
        f"{words} against epoch. Thin lines: one per run (n = {n} seeds per variant); bold: median "
        f"over runs; band: {style.band_name(n * together)} over runs; a diverged run counts "
        f"with the worst value after it stopped. {cross}{style.run_set(sweep, ledger)}"
    )


def final_scores(sweep: Sweep, study: Study, ledger: Ledger, scores: Scores) -> tuple[Figure, str]:
    """Figure 3: each run's score, a dot a run, lines joining the runs of a seed."""
    rows = len(sweep.cells)
    figure, (axis,) = style.subplots(1, 0.9 + style.row_height(sweep, 0.6) * rows)
    table = np.array([scores[cell] for cell in sweep.cells]) * style.display_factor(study)
    offsets = np.linspace(-0.16, 0.16, table.shape[1])  # by seed, so that equal scores stay apart
    places = np.arange(rows)[:, None] + offsets
    axis.plot(table, places, color="0.75", linewidth=0.6, zorder=1)
    for i, values in enumerate(table):
        look = {"color": style.colour(i), "marker": style.marker(i)}
        axis.scatter(values, places[i], s=18, zorder=2, **look)
        middle = np.median(values)
        axis.plot([middle, middle], [i - 0.26, i + 0.26], color="black", linewidth=2, zorder=3)
        if rows <= style.MOST_VARIANTS:
            shown = f"{middle:.3g}" if study.percent else f"{middle:.4f}"
            at = {"ha": "center", "va": "bottom", "fontsize": 8}
            axis.annotate(shown, (middle, i - 0.28), **at)
    style.rows(sweep, study, axis, np.arange(rows))
    axis.set_ylim(rows - 0.6, -0.7)
    name = style.metric_name(study)
    axis.set_xlabel(f"{name}{style.unit(study)}")
    style.metric_scale([axis], table, "x")
    return figure, (
        f"{name} per variant ({RULES[study.score_rule]}). One dot per run, "
        f"seeds from top to bottom (n = {len(sweep.seeds)} per variant), grey lines join runs with "
        f"the same seed, black bars and numbers: medians; "
        f"{study.direction} is better. {style.run_set(sweep, ledger)}"
    )


def integrity(sweep: Sweep, study: Study, ledger: Ledger) -> tuple[Figure, str]:
    """Figure 7: every expected cell × seed with its state, epochs and minutes."""
    rows, columns = len(sweep.cells), len(sweep.seeds)
    figure, (axis,) = style.subplots(1, 0.8 + style.row_height(sweep, 0.42) * rows)
    texts = columns <= MOST_BOXES and rows <= style.MOST_VARIANTS
    for k, entry in enumerate(ledger.entries):
        i, j = divmod(k, columns)
        box = plt.Rectangle(
            (j, i),
            1,
            1,
            facecolor=STATE_COLOURS.get(entry.state, UNFINISHED),
            edgecolor="0.6" if entry.state == "missing" else "white",
            linewidth=1.5,
            hatch="" if entry.state == "finished" else "////" if entry.state == "missing" else "..",
        )
        axis.add_patch(box)
        if texts:
            lines = [] if entry.state == "finished" else [entry.state]
            lines += [f"{entry.epochs}", f"{entry.seconds / 60:.1f}"] if entry.epochs else []
            lines += [f"from {entry.resumed}"] if entry.resumed else []
            lines += ["again"] if entry.replaced else []
            white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
            shown = white if entry.state != "finished" else None
            middle = {"ha": "center", "va": "center", "linespacing": 0.95}
            axis.text(j + 0.5, i + 0.5, "\n".join(lines), fontsize=6.5, bbox=shown, **middle)
    axis.set_xlim(0, columns)
    axis.set_ylim(rows, 0)
    every = -(-columns // MOST_BOXES)
    axis.set_xticks(np.arange(0, columns, every) + 0.5, sweep.seeds[::every])
    style.rows(sweep, study, axis, np.arange(rows) + 0.5)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_xlabel("Seed")
    states = pd.Series([e.state for e in ledger.entries]).value_counts()
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    numbers = "; numbers: epochs, minutes of training" if texts else ""
    resumed = sum(e.resumed > 0 for e in ledger.entries)
    again = sum(bool(e.replaced) for e in ledger.entries)
    return figure, (
        f"Integrity: the {rows * columns} expected runs, one box a variant and seed{numbers}; "
        f"{counted}, {resumed} of them continued from a checkpoint (“from”: its epoch), {again} "
        f"made again after an unfinished one."
    )


def epochs_until(
    sweep: Sweep, study: Study, ledger: Ledger, history: pd.DataFrame, name: str
) -> tuple[Figure, str]:
    """Figure 10: the share of runs whose ``name`` has reached a threshold, against the epoch.

    The threshold is the study's, or else the weakest variant's median at the last epoch. Runs that
    never reach it stay in the share's denominator.
    """
    values = histories.by_cell(sweep, study, ledger, history, name)
    lower = study.direction == "lower"
    finals = [np.nanmedian(v[:, -1]) for v in values.values() if not np.isnan(v[:, -1]).all()]
    declared = study.threshold is not None
    weakest = (max if lower else min)(finals, default=np.nan)
    threshold = study.threshold if declared else weakest
    figure, (axis,) = style.subplots(1, 2.8)
    groups = style.groups(sweep, study)
    for i, (label, cells) in enumerate(groups):
        curve = np.concatenate([values[cell] for cell in cells])
        reached = curve <= threshold if lower else curve >= threshold
        ever = np.maximum.accumulate(reached, axis=1)
        share = np.concatenate([[0], ever.mean(axis=0)])
        label = f"{label}: {ever[:, -1].sum()} of {len(ever)}"
        look = {"color": style.colour(i), "linestyle": style.line(i)}
        offset = 0.006 * (i - (len(groups) - 1) / 2)  # curves that agree stay visible
        axis.step(range(len(share)), share + offset, where="post", label=label, **look)
        axis.plot(len(share) - 1, share[-1] + offset, ".", color=style.colour(i))
    axis.set_xlim(0, None)
    axis.set_ylim(-0.03, 1.05)
    axis.set_xlabel("Epochs of training")
    axis.set_ylabel("Share of runs at the threshold")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.legend_above(figure, axis)
    factor, unit = (100, " %") if study.percent else (1, "")
    words = style.lower_first(style.part_name(name.split("/")[0], study))
    rule = (
        "declared beforehand" if declared else "the weakest variant's median after the last epoch"
    )
    return figure, (
        f"Epochs until the {words} first reaches {factor * threshold:.4g}{unit} ({rule}): share of "
        f"runs (n = {len(sweep.seeds)} seeds per variant) against epochs of training; the legend "
        f"counts runs that reached it, the others stay in the share. "
        f"{style.run_set(sweep, ledger)}"
    )
