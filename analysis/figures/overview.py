"""The overview figure: all scores at the top, the contrasts below, on the same scale."""

import textwrap
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures import style
from analysis.figures.scores import mark_failed
from analysis.runs.data import StudyData
from analysis.statistics.sentences import show_level
from lib.spec.words import capitalize

WIDTH = 26  # characters per line of a label
FAR_BAND = 1.5  # times the range of all intervals: a wider ±δ is not shown whole
FAR = 20  # times the interquartile range of all scores: too much for a linear axis


def has_overview(data: StudyData, rows: list[dict[str, Any]]) -> bool:
    """Return whether the overview can be drawn: few variants, an estimate, no outlying run."""
    few = 1 < len(data.study.variants) <= style.MOST_VARIANTS and len(rows) <= style.MOST_VARIANTS
    return few and any(row["confidence"] for row in rows) and not _far_off(data, rows)


def _far_off(data: StudyData, rows: list[dict[str, Any]]) -> bool:
    """Return whether single runs or intervals would stretch the axis too far."""
    scores = data.trained[np.isfinite(data.trained)]
    low, middle_low, middle_high, high = np.percentile(scores, [0, 25, 75, 100])
    longest = max(row["ci_high"] - row["ci_low"] for row in rows if row["confidence"])
    return max(high - low, longest) > FAR * (middle_high - middle_low) > 0


def overview(data: StudyData, rows: list[dict[str, Any]]) -> Figure:
    """Plot the scores per variant at the top and the contrasts below, on the same scale.

    ``rows``: the contrasts as in results.json. Failed runs are crosses at the edge.
    """
    study, metric = data.study, data.study.metric
    table = metric.display(data.trained)
    style.use()
    heights = [0.5 * len(table) + 0.15, 0.5 * len(rows) + 0.15]
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(style.COLUMN, sum(heights) + 1.1), height_ratios=heights
    )
    offsets = np.linspace(-0.14, 0.14, table.shape[1])
    for i, values in enumerate(table):
        look = {"color": style.color(i), "marker": style.marker(i)}
        top.scatter(values, i + offsets, s=14, zorder=2, **look)
        if data.failed[i].any():
            mark_failed(top, metric, (i + offsets)[data.failed[i]], look["color"])
        if not data.failed[i].all():
            top.plot([np.nanmedian(values)] * 2, [i - 0.3, i + 0.3], color="black", linewidth=2)
    top.set_yticks(range(len(table)), [style.tick_lines(study, v, WIDTH) for v in study.variants])
    top.set_ylim(len(table) - 0.5, -0.5)
    top.set_xlabel(capitalize(metric.axis), fontsize=8)
    known, unit = [row for row in rows if row["confidence"]], study.declaration.unit
    for i, row in enumerate(rows):
        if not row["confidence"]:
            at = {"ha": "center", "va": "center", "fontsize": 7}
            bottom.text(0, i, f"no interval: too few {unit}s without a failed run", **at)
            continue
        ends = [metric.display(row[end]) for end in ("ci_low", "ci_high")]
        bottom.plot(ends, [i, i], color="black", linewidth=1.6)
        bottom.plot(metric.display(row["difference"]), i, "o", color="black", markersize=5)
    if study.smallest_effect:
        delta = metric.display(study.smallest_effect)
        bottom.axvspan(-delta, delta, color="0.88", zorder=0)
    bottom.axvline(0, color="black", linewidth=0.8)
    names = [style.short_label(row, study) for row in rows]
    lines = [textwrap.fill(name, WIDTH, max_lines=3, placeholder=" …") for name in names]
    bottom.set_yticks(range(len(rows)), lines)
    bottom.set_ylim(len(rows) - 0.5, -0.5)
    unit = f" ({metric.difference_unit})" if metric.difference_unit else ""
    bottom.set_xlabel(f"Difference{unit}", fontsize=8)
    ends = metric.display(_ends(known))
    delta = metric.display(study.smallest_effect or 0)
    if delta < FAR_BAND * np.ptp(ends):  # a wider band would hide the differences
        ends = np.append(ends, [-delta, delta])
    _same_scale(top, bottom, table, ends)
    if data.failed.any():  # space for the crosses and their number
        low, high = top.get_xlim()
        room = 0.25 * (high - low)
        for axis in (top, bottom):
            low, high = axis.get_xlim()
            axis.set_xlim(*((low, high + room) if metric.sign < 0 else (low - room, high)))
    for axis in (top, bottom):
        axis.tick_params(axis="y", length=0)
        axis.xaxis.set_major_locator(MaxNLocator(6))
    figure.align_ylabels()
    return figure


def _ends(rows: list[dict[str, Any]]) -> np.ndarray:
    """Return all values that the lower panel must show, and 0."""
    keys = ("ci_low", "ci_high", "difference")
    return np.array([0.0] + [row[key] for row in rows for key in keys])


def _same_scale(top: Any, bottom: Any, scores: np.ndarray, ends: np.ndarray) -> None:
    """Set the limits of both panels to the same length, the larger of the two ranges."""
    spans = []
    for values in (scores[np.isfinite(scores)], ends):
        low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
        spans.append(((low + high) / 2, max(high - low, 1e-12)))
    length = 1.2 * max(span for _, span in spans)
    for axis, (middle, _) in zip((top, bottom), spans, strict=True):
        axis.set_xlim(middle - length / 2, middle + length / 2)


def overview_caption(data: StudyData, rows: list[dict[str, Any]]) -> str:
    """Return the figure's caption."""
    study, metric, unit = data.study, data.study.metric, data.study.declaration.unit
    failed, blocks = int(data.failed.sum()), len(study.blocks) > 1
    dots = f"every variant and {unit}, mean over blocks" if blocks else "every run"
    what = f"{unit}s with a failed run in some block" if blocks else "failed runs"
    crosses = f" Crosses at the edge: {failed} {what}." if failed else ""
    excluded = any(row["n_trained"] < row["n"] for row in rows)
    without = f", over the {unit}s without a failed run" if excluded else ""
    known = [row for row in rows if row["confidence"]]
    levels = sorted({show_level(row["confidence"]) for row in known})
    delta = study.smallest_effect
    whole = metric.display(delta or 0) < FAR_BAND * np.ptp(metric.display(_ends(known)))
    wider = "" if whole else ", wider than the axis"
    band = f" Gray band: ±δ = {metric.show_exactly(delta)}{wider}." if delta else ""
    return (
        f"Top: {metric.title} of {dots} ({study.rule_words}, n = {len(study.seeds)} per variant); "
        f"bars: medians; {metric.better} is better.{crosses} Bottom (same scale): Hodges–Lehmann "
        f"differences{without}, with intervals of {' or '.join(levels)}"
        f"{' each' * (len(rows) > 1)}.{band} "
        f"{style.run_set(data)}"
    )
