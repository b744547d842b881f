"""How every figure looks: colours, sizes, labels of metrics and variants, writing files.

Colours are Okabe & Ito's (2008), told apart by colour-blind eyes; markers and line styles repeat
them for print.
"""

import io
import textwrap
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, SymmetricalLogLocator

from analysis.grid import Study, Sweep
from analysis.ledger import Ledger
from analysis.tables import replace_file

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
STATE_COLOURS = {"finished": "#BFE3D5", "diverged": "#F5C9A8"}
LOGIT_TICKS = [0.01, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999]
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 160,
    "savefig.dpi": "figure",
    "pdf.fonttype": 42,
}


def colour(i: int) -> str:
    """Return the colour of the i-th variant; they repeat after eight."""
    return COLOURS[i % len(COLOURS)]


def marker(i: int) -> str:
    """Return the marker of the i-th variant; they repeat after eight."""
    return MARKERS[i % len(MARKERS)]


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write ``name``.png and ``name``.pdf, without dates, so that equal input gives equal files."""
    for kind, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
        content = io.BytesIO()
        figure.savefig(content, format=kind, metadata=metadata)
        replace_file(folder / f"{name}.{kind}", content.getvalue())
    plt.close(figure)


def subplots(
    columns: int,
    width: float,
    height: float = 3.2,
    width_ratios: tuple[float, ...] | None = None,
    sharey: bool = True,
) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``columns`` axes side by side, each ``width`` × ``height`` inches."""
    mpl.rcParams.update(STYLE)
    figure, axes = plt.subplots(
        1,
        columns,
        figsize=(width * columns, height),
        sharey=sharey,
        squeeze=False,
        width_ratios=width_ratios,
    )
    return figure, list(axes[0])


def display_factor(study: Study) -> int:
    """Return 100 where the metric is shown in percent (errors), else 1."""
    return 100 if study.percent else 1


def metric_name(study: Study) -> str:
    """Return the metric in words: Test error, Test Jaccard index."""
    return part_name(study.metric.rpartition("/")[0], study)


def part_name(part: str, study: Study) -> str:
    """Return the study's quantity on another part of the data: Validation error."""
    words = {"test": "Test", "val": "Validation", "train": "Training"}
    return f"{words.get(part, part)} {study.quantity}"


def unit(study: Study) -> str:
    """Return what follows the metric's name on an axis."""
    return " (%)" if study.percent else ""


def metric_axis(axes: list[Axes], values: np.ndarray, label: str) -> None:
    """Label the shared y axis; logarithmic where positive values span more than a decade.

    Fractions whose distance to 1 spans more than a decade get a logit axis.
    """
    values = values[np.isfinite(values)]
    axes[0].set_ylabel(label)
    if len(values) and 0.9 < values.max() < 1 and 1 - values.min() > 10 * (1 - values.max()):
        for axis in axes:
            axis.set_yscale("logit", nonpositive="clip")
            axis.yaxis.set_major_locator(FixedLocator(LOGIT_TICKS))
            axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.set_ylim(max(values.min(), 0.01), 1 - 0.8 * (1 - values.max()))
    elif len(values) and values.min() > 0 and values.max() / values.min() > 10:
        for axis in axes:
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axis.yaxis.set_minor_formatter(
                FuncFormatter(lambda v, _: f"{v:g}" if f"{v:e}"[0] in "25" else "")
                if values.max() / values.min() < 300
                else NullFormatter()
            )


def symmetric_log(axis: Axes, threshold: float) -> None:
    """Make the x axis linear within ±``threshold`` and logarithmic beyond, with plain numbers."""
    axis.set_xscale("symlog", linthresh=threshold, linscale=0.6)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}".replace("-", "−")))
    axis.xaxis.set_major_locator(SymmetricalLogLocator(linthresh=threshold, base=10))


def legend_above(figure: Figure, axis: Axes) -> None:
    """Put the legend of ``axis``, which the other axes share, above the whole figure."""
    handles, labels = axis.get_legend_handles_labels()
    columns = max(1, min(3, len(labels), int(figure.get_figwidth() / 2.6)))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)


def band(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Return a band over a table's columns: min–max of up to five, else the quartiles."""
    if table.shape[1] <= 5:
        return table.min(axis=1), table.max(axis=1)
    return table.quantile(0.25, axis=1), table.quantile(0.75, axis=1)


def cell_label(sweep: Sweep, study: Study, cell: tuple, skip: str | None = None) -> str:
    """Name a cell in the study's words, but for the factor ``skip``."""
    words = [
        study.level_label(name, level)
        for name, level in zip(sweep.factors, cell, strict=True)
        if name != skip
    ]
    return ", ".join(words) or sweep.name


def tick_lines(sweep: Sweep, study: Study, cell: tuple, width: int) -> str:
    """Name a cell on several lines, a level a paragraph, for a tick label."""
    words = cell_label(sweep, study, cell).split(", ")
    return "\n".join(textwrap.fill(word, width) for word in words)


def run_set(sweep: Sweep, ledger: Ledger) -> str:
    """Say which runs are behind a figure."""
    count = sum(len(entry.runs) for entry in ledger.entries)
    return f"Runs: all {count} of sweep {sweep.name}, listed in results.json."


def wrap(text: str) -> str:
    """Break a contrast's name where its parts meet."""
    return text.replace(" instead of ", "\ninstead of ").replace(" and ", "\nand ")


def lower_first(text: str) -> str:
    """Begin with a small letter."""
    return text[:1].lower() + text[1:]
