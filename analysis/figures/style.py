"""The style of all figures: colors, sizes, labels of variants, writing files.

The colors of Okabe & Ito (2008) are distinct for color-blind readers; markers and line styles
distinguish variants in print too. Figures are ``COLUMN`` wide: scaled to a paper's column of 3.4
inches, their text has 5 to 6.7 points.
"""

import io
import re
import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator
from PIL import Image

from analysis.figures import fonts
from analysis.runs.data import StudyData
from lib.spec.files import write_atomically
from lib.spec.metric import Metric
from lib.spec.study import Study, Variant

COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
LINES = ["-", "--", "-.", ":"]
COLUMN = 4.6  # inches
MOST_VARIANTS = 12  # with more, curves are grouped by the first factor's level
PHOTOGRAPH = 1 << 14  # more colors than a chart with smooth edges has
LOGIT_TICKS = [0.01, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999]
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "figure.dpi": 200,
    "savefig.dpi": "figure",
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a level may contain dollar signs
}


def color(i: int) -> str:
    """Return the color of the i-th variant; there are eight."""
    return COLORS[i % len(COLORS)]


def marker(i: int) -> str:
    """Return the marker of the i-th variant; there are eight."""
    return MARKERS[i % len(MARKERS)]


def line(i: int) -> str:
    """Return the line style of the i-th variant; there are four."""
    return LINES[i % len(LINES)]


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write ``name``.png and ``name``.pdf, without dates: equal input and fonts, equal files."""
    contents = {}

    def draw() -> None:
        for kind, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            contents[kind] = io.BytesIO()
            figure.savefig(contents[kind], format=kind, metadata=metadata)

    fonts.draw_with_fallback(figure, draw)
    contents["png"] = _with_palette(contents["png"])
    for kind, content in contents.items():
        write_atomically(folder / f"{name}.{kind}", content.getvalue())
    plt.close(figure)


def _with_palette(content: io.BytesIO) -> io.BytesIO:
    """Return a PNG reduced to 256 colors (a third of the size), photographs unchanged."""
    image, smaller = Image.open(content).convert("RGB"), io.BytesIO()
    if image.getcolors(PHOTOGRAPH) is not None:
        image = image.quantize(256, dither=Image.Dither.NONE)
    image.save(smaller, format="png", optimize=True)
    return smaller


def use() -> None:
    """Set matplotlib's style for the figures that follow."""
    mpl.rcParams.update(STYLE)


def short_label(row: dict[str, Any], study: Study) -> str:
    """Return a short label of a contrast: treatment − baseline, or factor × factor."""
    if row["kind"] == "published":
        return row["name"]
    if row["kind"] == "main":
        ((factor, baseline, treatment),) = row["parts"]
        return f"{study.level_label(factor, treatment)} − {study.level_label(factor, baseline)}"
    return " × ".join(study.factor_label(factor) for factor, _, _ in row["parts"])


def subplots(
    panels: int, height: float, columns: int = 1, sharey: bool = True, sharex: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``panels`` axes in ``columns``, each ``height`` inches high."""
    use()
    rows = -(-panels // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(COLUMN, height * rows),
        sharey=sharey,
        sharex=sharex,
        squeeze=False,
    )
    for axis in axes.ravel()[panels:]:
        axis.remove()
    return figure, list(axes.ravel()[:panels])


def scale_of(values: np.ndarray, metric: Metric) -> str:
    """Return the scale of an axis for displayed ``values``: "logit", "logarithmic", or "" (linear).

    If the metric's second scale is log and the values span more than a decade, the axis is
    logarithmic. If it is logit and the distances to 1 span more than a decade, the axis is logit.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return ""
    low, high = values.min(), values.max()
    fraction = metric.scale == "logit" and metric.display_factor == 1
    if fraction and 0.9 < high < 1 and 1 - low > 10 * (1 - high):
        return "logit"
    return "logarithmic" if metric.scale == "log" and low > 0 and high / low > 10 else ""


def metric_scale(axes: list[Axes], values: np.ndarray, metric: Metric, which: str = "y") -> None:
    """Set the scale of the axis ``which`` for displayed ``values`` of the metric: ``scale_of``."""
    values = values[np.isfinite(values)]
    if not len(values):
        return
    low, high, scale = values.min(), values.max(), scale_of(values, metric)
    for axis in axes:
        scaled = axis.xaxis if which == "x" else axis.yaxis
        if scale == "logit":
            axis.set(**{f"{which}scale": "logit"})
            scaled.set_major_locator(FixedLocator(LOGIT_TICKS))
            scaled.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            scaled.set_minor_formatter(NullFormatter())
            axis.set(**{f"{which}lim": (max(low, 0.01), 1 - 0.8 * (1 - high))})
        elif scale == "logarithmic":
            axis.set(**{f"{which}scale": "log"})
            scaled.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            scaled.set_minor_formatter(
                FuncFormatter(lambda v, _: f"{v:g}" if f"{v:e}"[0] in "25" else "")
                if high / low < 300
                else NullFormatter()
            )


def symmetric_log(axis: Axes, threshold: float, bound: float, which: str = "x") -> None:
    """Make the axis ``which`` linear within ±``threshold`` and logarithmic to ±``bound``."""
    getattr(axis, f"set_{which}scale")("symlog", linthresh=threshold, linscale=0.6)
    decades = 10.0 ** np.arange(np.ceil(np.log10(3 * threshold)), np.log10(bound) + 0.01)
    ticks = np.array([threshold, *decades])
    own = axis.xaxis if which == "x" else axis.yaxis
    own.set_major_locator(FixedLocator([*-ticks, 0, *ticks]))
    own.set_minor_locator(NullLocator())
    own.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}".replace("-", "−")))


def legend_above(figure: Figure, *axes: Axes) -> None:
    """Put one legend with the entries of ``axes`` above the whole figure.

    A legend of many rows makes the figure higher instead of the axes smaller.
    """
    entries = [axis.get_legend_handles_labels() for axis in axes]
    handles = [handle for found, _ in entries for handle in found]
    labels = [label for _, found in entries for label in found]
    longest = max(map(len, labels), default=1)
    columns = max(1, min(4, len(labels), int(68 / (longest + 6))))  # 68 characters fit on a line
    rows = -(-len(labels) // columns)
    figure.set_figheight(figure.get_figheight() + 0.17 * max(0, rows - 4))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)


def draw_seeds(axis: Axes, epochs: np.ndarray, values: np.ndarray, i: int, label: str) -> None:
    """Draw the i-th variant's curves (seeds, epochs): thin lines, bold median, and a band."""
    alpha = max(0.06, min(0.45, 6 / len(values)))  # hundreds of opaque lines would hide each other
    axis.plot(epochs, values.T, color=color(i), linewidth=0.6, alpha=alpha)
    known = ~np.isnan(values).all(axis=0)  # epochs that no run reached have no median
    if not known.any():  # a variant without runs still gets an entry in the legend
        axis.plot([], [], color=color(i), linestyle=line(i), linewidth=1.8, label=label)
        return
    epochs, values = epochs[known], values[:, known]
    edges = (0, 100) if len(values) <= 5 else (25, 75)
    low, middle, high = np.nanpercentile(values, [edges[0], 50, edges[1]], axis=0)
    axis.fill_between(epochs, low, high, color=color(i), alpha=0.15, linewidth=0)
    dots = marker(i) if len(epochs) <= 12 else None
    style = {"color": color(i), "linestyle": line(i), "marker": dots, "markersize": 4}
    axis.plot(epochs, middle, linewidth=1.8, label=label, **style)


def band_name(seeds: int) -> str:
    """Return what the band of ``draw_seeds`` shows."""
    return "minimum to maximum" if seeds <= 5 else "quartiles"


def groups(study: Study) -> list[tuple[str, list[int]]]:
    """Return the label and variant indices of each curve: one per variant, or groups if many."""
    if len(study.variants) <= MOST_VARIANTS:
        return [(study.variant_label(v), [i]) for i, v in enumerate(study.variants)]
    first, levels = next(iter(study.factors.items()))
    members = {k: [i for i, v in enumerate(study.variants) if v[0] == k] for k in levels}
    return [(study.level_label(first, level), indices) for level, indices in members.items()]


def rows(study: Study, axis: Axes, heights: np.ndarray) -> None:
    """Label the y axis with the variants at these coordinates, on several lines if they are few."""
    if len(study.variants) <= MOST_VARIANTS:
        axis.set_yticks(heights, [tick_lines(study, variant, 24) for variant in study.variants])
    else:
        axis.set_yticks(heights, [study.variant_label(v) for v in study.variants], fontsize=6.5)


def row_height(study: Study, few: float) -> float:
    """Return the height of a variant's row in inches: ``few`` if there are few variants."""
    return few if len(study.variants) <= MOST_VARIANTS else 0.17


def tick_lines(study: Study, variant: Variant, width: int) -> str:
    """Return a variant's name for a tick label, with one level per line."""
    # Split at commas outside parentheses.
    words = re.split(r", (?![^(]*\))", study.variant_label(variant))
    return "\n".join(textwrap.fill(word, width) for word in words)


def run_set(data: StudyData) -> str:
    """Return the sentence on the runs that a figure shows."""
    number = len(data.run_ids)
    return f"Runs: all {number} of study {data.study.name}, listed in the .json next to the figure."


def lower_first(text: str) -> str:
    """Return the text with its first letter in lower case."""
    return text[:1].lower() + text[1:]
