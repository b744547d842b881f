"""Figures of contrasts: 2 against epochs, 4 forest plot, 5 interactions, 8 pairs of variants."""

import itertools
import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from analysis.figures import style
from analysis.grid import Study, Sweep
from analysis.runs import histories
from analysis.runs.completeness import Ledger
from analysis.statistics import contrasts, rank_tests, robustness
from analysis.statistics.grades import format_p, subject

Scores = dict[tuple, list[float]]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def difference_curves(
    sweep: Sweep, study: Study, ledger: Ledger, history: pd.DataFrame, name: str
) -> tuple[Figure, str]:
    """Figure 2: each primary contrast, seed by seed, computed anew at every epoch on ``name``."""
    values = histories.by_cell(sweep, study, ledger, history, name)
    flat = {cell: v.ravel() for cell, v in values.items()}  # an epoch of a seed as a replicate
    built = contrasts.build(sweep, study, flat)
    factor, n = style.display_factor(study), len(sweep.seeds)
    grey, wide = "; grey: ±δ" if study.smallest_effect else "", ""
    figure, axes = style.subplots(len(built), 1.6, sharey=False, sharex=True)
    for i, (axis, contrast) in enumerate(zip(axes, built, strict=True)):
        table = contrast.differences.reshape(n, -1) * factor
        axis.axhline(0, color="black", linewidth=0.8)
        if study.smallest_effect:
            delta = factor * study.smallest_effect
            axis.axhspan(-delta, delta, color="0.9", zorder=0)
        style.draw_seeds(axis, np.arange(1, table.shape[1] + 1), table, i, "")
        axis.set_title(subject(contrast, study), loc="left", fontsize=8)
        last = np.nan_to_num(np.abs(table[:, -1]))
        if last.max() > 20 * np.median(last) > 0:  # single seeds far off would hide the rest
            linear = factor * study.smallest_effect if grey else np.median(last)
            style.symmetric_log(axis, float(f"{linear:.1g}"), np.nanmax(np.abs(table)), "y")
            wide = "Where single seeds are far off the axis is logarithmic at its ends. "
        elif np.nan_to_num(np.abs(table)).max() > 4 * last.max() > 0:  # so would the first epochs
            axis.set_ylim(-4 * last.max(), 4 * last.max())
    axes[-1].set_xlabel("Epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    words = style.lower_first(style.part_name(name.split("/")[0], study))
    unit = " (percentage points)" if factor == 100 else ""
    figure.supylabel(f"Difference in {words}{unit}", fontsize=9)
    return figure, (
        f"Paired difference in {words} against epoch, level 2 minus level 1. Thin lines: one per "
        f"seed (n = {n}); bold: median over seeds; band: {style.band_name(n)}{grey}. A picture "
        f"epoch by epoch, not a test: neighbouring epochs repeat one another. {wide}"
        f"{style.run_set(sweep, ledger)}"
    )


def forest(
    study: Study, rows: list[dict[str, Any]], ledger: Ledger, sweep: Sweep
) -> tuple[Figure, str]:
    """Figure 4: difference with its intervals for every primary contrast, with its numbers.

    ``rows``: the contrasts as results.json has them.
    """
    factor, n = style.display_factor(study), len(rows)
    figure, (axis,) = style.subplots(1, 0.85 + 0.68 * n)
    delta, over_images = study.smallest_effect, rows[0]["test_set_low"] is not None
    bounds = [factor * abs(r[k]) for r in rows for k in ("ci_low", "ci_high", "difference")]
    bounds += [
        factor * abs(r[k]) for r in rows for k in ("test_set_low", "test_set_high") if over_images
    ]
    bound = max(bounds)
    threshold = factor * delta if delta else min((b for b in bounds if b > 0), default=1.0)
    wide = bool(bound > 20 * threshold)
    if wide:  # single runs far off: a linear axis would hide all the rest
        style.symmetric_log(axis, threshold, bound)
    axis.set_xlim(-1.15 * max(bound, threshold), 1.15 * max(bound, threshold))
    if delta:
        axis.axvspan(-delta * factor, delta * factor, color="0.9", label="±δ, set beforehand")
    axis.axvline(0, color="black", linewidth=0.8)
    for i, r in enumerate(rows):
        low, middle, high = (factor * r[k] for k in ("ci_low", "difference", "ci_high"))
        look = {"color": style.COLOURS[0], "linewidth": 2, "solid_capstyle": "butt"}
        axis.plot([low, high], [i, i], label=None if i else "seeds", **look)
        axis.plot(middle, i, "o", color=style.COLOURS[0])
        if over_images:
            ends = [factor * r["test_set_low"], factor * r["test_set_high"]]
            look = {"color": style.COLOURS[1], "linewidth": 2, "marker": "|"}  # seen if short
            axis.plot(ends, [i + 0.16] * 2, label=None if i else "test images", **look)
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
    unit = " (percentage points)" if factor == 100 else ""
    axis.set_xlabel(f"Difference in {style.lower_first(style.metric_name(study))}{unit}")
    first = rows[0]
    minus = "ours minus the published" if study.references else "level 2 minus level 1"
    ours = "ours is" if study.references else "level 2 has"
    test = "signed-rank test" if first["paired"] else "Mann–Whitney test"
    images = " Second bar: bootstrap interval over test images with these networks." * over_images
    return figure, (
        f"Primary contrasts (n = {first['n']} seeds): Hodges–Lehmann difference and "
        f"{'exact ' * first['exact']}{100 * first['confidence']:.3g} % interval over seeds (not "
        f"corrected for several comparisons), {minus}.{images} p: "
        f"{'exact ' * first['exact']}{test}, Holm: corrected over {n}; r: "
        f"{'matched-pairs ' * first['paired']}rank-biserial correlation. Negative: {ours} the "
        f"lower value; {study.direction} is better. "
        f"{f'The axis is logarithmic beyond ±{threshold:g}. ' if wide else ''}"
        f"{style.run_set(sweep, ledger)}"
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
    plain = f"{style.metric_name(study)}{style.unit(study)}"
    views = [(table * style.display_factor(study), plain), (transformed, log_name)]
    panels = [(pair, *view) for pair in pairs for view in views]
    figure, axes = style.subplots(len(panels), 2.7, columns=2, sharey=False)
    for axis, ((a, b), values, label) in zip(axes, panels, strict=True):
        others = tuple(i for i in range(len(names)) if i not in (a, b))
        mean = values.mean(axis=others)  # (2, 2, seeds)
        for i, level in enumerate(sweep.factors[names[a]]):
            axis.plot([0, 1], mean[i], color=style.colour(i), linewidth=0.5, alpha=0.4)
            axis.plot(
                [0, 1],
                np.median(mean[i], axis=1),
                color=style.colour(i),
                marker=style.marker(i),
                linestyle=style.line(i),
                linewidth=1.8,
                label=study.level_label(names[a], level),
            )
        ticks = [study.level_label(names[b], v) for v in sweep.factors[names[b]]]
        axis.set_xticks([0, 1], [textwrap.fill(tick, 14) for tick in ticks])
        axis.set_xlim(-0.3, 1.3)
        axis.set_ylabel(label)
        if len(pairs) > 1:
            axis.legend(frameon=False)
    if len(pairs) == 1:
        style.legend_above(figure, axes[0])
    return figure, (
        f"Interaction: median over n = {len(sweep.seeds)} seeds (bold), each seed (thin); left in "
        f"the metric's unit, right as {log_name}. Lines that are parallel on one scale need not be "
        f"so on the other. {style.run_set(sweep, ledger)}"
    )


def improvement(sweep: Sweep, study: Study, ledger: Ledger, scores: Scores) -> tuple[Figure, str]:
    """Figure 8: how often a run of one variant is better than a run of another, for all pairs."""
    cells = sweep.cells
    better = np.full((len(cells), len(cells)), np.nan)
    for i, j in itertools.permutations(range(len(cells)), 2):
        a12 = rank_tests.a12(scores[cells[j]], scores[cells[i]])
        better[i, j] = a12 if study.direction == "higher" else 1 - a12
    few = len(cells) <= style.MOST_VARIANTS  # with more the matrix has colours only
    figure, (axis,) = style.subplots(1, 0.7 + 0.58 * len(cells) if few else 3.6)
    picture = axis.imshow(better, cmap="PuOr_r", vmin=0, vmax=1, aspect="auto")
    if few:
        for i, j in itertools.permutations(range(len(cells)), 2):
            shade = "white" if abs(better[i, j] - 0.5) > 0.35 else "black"
            axis.text(j, i, f"{better[i, j]:.2f}", ha="center", va="center", color=shade)
    if few:
        axis.set_xticks(range(len(cells)), LETTERS[: len(cells)])
        labels = [style.tick_lines(sweep, study, cell, 22) for cell in cells]
        labels = [f"{label}   {code}" for label, code in zip(labels, LETTERS, strict=False)]
        axis.set_yticks(range(len(cells)), labels, linespacing=1.05)
    else:
        axis.set(xlabel="Variant, in the order of the table", ylabel="Variant")
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    bar = figure.colorbar(picture, ax=axis, shrink=0.8, aspect=12)
    bar.set_label("P(row is better)")
    return figure, (
        f"Probability of improvement: the share of the {len(sweep.seeds)} × {len(sweep.seeds)} "
        f"pairs of runs in which the row's variant has the better score than the column's, ties "
        f"half (n = {len(sweep.seeds)} per variant). A description without regard to seeds, not a "
        f"test. {style.run_set(sweep, ledger)}"
    )
