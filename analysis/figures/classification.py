"""Figures of classification studies: error per class, and which classes are taken for which."""

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from analysis.figures import style
from analysis.grid import Study, Sweep
from analysis.runs.completeness import Ledger

# The 43 classes of the German Traffic Sign Recognition Benchmark (Stallkamp et al. 2012).
# fmt: off
GTSRB = [
    "20 km/h", "30 km/h", "50 km/h", "60 km/h", "70 km/h", "80 km/h", "end of 80 km/h",
    "100 km/h", "120 km/h", "no passing", "no passing for trucks", "right of way",
    "priority road", "give way", "stop", "no vehicles", "no trucks", "no entry", "danger",
    "curve left", "curve right", "double curve", "bumpy road", "slippery road",
    "narrows on the right", "road works", "traffic lights", "pedestrians", "children", "bicycles",
    "ice or snow", "wild animals", "end of limits", "turn right", "turn left", "ahead only",
    "ahead or right", "ahead or left", "keep right", "keep left", "roundabout",
    "end of no passing", "end of no passing, trucks",
]
# fmt: on
SHOWN = 20  # classes
PAIRS = 5  # confusions that the caption names


def class_name(study: Study, label: int) -> str:
    """Name a class: its number, with words where the study says whose classes they are."""
    return f"{label} {GTSRB[label]}" if study.class_names == "gtsrb" else f"class {label}"


def class_errors(
    sweep: Sweep, study: Study, ledger: Ledger, table: pd.DataFrame
) -> tuple[Figure, str]:
    """Figure 9a: each variant's error on the classes that are hardest over all runs.

    ``table``: ``label`` and a predicted class per run, a row an image.
    """
    wrong = {
        cell: table[ledger.runs(cell)].ne(table["label"], axis=0).groupby(table["label"]).mean()
        for cell in sweep.cells
    }
    medians = pd.DataFrame({i: wrong[cell].median(axis=1) for i, cell in enumerate(sweep.cells)})
    order = medians.mean(axis=1).sort_values(ascending=False, kind="stable").index[:SHOWN]
    figure, (axis,) = style.subplots(1, 0.8 + 0.19 * len(order))
    rows = np.arange(len(order))
    for i, cell in enumerate(sweep.cells):
        low, high = (wrong[cell].loc[order].agg(f, axis=1) for f in ("min", "max"))
        place = rows + 0.64 * ((i + 0.5) / len(sweep.cells) - 0.5)
        axis.hlines(place, 100 * low, 100 * high, color=style.colour(i), linewidth=0.7)
        label = style.cell_label(sweep, study, cell)
        look = {"color": style.colour(i), "marker": style.marker(i), "s": 12}
        axis.scatter(100 * medians.loc[order, i], place, label=label, zorder=3, **look)
    counts = table["label"].value_counts()
    axis.set_yticks(rows, [f"{class_name(study, k)} ({counts[k]})" for k in order])
    axis.set_ylim(len(order) - 0.4, -0.6)
    axis.set_xlabel("Test error of the class (%)")
    wide = bool((medians.loc[order] < 0.05).any(axis=None))
    if wide:
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xlim(left=-0.05)
        axis.set_xticks([0, 1, 2, 5, 10, 20, 50, 100], [0, 1, 2, 5, 10, 20, 50, 100])
    axis.grid(axis="y", color="0.92")
    axis.set_axisbelow(True)
    style.legend_above(figure, axis)
    return figure, (
        f"Test error per class: the {len(order)} of {len(counts)} classes with the highest error, "
        f"in brackets their number of test images. Marks: median over n = {len(sweep.seeds)} "
        f"seeds, lines: lowest to highest{'; the axis is logarithmic beyond 1 %' * wide}. "
        f"{style.run_set(sweep, ledger)}"
    )


def confusion(
    sweep: Sweep, study: Study, ledger: Ledger, table: pd.DataFrame, scores: dict[tuple, list]
) -> tuple[Figure, str, list[str]]:
    """Figure 9b: mistakes of the variant with the best median score, true class by predicted one.

    Counts are means over its runs; what a diverged run predicts (-1) is no class and is left out.
    """
    medians = [np.median(scores[cell]) for cell in sweep.cells]
    best = int(np.argmin(medians) if study.direction == "lower" else np.argmax(medians))
    cell = sweep.cells[best]
    runs = ledger.runs(cell)
    classes = int(table["label"].max()) + 1
    counts = np.zeros((classes, classes))
    for run in runs:
        own = table[table[run].between(0, classes - 1)]
        np.add.at(counts, (own["label"].to_numpy(int), own[run].to_numpy(int)), 1 / len(runs))
    np.fill_diagonal(counts, 0)
    figure, (axis,) = style.subplots(1, 4.1)
    shown = np.where(counts > 0, counts, np.nan)
    norm = LogNorm(1 / len(runs), max(1.0, counts.max()))
    picture = axis.imshow(shown, cmap="cividis_r", norm=norm)
    axis.plot([-0.5, classes - 0.5], [-0.5, classes - 0.5], color="0.8", linewidth=0.6)
    axis.set_xlabel("Predicted class")
    axis.set_ylabel("True class")
    axis.set_xticks(range(0, classes, 5))
    axis.set_yticks(range(0, classes, 5))
    axis.set_xticks(range(classes), minor=True)
    axis.set_yticks(range(classes), minor=True)
    axis.set_facecolor("0.97")
    bar = figure.colorbar(picture, ax=axis, shrink=0.8)
    bar.set_label("Test images, mean over runs")
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    order = np.argsort(-counts, axis=None, kind="stable")[:PAIRS]
    pairs = [divmod(int(k), classes) for k in order if counts.flat[k] > 0]
    named = "; ".join(
        f"{class_name(study, a)} taken for {class_name(study, b)}: {counts[a, b]:.1f}"
        for a, b in pairs
    )
    caption = (
        f"Confusions of the variant with the best median score, "
        f"{style.cell_label(sweep, study, cell)}: images of each true class (row) taken for "
        f"each other class (column), mean over its n = {len(runs)} runs of {len(table):,} test "
        f"images; correct ones are left out. Most frequent: {named}. Runs: {' '.join(runs)}."
    )
    return figure, caption, runs
