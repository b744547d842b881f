"""Figures of scores: final scores, interactions, run overview, probability of improvement."""

import itertools
import textwrap
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from analysis.figures import style
from analysis.runs.data import StudyData
from analysis.statistics import rank_tests
from lib.spec.metric import Metric
from lib.spec.words import capitalize, count

STATE_COLORS = {"finished": "#BFE3D5", "diverged": "#F5C9A8", "missing": "#FFFFFF"}
UNFINISHED = "#E9B7CE"  # crashed, killed, short, duplicate and so on
MOST_BOXES = 12  # with more seeds the boxes have no text
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def final_scores(data: StudyData) -> Figure:
    """Plot each run's score, one dot per run; lines join the runs with the same seed, if paired.

    Failed runs are crosses at the worse edge, because their scores would stretch the axis.
    """
    study, metric = data.study, data.study.metric
    table = metric.display(data.trained)
    count_rows = len(table)
    figure, (axis,) = style.subplots(1, 0.9 + style.row_height(study, 0.6) * count_rows)
    offsets = np.linspace(-0.16, 0.16, table.shape[1])  # by seed, so that equal scores stay apart
    heights = np.arange(count_rows)[:, None] + offsets
    if data.paired:
        axis.plot(table, heights, color="0.75", linewidth=0.6, zorder=1)
    for i, values in enumerate(table):
        look = {"color": style.color(i), "marker": style.marker(i)}
        axis.scatter(values, heights[i], s=18, zorder=2, **look)
        if data.failed[i].any():
            mark_failed(axis, metric, heights[i][data.failed[i]], look["color"])
        if data.failed[i].all():
            continue
        middle = np.nanmedian(values)
        axis.plot([middle, middle], [i - 0.26, i + 0.26], color="black", linewidth=2, zorder=3)
        if count_rows <= style.MOST_VARIANTS:
            at = {"ha": "center", "va": "bottom", "fontsize": 8, "zorder": 4}
            at["path_effects"] = [withStroke(linewidth=2.5, foreground="white")]  # over gray lines
            axis.annotate(metric.show(np.nanmedian(data.trained[i])), (middle, i - 0.28), **at)
    if data.failed.any():
        axis.margins(x=0.14)  # space for the crosses and their number
    style.rows(study, axis, np.arange(count_rows))
    axis.set_ylim(count_rows - 0.6, -0.7)
    axis.set_xlabel(metric.axis)
    style.metric_scale([axis], table, metric, "x")
    return figure


def mark_failed(axis: Axes, metric: Metric, heights: np.ndarray, color: str) -> None:
    """Draw failed runs at these y coordinates as crosses at the worse edge of the x axis."""
    edge = 1.0 if metric.sign < 0 else 0.0
    axis.plot(
        np.full(len(heights), edge),
        heights,
        "x",
        color=color,
        markersize=6,
        markeredgewidth=1.6,
        transform=axis.get_yaxis_transform(),
        clip_on=False,
        zorder=5,
    )
    axis.annotate(
        f"{len(heights)} failed",
        (edge, heights.mean()),
        xycoords=axis.get_yaxis_transform(),
        xytext=(-7 if edge else 7, 0),
        textcoords="offset points",
        ha="right" if edge else "left",
        va="center",
        fontsize=7,
    )


def final_scores_caption(data: StudyData) -> str:
    """Return the figure's caption."""
    study, metric, unit = data.study, data.study.metric, data.study.declaration.unit
    number = int(data.failed.sum())
    failed = f"Crosses at the edge: {count(number, 'failed run')}. " if number else ""
    over = " without failed runs" if number else ""
    lines = f"gray lines join runs with the same {unit}; " if data.paired else ""
    return (
        f"{capitalize(metric.title)} per variant ({study.rule_words}). One dot per run, {unit}s "
        f"from top to bottom (n = {len(study.seeds)} per variant); {lines}black bars and numbers: "
        f"medians{over}; {metric.better} is better. {failed}"
        f"{style.run_set(data)}"
    )


def published_scores(data: StudyData) -> Figure:
    """Plot each run's score by seed, with lines for the published scores."""
    study, metric = data.study, data.study.metric
    figure, (axis,) = style.subplots(1, 3.6)
    values, middle = data.trained[0], float(np.nanmedian(data.trained[0]))
    ends = [-0.6, len(values) - 0.4]
    for i, (words, published) in enumerate(study.declaration.published_scores.items(), start=1):
        look = {"color": style.color(i), "linestyle": style.line(i), "linewidth": 1.4}
        axis.plot(ends, [metric.quote(published)] * 2, label=words, **look)
    axis.plot(ends, [metric.quote(middle)] * 2, color="black", linewidth=0.8, label="our median")
    note = {"fontsize": 6.5, "ha": "center", "textcoords": "offset points", "zorder": 4}
    for x, value in enumerate(values):
        if np.isnan(value):
            shown = {"xycoords": ("data", "axes fraction"), "fontsize": 6.5, "ha": "center"}
            axis.annotate("failed", (x, 0.01), **shown)
            continue
        y, above = metric.quote(value), metric.quote(value) >= metric.quote(middle)
        axis.scatter(x, y, s=24, color=style.color(0), zorder=3)
        look = note | {"va": "bottom" if above else "top", "xytext": (0, 4 if above else -4)}
        axis.annotate(metric.show_quoted(value), (x, y), **look)
    axis.set_xticks(range(len(values)), study.seeds)
    axis.set_xlim(*ends)
    axis.margins(y=0.12)
    axis.set_xlabel(capitalize(study.declaration.unit))
    axis.set_ylabel(metric.quoted_axis)
    axis.ticklabel_format(axis="y", useOffset=False)
    style.legend_above(figure, axis)
    return figure


def published_scores_caption(data: StudyData) -> str:
    """Return the figure's caption."""
    study, metric = data.study, data.study.metric
    return (
        f"{metric.quoted_axis} of every run ({study.rule_words}): {study.variant_label(())}, one "
        f"dot per {study.declaration.unit} (n = {len(study.seeds)}); thin black line: their "
        f"median, {metric.show_quoted(float(np.nanmedian(data.trained)))}; other lines: "
        f"published scores. {style.run_set(data)}"
    )


def integrity(data: StudyData) -> Figure:
    """Plot the state, epochs and minutes of each expected run, by variant and seed."""
    study, entries = data.study, data.completeness.entries
    rows, columns = len(study.blocks) * len(study.variants), len(study.seeds)
    figure, (axis,) = style.subplots(1, 0.8 + style.row_height(study, 0.42) * rows)
    texts = _has_texts(data)
    for k, entry in enumerate(entries):
        i, j = divmod(k, columns)
        box = plt.Rectangle(
            (j, i),
            1,
            1,
            facecolor=STATE_COLORS.get(entry.state, UNFINISHED),
            edgecolor="0.6" if entry.state == "missing" else "white",
            linewidth=1.5,
            hatch="" if entry.state == "finished" else "////" if entry.state == "missing" else "..",
        )
        axis.add_patch(box)
        if texts:
            lines = [] if entry.state == "finished" else [entry.state]
            lines += [f"{entry.epochs}"] if entry.epochs else []
            lines += [f"{entry.seconds / 60:.1f}"] if entry.epochs and entry.seconds else []
            lines += [f"from {entry.resumed}"] if entry.resumed else []
            lines += ["rerun"] if entry.replaced else []
            white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
            shown = white if entry.state != "finished" else None
            middle = {"ha": "center", "va": "center", "linespacing": 0.95}
            axis.text(j + 0.5, i + 0.5, "\n".join(lines), fontsize=6.5, bbox=shown, **middle)
    axis.set_xlim(0, columns)
    axis.set_ylim(rows, 0)
    every = -(-columns // MOST_BOXES)
    axis.set_xticks(np.arange(0, columns, every) + 0.5, study.seeds[::every])
    if len(study.blocks) > 1:
        names = [study.block_name(block) for block in study.blocks]
        labels = [f"{name}: {study.variant_label(v)}" for name in names for v in study.variants]
        axis.set_yticks(np.arange(rows) + 0.5, labels, fontsize=6.5)
    else:
        style.rows(study, axis, np.arange(rows) + 0.5)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_xlabel(capitalize(study.declaration.unit))
    return figure


def _has_texts(data: StudyData) -> bool:
    few = len(data.study.seeds) <= MOST_BOXES
    return few and len(data.study.variants) <= style.MOST_VARIANTS


def integrity_caption(data: StudyData) -> str:
    """Return the figure's caption."""
    entries = data.completeness.entries
    minutes = "minutes of training" if "seconds" in data.history else "minutes of the run"
    numbers = f"; numbers: epochs, {minutes}" if _has_texts(data) else ""
    blocks = "block, " if len(data.study.blocks) > 1 else ""
    resumed = sum(e.resumed > 0 for e in entries)
    rerun = sum(bool(e.replaced) for e in entries)
    compared = f" of the {data.study.declaration.unit}s compared" * (
        "seeds" in data.completeness.waivable
    )
    since = " (“from”: after this epoch)" if resumed and _has_texts(data) else ""
    return (
        f"Run overview: {count(len(entries), 'expected run')}{compared}, one box per "
        f"{blocks}variant and {data.study.declaration.unit}{numbers}. "
        f"{_states(data)}; {resumed} resumed from a "
        f"checkpoint{since}, {rerun} rerun."
    )


def _states(data: StudyData) -> str:
    """Return the number of runs per state: "27 finished (1 of them collapsed), 1 diverged"."""
    entries = data.completeness.entries
    failures = {} if data.completeness.problems else data.failures
    parts = []
    for state, number in pd.Series([e.state for e in entries]).value_counts().items():
        reasons = [failures.get(run, state) for e in entries if e.state == state for run in e.runs]
        failed = Counter(reason for reason in reasons if reason != state)
        shown = ", ".join(f"{many} of them {reason}" for reason, many in failed.items())
        parts.append(f"{number} {state}" + f" ({shown})" * bool(shown))
    return ", ".join(parts)


def _two_level_pairs(data: StudyData) -> list[tuple[int, int]]:
    two = [i for i, levels in enumerate(data.study.factors.values()) if len(levels) == 2]
    return list(itertools.combinations(two, 2))


def has_interactions(data: StudyData) -> bool:
    """Return whether the study has two factors with two levels each."""
    return bool(_two_level_pairs(data))


def interactions(data: StudyData) -> Figure:
    """Plot the metric against the levels of one factor, with one line per level of another.

    A second panel uses the metric's second scale, if it has one.
    """
    study, metric, names = data.study, data.study.metric, list(data.study.factors)
    shape = (*map(len, study.factors.values()), -1)
    views = [(metric.display(data.trained).reshape(shape), metric.axis)]
    if (rescaled := metric.rescale(data.scores)) is not None:
        rescaled = np.where(data.failed, np.nan, rescaled)
        views.append((rescaled.reshape(shape), metric.scale_name))
    pairs = _two_level_pairs(data)
    panels = [(pair, *view) for pair in pairs for view in views]
    figure, axes = style.subplots(len(panels), 2.7, columns=len(views), sharey=False)
    for axis, ((a, b), values, label) in zip(axes, panels, strict=True):
        others = tuple(i for i in range(len(names)) if i not in (a, b))
        mean = values.mean(axis=others)  # (2, 2, seeds)
        for i, level in enumerate(study.factors[names[a]]):
            if data.paired:
                axis.plot([0, 1], mean[i], color=style.color(i), linewidth=0.5, alpha=0.4)
            axis.plot(
                [0, 1],
                [np.nanmedian(v) if np.isfinite(v).any() else np.nan for v in mean[i]],
                color=style.color(i),
                marker=style.marker(i),
                linestyle=style.line(i),
                linewidth=1.8,
                label=study.level_label(names[a], level),
            )
        ticks = [study.level_label(names[b], v) for v in study.factors[names[b]]]
        axis.set_xticks([0, 1], [textwrap.fill(tick, 14) for tick in ticks])
        axis.set_xlim(-0.3, 1.3)
        axis.set_ylabel(label)
        if len(pairs) > 1:
            axis.legend(frameon=False)
    if len(pairs) == 1:
        style.legend_above(figure, axes[0])
    return figure


def interactions_caption(data: StudyData) -> str:
    """Return the figure's caption."""
    scale = data.study.metric.scale_name
    number = int(data.failed.sum())
    failed = f"Excludes {count(number, 'failed run')}. " if number else ""
    sides = f"; left: in the metric's unit, right: {scale}" if scale else ""
    warning = "Parallel lines on one scale may not be parallel on the other. " if scale else ""
    unit = data.study.declaration.unit
    n = count(len(data.study.seeds), unit)
    each = f"median over n = {n} (bold) and each {unit} (thin)"
    shown = each if data.paired else f"median, n = {n}"
    return f"Interaction: {shown}{sides}. {failed}{warning}{style.run_set(data)}"


def improvement(data: StudyData) -> Figure:
    """Plot how often a run of one variant is better than a run of another, for all pairs."""
    study, scores = data.study, data.scores
    variants = len(scores)
    better = np.full((variants, variants), np.nan)
    for i, j in itertools.permutations(range(variants), 2):
        a12 = rank_tests.a12(scores[j], scores[i])
        better[i, j] = a12 if study.metric.sign > 0 else 1 - a12
    few = variants <= style.MOST_VARIANTS  # larger matrices have colors only
    figure, (axis,) = style.subplots(1, 0.7 + 0.58 * variants if few else 3.6)
    picture = axis.imshow(better, cmap="PuOr_r", vmin=0, vmax=1, aspect="auto")
    if few:
        for i, j in itertools.permutations(range(variants), 2):
            shade = "white" if abs(better[i, j] - 0.5) > 0.35 else "black"
            axis.text(j, i, f"{better[i, j]:.2f}", ha="center", va="center", color=shade)
        axis.set_xticks(range(variants), LETTERS[:variants])
        labels = [style.tick_lines(study, variant, 22) for variant in study.variants]
        labels = [f"{label}   {code}" for label, code in zip(labels, LETTERS, strict=False)]
        axis.set_yticks(range(variants), labels, linespacing=1.05)
    else:
        axis.set(xlabel="Variant, in the order of the table", ylabel="Variant")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    bar = figure.colorbar(picture, ax=axis, shrink=0.8, aspect=12)
    bar.set_label("P(row is better)")
    return figure


def improvement_caption(data: StudyData) -> str:
    """Return the figure's caption."""
    n = len(data.study.seeds)
    return (
        f"Probability of improvement: the share of the {n} × {n} pairs of runs in which the row's "
        f"variant has a better score than the column's; ties count half, failed runs rank as worst "
        f"(n = {n} per variant). Descriptive, ignores the pairing by "
        f"{data.study.declaration.unit}, not a test. {style.run_set(data)}"
    )
