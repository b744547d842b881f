"""Figures of segmentation studies: Dice per image, and contours on radiographs chosen by rule."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.grid import Study, Sweep
from analysis.runs import per_item
from analysis.runs.completeness import Ledger

TRUTH, PREDICTED = "#F0E442", "#56B4E9"  # yellow solid, sky blue dashed: apart without colour too
DPI = 90  # of radiographs, which fill pages: enough for their pixels
SHOWN_FROM = 0.8  # Dice; the figure says how many values lie below

Case = tuple[str, str, float]  # image, run, Dice


def dice_ecdf(
    sweep: Sweep, study: Study, ledger: Ledger, jaccard: pd.DataFrame
) -> tuple[Figure, str]:
    """Figure 9a: the share of test images with at most a given Dice, a curve per variant."""
    figure, (axis,) = style.subplots(1, 3.3)
    lowest = 1.0
    for i, cell in enumerate(sweep.cells):
        dice = per_item.dice(jaccard[ledger.runs(cell)]).dropna(how="all")
        look = {"color": style.colour(i), "linestyle": style.line(i)}
        for run in dice:
            axis.ecdf(dice[run].dropna(), color=style.colour(i), linewidth=0.4, alpha=0.3)
        label = style.cell_label(sweep, study, cell)
        axis.ecdf(dice.median(axis=1), label=label, linewidth=1.8, **look)
        lowest = min(lowest, float(dice.min().min()))
    left = max(SHOWN_FROM, lowest - 0.01)
    axis.set_xlim(left, 1)
    axis.set_xlabel("Dice of a test image")
    axis.set_ylabel("Share of test images")
    style.legend_above(figure, axis)
    below = int((per_item.dice(jaccard) < left).sum().sum())
    return figure, (
        f"Dice per test image (n = {len(dice)} images): the share of images with at most this "
        f"value. Bold: each image's median over n = {len(sweep.seeds)} seeds; thin: single runs; "
        f"a curve further to the right is better. "
        f"{f'{below} value(s) of single runs lie left of the axis. ' if below else ''}"
        f"{style.run_set(sweep, ledger)}"
    )


def overlays(
    sweep: Sweep, study: Study, ledger: Ledger, jaccard: pd.DataFrame, files: Path
) -> tuple[Figure | None, str, list[str]]:
    """Figure 9b: contours of truth and prediction on the worst, the middle and the best image.

    The images with the lowest, the middle and the highest median Dice over all runs; a row per
    variant, from the run whose Dice on the image is the median over the variant's seeds. Returns
    figure, caption and the runs shown; the figure is None where their masks are not in ``files``.
    """
    dice = per_item.dice(jaccard)
    order = dice.median(axis=1).sort_values(kind="stable").index
    chosen = [order[0], order[len(order) // 2], order[-1]]
    rows = [
        [_median_run(dice[ledger.runs(cell)].loc[name]) for name in chosen] for cell in sweep.cells
    ]
    labels = [style.tick_lines(sweep, study, cell, 18) for cell in sweep.cells]
    runs = "; ".join(" ".join(run for _, run, _ in row) for row in rows)
    caption = (
        f"Lung fields on three test images: {chosen[0]}, {chosen[1]} and {chosen[2]} have the "
        f"lowest, the middle and the highest median Dice over all {dice.shape[1]} runs. Yellow: "
        f"truth; blue, dashed: the run whose Dice on the image is the median over the variant's "
        f"seeds (row by row: {runs}). {study.data_source}"
    )
    shown = sorted({run for row in rows for _, run, _ in row})
    return draw_cases(rows, labels, files), caption, shown


def worst_images(
    study: Study, jaccard: pd.DataFrame, count: int, files: Path
) -> tuple[Figure | None, str, list[str]]:
    """Figure 9c: contours on the ``count`` images with the lowest median Dice over the seeds."""
    dice = per_item.dice(jaccard)
    order = dice.median(axis=1).sort_values(kind="stable").index[:count]
    cases = [_median_run(dice.loc[name].dropna()) for name in order]
    rows = [cases[i : i + 5] for i in range(0, count, 5)]
    runs = " ".join(run for _, run, _ in cases)
    caption = (
        f"The {len(cases)} of {len(dice)} radiographs with the lowest median Dice over the seeds "
        f"of {study.folds}, each tested by models that were not trained on its fold. Yellow: "
        f"truth; blue, dashed: the run with the median Dice (in order: {runs}). {study.data_source}"
    )
    return draw_cases(rows, [""] * len(rows), files), caption, sorted({r for _, r, _ in cases})


def draw_cases(rows: list[list[Case]], labels: list[str], files: Path) -> Figure | None:
    """Return a grid of radiographs with contours, or None where a run's masks are missing."""
    paths = {run: files / run / per_item.OVERLAYS for row in rows for _, run, _ in row}
    if not all(path.exists() for path in paths.values()):
        return None
    saved = {run: per_item.load(path) for run, path in paths.items()}
    columns = max(map(len, rows))
    plt.rcParams.update(style.STYLE)
    size = (2.1 * columns + 1.2 * any(labels), 2.35 * len(rows) + 0.4)
    figure, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False, dpi=DPI)
    for axis in axes.ravel():
        axis.set_axis_off()
    for line, row, label in zip(axes, rows, labels, strict=True):
        for axis, (name, run, dice) in zip(line, row, strict=False):
            _panel(axis, saved[run], name)
            axis.set_title(f"{name}, Dice {dice:.3f}", fontsize=8)
        line[0].text(
            -0.06, 0.5, label, transform=line[0].transAxes, ha="right", va="center", fontsize=8
        )
    lines = [
        Line2D([], [], color=TRUTH, label="truth"),
        Line2D([], [], color=PREDICTED, linestyle="--", label="prediction"),
    ]
    legend = figure.legend(handles=lines, loc="outside upper center", ncols=2, facecolor="0.35")
    for text in legend.get_texts():
        text.set_color("white")
    return figure


def _panel(axis: Axes, arrays: dict[str, np.ndarray], name: str) -> None:
    index = arrays["names"].tolist().index(name)
    image, truth, predicted = (arrays[k][index, 0] for k in ("images", "truth", "predicted"))
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    for mask, colour, look in ((truth, TRUTH, "-"), (predicted, PREDICTED, "--")):
        if mask.any() and not mask.all():
            axis.contour(mask, [0.5], colors=colour, linestyles=look, linewidths=1.1)


def _median_run(dice: pd.Series) -> Case:
    """Return image, run and Dice where the Dice of one image is the median over runs."""
    ordered = dice.sort_values(kind="stable")
    middle = (len(ordered) - 1) // 2
    return str(dice.name), str(ordered.index[middle]), float(ordered.iloc[middle])
