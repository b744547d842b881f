"""The figures of a report: each function returns a matplotlib figure and its caption.

Numbers are those of the design's list: 1 learning curves, 3 final scores, 4 forest plot,
5 interaction, 7 integrity strip. Colours are Okabe & Ito's (2008), told apart by colour-blind eyes;
markers and line styles repeat them for print.
"""

import itertools
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from analysis.contrasts import Tested
from analysis.grid import Study, Sweep
from analysis.ledger import Ledger
from analysis.statement import format_p, subject

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
STATE_COLOURS = {
    "finished": "#BFE3D5",
    "diverged": "#F5C9A8",
    "missing": "#FFFFFF",
}
PROBLEM_COLOUR = "#E8A0A0"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 160,
    "pdf.fonttype": 42,
}

Scores = dict[tuple, list[float]]


def learning_curves(
    sweep: Sweep, study: Study, ledger: Ledger, history: pd.DataFrame
) -> tuple[Figure, str]:
    """Figure 1: validation metric against epoch, every seed, their median and a band."""
    quantity = study.metric.split("/")[-1]
    part = "val" if history.get(f"val/{quantity}", pd.Series()).notna().any() else "train"
    column, scale = f"{part}/{quantity}", _scale(study)
    first = next(iter(sweep.factors), None)
    panels = sweep.factors[first] if len(sweep.factors) > 1 else [None]
    figure, axes = _subplots(len(panels), 3.4)
    for axis, level in zip(axes, panels, strict=True):
        cells = [c for c in sweep.cells if level is None or c[0] == level]
        for i, cell in enumerate(cells):
            curves = [
                history.loc[history["run_id"] == run].set_index("epoch")[column] * scale
                for run in ledger.runs(cell)
            ]
            table = pd.concat(curves, axis=1)
            axis.plot(table, color=COLOURS[i], linewidth=0.6, alpha=0.45)
            low, high = _band(table)
            axis.fill_between(table.index, low, high, color=COLOURS[i], alpha=0.15, linewidth=0)
            axis.plot(
                table.median(axis=1),
                color=COLOURS[i],
                linewidth=2,
                linestyle=["-", "--", "-.", ":"][i % 4],
                marker=MARKERS[i % len(MARKERS)] if len(table) <= 12 else None,
                label=_cell_label(sweep, study, cell, skip=first if level is not None else None),
            )
        axis.set_xlabel("Epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if level is not None:
            axis.set_title(study.level_label(first, level))
        axis.legend(frameon=False)
    name = {"val": "Validation", "train": "Training"}[part]
    _metric_axis(axes, history[column].to_numpy() * scale, f"{name} {quantity}{_unit(study)}")
    n = len(sweep.seeds)
    band = "minimum to maximum" if n <= 5 else "quartiles"
    return figure, (
        f"{name} {quantity} against epoch. Thin lines: one per seed (n = {n} per variant); bold: "
        f"median over seeds; band: {band} over seeds. {_run_set(sweep, ledger)}"
    )


def final_scores(sweep: Sweep, study: Study, ledger: Ledger, scores: Scores) -> tuple[Figure, str]:
    """Figure 3: each run's score, a dot a run, lines joining the runs of a seed."""
    figure, (axis,) = _subplots(1, 1.1 + 1.35 * len(sweep.cells))
    table = np.array([scores[cell] for cell in sweep.cells]) * _scale(study)
    axis.plot(table, color="0.75", linewidth=0.7, zorder=1)
    for i, values in enumerate(table):
        axis.scatter(
            np.full(len(values), i), values, color=COLOURS[i % 8], marker=MARKERS[i % 8], zorder=2
        )
        middle = np.median(values)
        axis.plot([i - 0.22, i + 0.22], [middle, middle], color="black", linewidth=2, zorder=3)
        axis.annotate(
            f"{middle:.3g}", (i + 0.25, middle), va="center", fontsize=8, annotation_clip=False
        )
    labels = [_cell_label(sweep, study, cell).replace(", ", "\n") for cell in sweep.cells]
    axis.set_xticks(range(len(labels)), labels)
    axis.set_xlim(-0.5, len(labels) - 0.3)
    quantity = study.metric.split("/")[-1]
    _metric_axis([axis], table, f"Test {quantity}{_unit(study)}")
    return figure, (
        f"Test {quantity} per variant ({_rule(study)}). One dot per run (n = {len(sweep.seeds)} "
        f"per variant), grey lines join runs with the same seed, black bars and numbers: medians; "
        f"{study.direction} is better. {_run_set(sweep, ledger)}"
    )


def forest(study: Study, tested: list[Tested], ledger: Ledger, sweep: Sweep) -> tuple[Figure, str]:
    """Figure 4: difference with exact interval for every primary contrast, with its numbers."""
    scale, n = _scale(study), len(tested)
    figure, (axis,) = _subplots(1, 7.2, height=1.3 + 0.62 * n)
    delta = study.smallest_effect
    if delta:
        axis.axvspan(-delta * scale, delta * scale, color="0.9", label="±δ, set beforehand")
        axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2)
    axis.axvline(0, color="black", linewidth=0.8)
    for i, t in enumerate(tested):
        estimate, low, high = (
            scale * v for v in (t.interval.estimate, t.interval.low, t.interval.high)
        )
        axis.plot([low, high], [i, i], color=COLOURS[0], linewidth=2)
        axis.plot(estimate, i, "o", color=COLOURS[0])
        axis.annotate(
            f"n = {t.test.n}   p = {format_p(t.test.p)}   Holm p = {format_p(t.p_holm)}   "
            f"r = {t.test.rank_biserial:+.2f}",
            (1.02, i),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8,
        )
    axis.set_yticks(range(n), [_wrap(subject(t.contrast, study)) for t in tested])
    axis.set_ylim(n - 0.5, -0.5)
    unit = " (percentage points)" if scale == 100 else ""
    axis.set_xlabel(f"Difference in test {study.metric.split('/')[-1]}{unit}")
    confidence = 100 * tested[0].interval.confidence
    return figure, (
        f"Primary contrasts: Hodges–Lehmann difference and exact {confidence:.3g} % interval over "
        f"seeds (not corrected for several comparisons), level 2 minus level 1; p: exact "
        f"signed-rank test, Holm p: corrected over {n}; r: matched-pairs rank-biserial "
        f"correlation. Negative: level 2 has the lower value; {study.direction} is better. "
        f"{_run_set(sweep, ledger)}"
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
    names, quantity = list(sweep.factors), study.metric.split("/")[-1]
    table = np.array([scores[c] for c in sweep.cells])
    table = table.reshape(*(len(levels) for levels in sweep.factors.values()), -1)
    error = quantity == "error"
    tiny = np.finfo(float).tiny
    transformed = np.log10(np.maximum(100 * table, tiny)) if error else _logit(table)
    log_name = "log10 of error in %" if error else f"logit of {quantity}"
    panels = [
        (pair, *view)
        for pair in pairs
        for view in (
            (table * _scale(study), f"Test {quantity}{_unit(study)}"),
            (transformed, log_name),
        )
    ]
    figure, axes = plt.subplots(len(pairs), 2, figsize=(7.2, 3.1 * len(pairs)), squeeze=False)
    for axis, ((a, b), values, label) in zip(axes.ravel(), panels, strict=True):
        others = tuple(i for i in range(len(names)) if i not in (a, b))
        mean = values.mean(axis=others)  # (2, 2, seeds)
        for i, level in enumerate(sweep.factors[names[a]]):
            axis.plot([0, 1], mean[i], color=COLOURS[i], linewidth=0.5, alpha=0.4)
            axis.plot(
                [0, 1],
                np.median(mean[i], axis=1),
                color=COLOURS[i],
                marker=MARKERS[i],
                linestyle=["-", "--"][i],
                linewidth=2,
                label=study.level_label(names[a], level),
            )
        axis.set_xticks([0, 1], [study.level_label(names[b], v) for v in sweep.factors[names[b]]])
        axis.set_xlim(-0.25, 1.25)
        axis.set_ylabel(label)
        axis.legend(frameon=False)
    return figure, (
        f"Interaction: median over n = {len(sweep.seeds)} seeds (bold), each seed (thin); left in "
        f"the metric's unit, right as {log_name}. Lines that are parallel on one scale need not be "
        f"so on the other. {_run_set(sweep, ledger)}"
    )


def integrity(sweep: Sweep, study: Study, ledger: Ledger) -> tuple[Figure, str]:
    """Figure 7: every expected cell × seed with its state, epochs and minutes."""
    rows, columns = len(sweep.cells), len(sweep.seeds)
    figure, (axis,) = _subplots(1, 2.6 + 0.62 * columns, height=0.9 + 0.5 * rows)
    for k, entry in enumerate(ledger.entries):
        i, j = divmod(k, columns)
        colour = STATE_COLOURS.get(entry.state, PROBLEM_COLOUR)
        axis.add_patch(
            plt.Rectangle((j, i), 1, 1, facecolor=colour, edgecolor="white", linewidth=2)
        )
        word = "" if entry.state == "finished" else f"{entry.state}\n"
        text = f"{word}{entry.epochs} ep\n{entry.seconds / 60:.1f} min" if entry.epochs else word
        axis.text(j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=7)
    axis.set_xlim(0, columns)
    axis.set_ylim(rows, 0)
    axis.set_xticks(np.arange(columns) + 0.5, sweep.seeds)
    axis.set_yticks(
        np.arange(rows) + 0.5,
        [_cell_label(sweep, study, c).replace(", ", "\n") for c in sweep.cells],
    )
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_xlabel("Seed")
    states = pd.Series([e.state for e in ledger.entries]).value_counts()
    counted = ", ".join(f"{count} {state}" for state, count in states.items())
    return figure, (
        f"Integrity: the {rows * columns} expected runs, one box a variant and seed, with epochs "
        f"and minutes of training; {counted}."
    )


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write ``name``.png and ``name``.pdf, without dates, so that equal input gives equal files."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", metadata={"Software": None})
    figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
    plt.close(figure)


def _subplots(columns: int, width: float, height: float = 3.2) -> tuple[Figure, list[Axes]]:
    mpl.rcParams.update(STYLE)
    figure, axes = plt.subplots(
        1, columns, figsize=(width * columns, height), sharey=True, squeeze=False
    )
    return figure, list(axes[0])


def _scale(study: Study) -> int:
    """Return 100 where the metric is shown in percent (errors), else 1."""
    return 100 if study.metric.endswith("error") else 1


def _unit(study: Study) -> str:
    return " (%)" if _scale(study) == 100 else ""


def _metric_axis(axes: list[Axes], values: np.ndarray, label: str) -> None:
    """Label the shared y axis; logarithmic where positive values span more than a decade."""
    values = values[np.isfinite(values)]
    axes[0].set_ylabel(label)
    if len(values) and values.min() > 0 and values.max() / values.min() > 10:
        for axis in axes:
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axis.yaxis.set_minor_formatter(
                FuncFormatter(lambda v, _: f"{v:g}" if f"{v:e}"[0] in "25" else "")
                if values.max() / values.min() < 300
                else NullFormatter()
            )


def _band(table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    if table.shape[1] <= 5:
        return table.min(axis=1), table.max(axis=1)
    return table.quantile(0.25, axis=1), table.quantile(0.75, axis=1)


def _cell_label(sweep: Sweep, study: Study, cell: tuple, skip: str | None = None) -> str:
    words = [
        study.level_label(name, level)
        for name, level in zip(sweep.factors, cell, strict=True)
        if name != skip
    ]
    return ", ".join(words) or sweep.name


def _logit(values: np.ndarray) -> np.ndarray:
    clipped = np.clip(values, 1e-9, 1 - 1e-9)
    return np.log(clipped / (1 - clipped))


def _rule(study: Study) -> str:
    return {"last": "last epoch", "best_on_validation": "epoch best on validation"}[
        study.score_rule
    ]


def _run_set(sweep: Sweep, ledger: Ledger) -> str:
    count = sum(len(entry.runs) for entry in ledger.entries)
    return f"Runs: all {count} of sweep {sweep.name}, listed in results.json."


def _wrap(text: str) -> str:
    return text.replace(" instead of ", "\ninstead of ").replace(" and ", "\nand ")
