"""Figure 4: a forest plot of the primary contrasts."""

import textwrap
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from analysis.figures import style
from analysis.runs.data import StudyData
from analysis.statistics.grades import format_p


def _bounds(data: StudyData, rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Return the largest end of a bar, and the end of the axis' linear part."""
    metric, delta = data.study.metric, data.study.smallest_effect
    keys = ["ci_low", "ci_high", "difference"]
    keys += ["test_set_low", "test_set_high"] if rows[0]["test_set_low"] is not None else []
    bounds = [metric.display(abs(row[key])) for row in rows for key in keys]
    least = min((bound for bound in bounds if bound > 0), default=1.0)
    return max(bounds), metric.display(delta) if delta else least


def _is_wide(data: StudyData, rows: list[dict[str, Any]]) -> bool:
    bound, threshold = _bounds(data, rows)
    return bool(bound > 20 * threshold)


def forest(data: StudyData, rows: list[dict[str, Any]]) -> Figure:
    """Figure 4: difference with its intervals for every primary contrast, with its numbers.

    ``rows``: the contrasts as results.json has them.
    """
    study, metric, n = data.study, data.study.metric, len(rows)
    figure, (axis,) = style.subplots(1, 0.85 + 0.68 * n)
    over_items = rows[0]["test_set_low"] is not None
    bound, threshold = _bounds(data, rows)
    if _is_wide(data, rows):  # single runs far off: a linear axis would hide all the rest
        style.symmetric_log(axis, threshold, bound)
    axis.set_xlim(-1.15 * max(bound, threshold), 1.15 * max(bound, threshold))
    if study.smallest_effect:
        delta = metric.display(study.smallest_effect)
        axis.axvspan(-delta, delta, color="0.9", label="±δ, set beforehand")
    axis.axvline(0, color="black", linewidth=0.8)
    for i, r in enumerate(rows):
        low, middle, high = (metric.display(r[k]) for k in ("ci_low", "difference", "ci_high"))
        look = {"color": style.COLOURS[0], "linewidth": 2, "solid_capstyle": "butt"}
        axis.plot([low, high], [i, i], label=None if i else "seeds", **look)
        axis.plot(middle, i, "o", color=style.COLOURS[0])
        if over_items:
            ends = [metric.display(r["test_set_low"]), metric.display(r["test_set_high"])]
            look = {"color": style.COLOURS[1], "linewidth": 2, "marker": "|"}  # seen if short
            axis.plot(ends, [i + 0.16] * 2, label=None if i else "test items", **look)
        numbers = f"p {format_p(r['p'])},  Holm p {format_p(r['p_holm'])}, "
        numbers += f" r {r['rank_biserial']:+.2f}"
        at = {"transform": axis.get_yaxis_transform(), "fontsize": 7.5, "va": "bottom"}
        at["path_effects"] = [withStroke(linewidth=2.5, foreground="white")]  # over the zero line
        axis.text(0.01, i - 0.4, textwrap.shorten(r["label"], 80, placeholder=" …"), **at)
        axis.text(0.01, i - 0.2, numbers.replace("-", "−"), color="0.35", **at)
    axis.set_ylim(n - 0.6, -0.65)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    style.legend_above(figure, axis)
    unit = f" ({metric.difference_unit})" if metric.difference_unit else ""
    axis.set_xlabel(f"Difference in {metric.title}{unit}")
    return figure


def forest_caption(data: StudyData, rows: list[dict[str, Any]]) -> str:
    """Return figure 4's caption."""
    study, first, n = data.study, rows[0], len(rows)
    published = first["kind"] == "published"
    minus = "ours minus the published" if published else "treatment minus baseline"
    ours = "ours is" if published else "the treatment has"
    exact = "exact " * first["exact"]
    test = "signed-rank test" if first["paired"] else "Mann–Whitney test"
    items = ""
    if first["test_set_low"] is not None:
        items = " Second bar: bootstrap interval over test items with these networks."
    _, threshold = _bounds(data, rows)
    log = f"The axis is logarithmic beyond ±{threshold:g}. " if _is_wide(data, rows) else ""
    return (
        f"Primary contrasts (n = {first['n']} seeds): Hodges–Lehmann difference and {exact}"
        f"{100 * first['confidence']:.3g} % interval over seeds (not corrected for several "
        f"comparisons), {minus}.{items} p: {exact}{test}, Holm: corrected over {n}; r: "
        f"{'matched-pairs ' * first['paired']}rank-biserial correlation. Negative: {ours} the "
        f"lower value; {study.metric.better} is better. {log}{style.run_set(data)}"
    )
