"""Figures against epochs: 1 learning curves, 2 contrasts, 10 epochs until a target value."""

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures import style
from analysis.runs import histories
from analysis.runs.axis import label as label_of
from analysis.runs.data import StudyData
from analysis.statistics import contrasts
from analysis.statistics.sentences import subject
from lib.spec.metric import Metric
from lib.spec.words import capitalize, count


def learning_curves(data: StudyData, metric: Metric) -> Figure:
    """``metric`` against epoch: every seed, their median, a band, early stops.

    Failed runs are crosses at the edge on the bad side: their values would stretch the axis.
    """
    study = data.study
    complete = not data.completeness.problems
    values = histories.curves(data, metric.key)
    if complete:
        values = np.where(data.failed[:, :, None], np.nan, values)
    values = metric.display(values)
    first = next(iter(study.factors), None)
    groups = style.groups(study)
    apart = len(groups) == len(study.variants) and len(study.factors) > 1
    panels = study.factors[first] if apart else [None]
    figure, axes = style.subplots(len(panels), 2.7, columns=min(2, len(panels)))
    panel_of = {}  # the axis and the look of each variant
    for axis, level in zip(axes, panels, strict=True):
        in_panel = [
            (i, label, members)
            for i, (label, members) in enumerate(groups)
            if level is None or study.variants[members[0]][0] == level
        ]
        for row, (i, label, members) in enumerate(in_panel):
            panel_of |= dict.fromkeys(members, (axis, i))
            curve = np.concatenate(values[members])
            style.draw_seeds(axis, histories.axis_values(data), curve, i, label)
            if complete and (number := int(data.failed[members].sum())):
                _failed_at_edge(axis, metric, i, row, number)
        axis.set_xlabel(label_of(data.axis))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        if level is not None:
            axis.set_title(study.level_label(first, level))
    for variant, state, epochs, found in _stops(data, metric):
        axis, i = panel_of[study.variants.index(variant)]
        if state == "replaced":  # the run that is included is drawn as all others are
            axis.plot(epochs, metric.display(found), color=style.color(i), linewidth=0.8, ls=":")
        last = metric.display(found[-1])
        axis.plot(epochs[-1], last, "x", color="black", markersize=6, zorder=5)
    style.legend_above(figure, *axes)
    for axis in axes[:: min(2, len(panels))]:
        axis.set_ylabel(metric.axis)
    style.metric_scale(axes, values.ravel(), metric)
    return figure


def _stops(data: StudyData, metric: Metric) -> list[tuple]:
    """Return the early stops that are drawn: not of diverged runs, which are at the edge."""
    return [one for one in histories.stops(data, metric.key) if one[1] != "diverged"]


def _failed_at_edge(axis: Axes, metric: Metric, i: int, row: int, number: int) -> None:
    """Draw a cross with the number of the i-th variant's failed runs at the axis' bad side.

    ``row``: its index within the panel, which says where along the axis.
    """
    edge = 1.0 if metric.sign < 0 else 0.0
    place = 0.9 - 0.3 * row
    at = {"transform": axis.transAxes, "clip_on": False, "zorder": 6}
    axis.plot([place], [edge], "x", color=style.color(i), markersize=6, markeredgewidth=1.6, **at)
    axis.annotate(
        f"{number} failed",
        (place, edge),
        xycoords="axes fraction",
        xytext=(0, -5 if edge else 5),
        textcoords="offset points",
        ha="center",
        va="top" if edge else "bottom",
        fontsize=7,
    )


def learning_curves_caption(data: StudyData, metric: Metric) -> str:
    """Return the figure's caption."""
    complete = not data.completeness.problems
    values = histories.curves(data, metric.key)
    values = np.where(data.failed[:, :, None], np.nan, values) if complete else values
    scale = style.scale_of(metric.display(values), metric)
    axis = f"The vertical axis is {scale}. " if scale else ""
    n, together = len(data.study.seeds), max(len(g) for _, g in style.groups(data.study))
    stopped = len(_stops(data, metric))
    lost = 0 if data.completeness.problems else int(data.failed.sum())
    failed = (
        f"Crosses at the edge, at no particular {_unit(data)}: {count(lost, 'failed run')}. "
        if lost
        else ""
    )
    cross = f"Crosses: {count(stopped, 'run')} stopped before the end. " if stopped else ""
    return (
        f"{capitalize(metric.title)} against {_unit(data)}. Thin lines: one per run (n = "
        f"{count(n, data.study.declaration.unit)} per variant); bold: median over runs; band: "
        f"{style.band_name(n * together)} over runs. {_own_sets(data, metric)}{axis}{_ended(data)}"
        f"{failed}{cross}"
        f"{style.run_set(data)}"
    )


def _ended(data: StudyData) -> str:
    """Return what the median shows after the end of a run, if runs have different lengths."""
    if "epochs" not in data.completeness.waivable:
        return ""
    return "After the end of a run, median and band are over the others. "


def difference_curves(data: StudyData, metric: Metric) -> Figure:
    """Each primary contrast, seed by seed, computed at every epoch on ``metric``."""
    study, n = data.study, len(data.study.seeds)
    values = _trained_curves(data, metric)
    splitting, flat = data.completeness.splitting, values.reshape(len(values), -1)
    built = contrasts.build(study, flat, splitting=splitting)  # an epoch as a replicate
    figure, axes = style.subplots(len(built), 1.6, sharey=False, sharex=True)
    for i, (axis, contrast) in enumerate(zip(axes, built, strict=True)):
        table = metric.display((contrast.treatment - contrast.baseline).reshape(n, -1))
        axis.axhline(0, color="black", linewidth=0.8)
        if study.smallest_effect:
            delta = metric.display(study.smallest_effect)
            axis.axhspan(-delta, delta, color="0.9", zorder=0)
        style.draw_seeds(axis, histories.axis_values(data), table, i, "")
        axis.set_title(textwrap.fill(subject(contrast, study), 74), loc="left", fontsize=8)
        last = np.nan_to_num(np.abs(table[:, -1]))
        if _far_off(table):  # single seeds far off would hide the rest
            linear = metric.display(study.smallest_effect or 0) or np.median(last)
            style.symmetric_log(axis, float(f"{linear:.1g}"), np.nanmax(np.abs(table)), "y")
        elif _is_cut(table):  # so would the first epochs
            delta = metric.display(study.smallest_effect or 0)
            late = table[:, table.shape[1] // 4 :]
            low, high = min(np.nanmin(late), -delta, 0), max(np.nanmax(late), delta, 0)
            axis.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    axes[-1].set_xlabel(label_of(data.axis))
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    unit = f" ({metric.difference_unit})" if metric.difference_unit else ""
    fits = int(14 * figure.get_figheight())  # characters along the height
    figure.supylabel(textwrap.fill(f"Difference in {metric.title}{unit}", fits), fontsize=9)
    return figure


def _trained_curves(data: StudyData, metric: Metric) -> np.ndarray:
    """Return the curves (variants, seeds, epochs); NaN for failed runs."""
    return np.where(data.failed[:, :, None], np.nan, histories.curves(data, metric.key))


def _is_cut(table: np.ndarray) -> bool:
    """Return whether early differences are so large that the axis leaves them out."""
    last = np.nan_to_num(np.abs(table[:, -1]))
    return not _far_off(table) and bool(np.nan_to_num(np.abs(table)).max() > 4 * last.max() > 0)


def _unit(data: StudyData) -> str:
    """Return the axis for a sentence: "epoch", "global step"."""
    return label_of(data.axis).lower()


def _far_off(table: np.ndarray) -> bool:
    last = np.nan_to_num(np.abs(table[:, -1]))
    return bool(last.max() > 20 * np.median(last) > 0)


def difference_curves_caption(data: StudyData, metric: Metric) -> str:
    """Return the figure's caption."""
    study, n = data.study, len(data.study.seeds)
    values = _trained_curves(data, metric)
    splitting, flat = data.completeness.splitting, values.reshape(len(values), -1)
    built = contrasts.build(study, flat, splitting=splitting)
    number, unit = int(data.failed.sum()), study.declaration.unit
    tables = [(c.treatment - c.baseline).reshape(n, -1) for c in built]
    failed = ""
    if number:
        left = {int(np.isfinite(table[:, -1]).sum()) for table in tables}
        left = " and ".join(map(str, sorted(left)))
        failed = f"{capitalize(unit)}s with one of the {count(number, 'failed run')} are not drawn "
        failed += f"({left} of {n} are left). "
    cut = "Values beyond the axis are not drawn. " * any(map(_is_cut, tables))
    wide = any(_far_off((c.treatment - c.baseline).reshape(n, -1)) for c in built)
    gray = "; gray: ±δ" if study.smallest_effect else ""
    log = f"Where single {unit}s are far off the axis is logarithmic at its ends. " if wide else ""
    return (
        f"Paired difference in {metric.title} against {_unit(data)}, treatment minus baseline. "
        f"Thin lines: one per {unit} (n = {n}); bold: median over {unit}s; band: "
        f"{style.band_name(n)}{gray}. Descriptive, not a test: neighboring {_unit(data)}s are "
        f"correlated. {_own_sets(data, metric)}{_ended(data)}{failed}{log}{cut}"
        f"{style.run_set(data)}"
    )


def _reached(data: StudyData, metric: Metric) -> tuple[np.ndarray, float, bool]:
    """Return whether each run has reached the target by each epoch (variants, seeds, epochs).

    And the target: the study's, or else the worst variant's median at the last epoch.
    """
    values = histories.curves(data, metric.key)
    declared = data.study.declaration.target_value
    finals = [np.nanmedian(v[:, -1]) for v in values if not np.isnan(v[:, -1]).all()]
    worst = (min if metric.sign > 0 else max)(finals, default=np.nan)
    target = worst if declared is None else declared
    at = values >= target if metric.sign > 0 else values <= target
    return np.maximum.accumulate(at, axis=2), target, declared is not None


def has_target(data: StudyData, metric: Metric) -> bool:
    """Return whether there is a target value that runs can reach."""
    return bool(np.isfinite(_reached(data, metric)[1]))


def epochs_until(data: StudyData, metric: Metric) -> Figure:
    """The share of runs whose ``metric`` has reached a target, against the epoch.

    The share is of all runs, also of those that never reach it.
    """
    reached, _, _ = _reached(data, metric)
    figure, (axis,) = style.subplots(1, 2.8)
    groups = style.groups(data.study)
    for i, (label, members) in enumerate(groups):
        ever = np.concatenate(reached[members])
        share = np.concatenate([[0], ever.mean(axis=0)])
        places = np.concatenate([[0], histories.axis_values(data)])
        label = f"{label}: {ever[:, -1].sum()} of {len(ever)}"
        look = {"color": style.color(i), "linestyle": style.line(i)}
        offset = 0.006 * (i - (len(groups) - 1) / 2)  # curves that agree stay visible
        axis.step(places, share + offset, where="post", label=label, **look)
        axis.plot(places[-1], share[-1] + offset, ".", color=style.color(i))
    axis.set_xlim(0, None)
    axis.set_ylim(-0.03, 1.05)
    axis.set_xlabel(f"{label_of(data.axis)}s of training")
    axis.set_ylabel("Share of runs at the target")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.legend_above(figure, axis)
    return figure


def epochs_until_caption(data: StudyData, metric: Metric) -> str:
    """Return the figure's caption."""
    _, target, declared = _reached(data, metric)
    rule = "declared" if declared else "the worst variant's median after the last epoch"
    return (
        f"{capitalize(_unit(data))}s until the {metric.title} first reaches "
        f"{metric.show_with_unit(target)} ({rule}): share of runs (n = "
        f"{count(len(data.study.seeds), data.study.declaration.unit)} per variant) against "
        f"{_unit(data)}s of training; the legend counts the runs that reached it; the share is of "
        f"all runs. Descriptive, not a test. {_own_sets(data, metric)}Lines are shifted a little "
        f"vertically, so that none is hidden. {style.run_set(data)}"
    )


def _own_sets(data: StudyData, metric: Metric) -> str:
    """Return a caption's sentence on validation sets that differ between seeds, or nothing."""
    if metric.part != "validation" or data.completeness.problems or not data.splits_by_seed:
        return ""
    return "Seeds have different validation sets; the spread over seeds includes that of the sets. "
