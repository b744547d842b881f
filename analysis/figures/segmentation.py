"""Figures of segmentation studies: Dice per image, and contours on selected radiographs."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures import style
from analysis.runs import per_item
from analysis.runs.data import StudyData
from lib.spec.words import count

TRUTH, PREDICTED = "#F0E442", "#56B4E9"  # yellow solid, sky blue dashed: distinct without color too
DPI = 90  # enough for the pixels of the radiographs
SHOWN_FROM = 0.8  # Dice; the caption gives the number of lower values

Case = tuple[str, str, float]  # image, run, Dice


def _dice(data: StudyData, runs: list[str]) -> pd.DataFrame:
    return per_item.dice(per_item.of_runs(data.per_item, "jaccard", runs))


def _left_edge(data: StudyData) -> float:
    lowest = float(_dice(data, data.run_ids).min(axis=None))
    return max(SHOWN_FROM, lowest - 0.01)


def dice_ecdf(data: StudyData) -> Figure:
    """Plot the empirical distribution function of Dice over test images, one per variant."""
    figure, (axis,) = style.subplots(1, 3.3)
    for i, variant in enumerate(data.study.variants):
        dice = _dice(data, data.runs_of(variant)).dropna(how="all")
        look = {"color": style.color(i), "linestyle": style.line(i)}
        for run in dice:
            axis.ecdf(dice[run].dropna(), color=style.color(i), linewidth=0.4, alpha=0.3)
        label = data.study.variant_label(variant)
        axis.ecdf(dice.median(axis=1), label=label, linewidth=1.8, **look)
    axis.set_xlim(_left_edge(data), 1)
    axis.set_xlabel("Dice coefficient of a test image")
    axis.set_ylabel("Share of test images")
    style.legend_above(figure, axis)
    return figure


def dice_ecdf_caption(data: StudyData) -> str:
    """Return the figure's caption."""
    dice = _dice(data, data.run_ids)
    below = int((dice < _left_edge(data)).to_numpy().sum())
    lie = "lies" if below == 1 else "lie"
    outside = f"{count(below, 'value')} of single runs {lie} left of the axis. " if below else ""
    n = count(len(data.study.seeds), data.study.declaration.unit)
    return (
        f"Dice per test image (n = {count(len(dice), 'image')}): the share of images with at most "
        f"this value. Bold: each image's median over n = {n}; "
        f"thin: single runs. Curves further right are better. {outside}{style.run_set(data)}"
    )


def _chosen(data: StudyData) -> tuple[list[str], list[list[Case]]]:
    """Return the images with the lowest, middle and highest median Dice, and the runs to show.

    For each variant this is the run with the median Dice on the image (for an even number, the
    lower of the middle two) over the variant's seeds. Only images that every variant tested.
    """
    dice = _dice(data, data.run_ids)
    tested = [dice[data.runs_of(v)].notna().any(axis=1) for v in data.study.variants]
    order = dice[np.all(tested, axis=0)].median(axis=1).sort_values(kind="stable").index
    if not len(order):
        return [], [[] for _ in data.study.variants]
    chosen = [order[0], order[len(order) // 2], order[-1]]
    return chosen, [
        [_median_run(dice[data.runs_of(variant)].loc[name].dropna()) for name in chosen]
        for variant in data.study.variants
    ]


def overlays(data: StudyData) -> Figure | None:
    """Plot contours of truth and prediction on the worst, the middle and the best image.

    One row per variant. None if the runs' masks are not among the study's files.
    """
    labels = [style.tick_lines(data.study, variant, 18) for variant in data.study.variants]
    return draw_cases(_chosen(data)[1], labels, data.folder / per_item.FILES)


def overlays_runs(data: StudyData) -> list[str]:
    """Return the runs that the figure shows."""
    return sorted({run for row in _chosen(data)[1] for _, run, _ in row})


def overlays_caption(data: StudyData) -> str:
    """Return the figure's caption."""
    chosen, rows = _chosen(data)
    runs = "; ".join(" ".join(run for _, run, _ in row) for row in rows)
    return (
        f"Lung fields on three test images: {chosen[0]}, {chosen[1]} and {chosen[2]} have the "
        f"lowest, the middle and the highest median Dice over all {len(data.run_ids)} runs. "
        "Yellow: truth; blue, dashed: the run whose Dice on the image is the median"
        f"{_lower_middle(len(data.study.seeds))} over the variant's "
        f"{data.study.declaration.unit}s (row by row: {runs}). {data.study.declaration.data_source}"
    )


def _worst_cases(data: StudyData, number: int) -> list[Case]:
    dice = _dice(data, data.run_ids)
    order = dice.median(axis=1).sort_values(kind="stable").index[:number]
    return [_median_run(dice.loc[name].dropna()) for name in order]


def worst_images(data: StudyData, number: int) -> Figure | None:
    """Plot contours on the ``number`` images with the lowest median Dice over the seeds."""
    cases = _worst_cases(data, number)
    rows = [cases[i : i + 5] for i in range(0, number, 5)]
    return draw_cases(rows, [""] * len(rows), data.folder / per_item.FILES)


def worst_images_runs(data: StudyData, number: int) -> list[str]:
    """Return the runs that the figure shows."""
    return sorted({run for _, run, _ in _worst_cases(data, number)})


def worst_images_caption(data: StudyData, number: int, source: str) -> str:
    """Return the figure's caption; ``source``: the citation of the images."""
    cases = _worst_cases(data, number)
    runs = " ".join(run for _, run, _ in cases)
    return (
        f"The {len(cases)} of {len(data.per_item)} radiographs with the lowest median Dice over "
        f"the seeds of {data.study.name}, each tested by models that were not trained on its fold. "
        f"Yellow: truth; blue, dashed: the run with the median Dice"
        f"{_lower_middle(len(data.study.seeds))} (in order: {runs}). {source}"
    )


def _lower_middle(seeds: int) -> str:
    """Return which run is the median of an even number, for a caption; empty for an odd number."""
    return "" if seeds % 2 else " (the lower of the middle two)"


def draw_cases(rows: list[list[Case]], labels: list[str], files: Path) -> Figure | None:
    """Return a grid of radiographs with contours, or None if a run's masks are missing."""
    paths = {run: files / run / per_item.OVERLAYS for row in rows for _, run, _ in row}
    if not all(path.exists() for path in paths.values()):
        return None
    saved = {run: per_item.load(path) for run, path in paths.items()}
    columns = max(map(len, rows))
    style.use()
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
    for mask, color, look in ((truth, TRUTH, "-"), (predicted, PREDICTED, "--")):
        if mask.any() and not mask.all():
            axis.contour(mask, [0.5], colors=color, linestyles=look, linewidths=1.1)


def _median_run(dice: pd.Series) -> Case:
    """Return image, run and Dice for the run with the median Dice on this image."""
    ordered = dice.sort_values(kind="stable")
    middle = (len(ordered) - 1) // 2
    return str(dice.name), str(ordered.index[middle]), float(ordered.iloc[middle])
