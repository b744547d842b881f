"""Forest plot of the primary contrasts, and the levels of a factor with many levels."""

import textwrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from analysis.figures import style
from analysis.runs.data import StudyData
from analysis.statistics.sentences import format_p, show_level
from lib.spec.words import count

LETTERS, LINE = 72, 0.22  # characters per line of a contrast's name; height of a second line


def _bounds(data: StudyData, rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Return the largest absolute value, and the end of the linear part of a symlog axis."""
    metric, delta = data.study.metric, data.study.smallest_effect
    keys = ["ci_low", "ci_high", "difference"]
    keys += ["items_low", "items_high", "both_low", "both_high"]
    known = [abs(row[key]) for row in rows for key in keys if row[key] is not None]
    bounds = [metric.display(value) for value in known] or [0.0]
    least = min((bound for bound in bounds if bound > 0), default=1.0)
    return max(bounds), metric.display(delta) if delta else least


def _is_wide(data: StudyData, rows: list[dict[str, Any]]) -> bool:
    """Return whether some differences are so large that a linear axis would hide the others."""
    bound, threshold = _bounds(data, rows)
    return bool(bound > 20 * threshold)


def forest(data: StudyData, rows: list[dict[str, Any]]) -> Figure:
    """Plot the difference of each primary contrast with its intervals and p-values.

    ``rows``: the contrasts as in results.json.
    """
    study, metric = data.study, data.study.metric
    labels = [r["label"].replace(" %", "\N{NO-BREAK SPACE}%") for r in rows]
    names = [textwrap.wrap(label, LETTERS, max_lines=2, placeholder=" …") for label in labels]
    more = np.cumsum([LINE * (len(lines) - 1) for lines in names])  # space for second lines
    end = len(rows) + more[-1]
    figure, (axis,) = style.subplots(1, 0.85 + 0.68 * end)
    bound, threshold = _bounds(data, rows)
    if _is_wide(data, rows):
        style.symmetric_log(axis, threshold, bound)
    axis.set_xlim(-1.15 * max(bound, threshold), 1.15 * max(bound, threshold))
    if study.smallest_effect:
        delta = metric.display(study.smallest_effect)
        axis.axvspan(-delta, delta, color="0.9", label="±δ")
    axis.axvline(0, color="black", linewidth=0.8)
    units = f"{study.declaration.unit}s"
    bars = {units: ("ci_low", "ci_high")}
    bars |= {"test items": ("items_low", "items_high"), "both": ("both_low", "both_high")}
    named = set()
    for i, r, lines in zip(np.arange(len(rows)) + more, rows, names, strict=True):
        for k, (name, ends) in enumerate(bars.items()):
            if r[ends[0]] is None:
                continue
            look = {"color": style.COLORS[k], "linewidth": 2, "solid_capstyle": "butt"}
            look |= {"marker": "|"} if k else {}  # keeps a short bar visible
            label = None if name in named else name
            named.add(name)
            axis.plot(
                [metric.display(r[end]) for end in ends], [i + 0.13 * k] * 2, label=label, **look
            )
        if r["difference"] is not None:
            axis.plot(metric.display(r["difference"]), i, "o", color=style.COLORS[0])
        numbers = f"p {format_p(r['p'])},  Holm p {format_p(r['p_holm'])}, "
        numbers += f" r {r['rank_biserial']:+.2f}"
        if r["n_trained"] < r["n"]:
            numbers += f"; bars: {r['n_trained']} of {r['n']} {units}"
        at = {"transform": axis.get_yaxis_transform(), "fontsize": 7.5, "va": "bottom"}
        at["path_effects"] = [withStroke(linewidth=2.5, foreground="white")]  # over the zero line
        axis.text(0.01, i - 0.4, "\n".join(lines), **at)
        axis.text(0.01, i - 0.2, numbers.replace("-", "−"), color="0.35", **at)
    axis.set_ylim(end - 0.6, -0.65)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    style.legend_above(figure, axis)
    unit = f" ({metric.difference_unit})" if metric.difference_unit else ""
    axis.set_xlabel(f"Difference in {metric.title}{unit}")
    return figure


def forest_caption(data: StudyData, rows: list[dict[str, Any]]) -> str:
    """Return the figure's caption."""
    study, first, n = data.study, rows[0], len(rows)
    published = first["kind"] == "published"
    minus = "ours minus the published" if published else "treatment minus baseline"
    ours = "ours has" if published else "the treatment has"
    exact = "exact " * all(row["exact"] for row in rows)
    kinds = {row["paired"] for row in rows}
    names = {True: "signed-rank test", False: "Mann–Whitney test"}
    test = " or ".join(names[kind] for kind in names if kind in kinds)
    items, failed, units = "", "", f"{study.declaration.unit}s"
    level = show_level(1 - study.alpha / n)
    if any(row["items_low"] is not None for row in rows):
        items = (
            f" Second and third bars: bootstrap intervals over test items with the networks fixed "
            f"({show_level(1 - study.alpha)}), and over {units} and test items together ({level}); "
            f"with few {units} the third is too narrow."
        )
    if any(row["n_trained"] < row["n"] for row in rows):
        failed = (
            f" Dots and bars exclude {units} with a failed run; p and r rank failed runs as worst."
        )
    _, threshold = _bounds(data, rows)
    log = f"The axis is logarithmic beyond ±{threshold:g}. " if _is_wide(data, rows) else ""
    delta = study.smallest_effect
    band = f" Gray band: ±δ = {study.metric.show_exactly(delta)}." if delta else ""
    over = f"interval over {units} ({level}, or the highest level that they allow)"
    if n > 1:
        over = (
            f"interval over {units} for all {n} contrasts at once ({level} each, or the highest "
            f"level that this number of {units} allows)"
        )
    corrected = f"corrected over {n} contrasts" if n > 1 else "the same, with one contrast"
    return (
        f"Primary contrasts (n = {first['n']} {units}), {minus}: Hodges–Lehmann difference (dot) "
        f"and {exact}{over}.{items}{band}{failed} p: {exact}two-sided {test}, uncorrected; Holm p: "
        f"{corrected}; r: "
        f"{'matched-pairs ' * (kinds == {True})}rank-biserial correlation. Negative: {ours} the "
        f"lower value; {study.metric.better} is better. {log}{style.run_set(data)}"
    )


def many_levels(data: StudyData) -> list[str]:
    """Return the factors with more than two levels whose pairs are all primary contrasts."""
    study = data.study
    if study.declaration.primary is not None or study.control is not None:
        return []
    return [name for name, levels in study.factors.items() if len(levels) > 2]


def groups(levels: int, differ: set[frozenset[int]]) -> list[list[int]]:
    """Return the maximal ranges (first, last) of adjacent levels without a significant difference.

    ``levels``: the number of levels, sorted by score; ``differ``: the pairs of indices that differ
    significantly.
    """
    found: list[list[int]] = []
    for first in range(levels):
        last = first
        while last + 1 < levels and not any(
            frozenset((k, last + 1)) in differ for k in range(first, last + 1)
        ):
            last += 1
        if last > first and not any(a <= first and last <= b for a, b in found):
            found.append([first, last])
    return found


def levels(data: StudyData, rows: list[dict[str, Any]], factor: str) -> Figure:
    """Plot a factor's levels sorted by score; bars join levels without a significant difference.

    Like Demšar's (2006) critical-difference diagram, but from the pairwise tests.
    """
    study, metric = data.study, data.study.metric
    names = list(study.factors)
    table = data.trained.reshape(*map(len, study.factors.values()), -1)
    axes = tuple(i for i, name in enumerate(names) if name != factor)
    mean = metric.display(table.mean(axis=axes))  # (levels, seeds); NaN where a run failed
    middle = np.array([np.nanmedian(v) if np.isfinite(v).any() else np.nan for v in mean])
    order = np.argsort(-metric.sign * middle)  # best first; a level without any score last
    rank = {study.factors[factor][k]: i for i, k in enumerate(order)}
    differ = {
        frozenset((rank[_plain(part[1])], rank[_plain(part[2])]))
        for row in rows
        for part in row["parts"]
        if row["kind"] == "main" and part[0] == factor and row["p_holm"] < study.alpha
    }
    figure, (axis,) = style.subplots(1, 0.7 + 0.36 * len(order))
    for i, k in enumerate(order):
        values = mean[k][np.isfinite(mean[k])]
        axis.plot(values, np.full(len(values), i), "o", color="0.75", markersize=3.5)
        axis.plot(middle[k], i, "o", color=style.COLORS[0], markersize=7)
    for j, (first, last) in enumerate(groups(len(order), differ)):
        x = 1.02 + 0.025 * j
        look = {"color": "black", "linewidth": 3, "solid_capstyle": "butt", "clip_on": False}
        axis.plot([x, x], [first - 0.2, last + 0.2], transform=axis.get_yaxis_transform(), **look)
    axis.set_yticks(
        range(len(order)), [study.level_label(factor, study.factors[factor][k]) for k in order]
    )
    axis.set_ylim(len(order) - 0.5, -0.5)
    axis.set_xlabel(metric.axis)
    return figure


def _plain(level: Any) -> Any:
    return tuple(level) if isinstance(level, list) else level


def levels_caption(data: StudyData, rows: list[dict[str, Any]], factor: str) -> str:
    """Return the figure's caption."""
    study = data.study
    pairs = sum(row["kind"] == "main" and row["parts"][0][0] == factor for row in rows)
    return (
        f"Levels of {study.factor_label(factor)}, best at the top: median over n = "
        f"{count(len(study.seeds), study.declaration.unit)} (large dots) and each "
        f"{study.declaration.unit} (small dots). Bars at the right join levels between which no "
        f"test shows a difference (Holm p ≥ {study.alpha:g}; {count(pairs, 'pair')} among "
        f"{len(rows)} contrasts); this is not evidence that they are equal. {style.run_set(data)}"
    )
