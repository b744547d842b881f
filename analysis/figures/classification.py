"""Figures of classification studies: error per class and confusion matrix."""

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from analysis.figures import style
from analysis.runs import per_item
from analysis.runs.data import StudyData
from lib.spec import gtsrb_classes
from lib.spec.study import Study, Variant
from lib.spec.words import count

SHOWN = 20  # classes in the figure of errors per class
PAIRS = 5  # confusions listed in the caption


def class_name(study: Study, label: int) -> str:
    """Return the name of a class: its number and, for a known data set, its meaning."""
    if study.declaration.class_names == "gtsrb":
        return f"{label}: {gtsrb_classes.NAMES[label]}"
    return f"class {label}"


def _class_in_words(study: Study, label: int) -> str:
    """Return the name of a class for running text: "class 7 (100 km/h)"."""
    _, _, name = class_name(study, label).partition(" ")
    return f"class {label} ({name})" if study.declaration.class_names else f"class {label}"


def _by_class(data: StudyData) -> tuple[list[pd.DataFrame], pd.DataFrame, pd.Index]:
    """Return each variant's error by class and run, the medians, and the hardest classes.

    Without failed runs. The hardest classes have the highest mean error over all runs.
    """
    labels = data.per_item["label"]
    predicted = per_item.of_runs(data.per_item, "predicted", data.run_ids)
    wrong = [
        per_item.wrong(predicted[_intact(data, variant)], labels).groupby(labels).mean()
        for variant in data.study.variants
    ]
    medians = pd.DataFrame({i: errors.median(axis=1) for i, errors in enumerate(wrong)})
    means = pd.concat(wrong, axis=1).mean(axis=1).sort_values(ascending=False, kind="stable")
    errors = means[means > 0] if (means > 0).any() else means
    return wrong, medians, errors.index[:SHOWN]


def _intact(data: StudyData, variant: Variant) -> list[str]:
    return [run for run in data.runs_of(variant) if run not in data.failures]


def _is_wide(medians: pd.DataFrame, order: pd.Index) -> bool:
    return bool((medians.loc[order] < 0.05).any(axis=None))


def class_errors(data: StudyData) -> Figure:
    """Plot each variant's error on the classes with the highest error over all runs."""
    study = data.study
    wrong, medians, order = _by_class(data)
    figure, (axis,) = style.subplots(1, 0.8 + 0.19 * len(order))
    rows = np.arange(len(order))
    for i, variant in enumerate(study.variants):
        low, high = (wrong[i].loc[order].agg(f, axis=1) for f in ("min", "max"))
        y = rows + 0.64 * ((i + 0.5) / len(study.variants) - 0.5)
        axis.hlines(y, 100 * low, 100 * high, color=style.color(i), linewidth=0.7)
        look = {"color": style.color(i), "marker": style.marker(i), "s": 12}
        label = study.variant_label(variant)
        axis.scatter(100 * medians.loc[order, i], y, label=label, zorder=3, **look)
    counts = data.per_item["label"].value_counts()
    axis.set_yticks(rows, [f"{class_name(study, k)} ({counts[k]})" for k in order])
    axis.set_ylim(len(order) - 0.4, -0.6)
    axis.set_xlabel("Test error of the class (%)")
    if _is_wide(medians, order):
        axis.set_xscale("symlog", linthresh=1)
        axis.set_xlim(left=-0.05)
        axis.set_xticks([0, 1, 2, 5, 10, 20, 50, 100], [0, 1, 2, 5, 10, 20, 50, 100])
    axis.grid(axis="y", color="0.92")
    axis.set_axisbelow(True)
    style.legend_above(figure, axis)
    return figure


def class_errors_caption(data: StudyData) -> str:
    """Return the figure's caption."""
    _, medians, order = _by_class(data)
    wide = "; the axis is logarithmic beyond 1 %" * _is_wide(medians, order)
    classes, lost = data.per_item["label"].nunique(), len(data.failures)
    failed = f"Without {count(lost, 'failed run')}. " if lost else ""
    which = "with the highest mean error over runs" if len(order) == SHOWN else "with errors"
    return (
        f"Test error per class: the {len(order)} of {classes} classes {which} (number of test "
        "items in parentheses). Markers: median over n = "
        f"{count(len(data.study.seeds), data.study.declaration.unit)}; lines: minimum to "
        f"maximum{wide}. {failed}{style.run_set(data)}"
    )


def best_variant(data: StudyData) -> Variant:
    """Return the variant with the best median score."""
    medians = data.study.metric.sign * np.median(data.scores, axis=1)
    return data.study.variants[int(np.argmax(medians))]


def _confusions(data: StudyData) -> np.ndarray:
    """Return the errors by true (row) and predicted class, mean over the best variant's runs.

    Predictions of diverged runs (-1) and items without one are skipped; the diagonal is 0.
    """
    runs = data.runs_of(best_variant(data))
    labels = data.per_item["label"].to_numpy(int)
    predicted = per_item.of_runs(data.per_item, "predicted", runs)
    classes = int(labels.max()) + 1
    counts = np.zeros((classes, classes))
    for run in runs:
        classified = predicted[run].fillna(-1).to_numpy(int)
        known = (classified >= 0) & (classified < classes)
        np.add.at(counts, (labels[known], classified[known]), 1 / len(runs))
    np.fill_diagonal(counts, 0)
    return counts


def confusion(data: StudyData) -> Figure:
    """Plot the errors of the variant with the best median score, true by predicted class."""
    counts = _confusions(data)
    classes, runs = len(counts), data.runs_of(best_variant(data))
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
    bar.set_label("Test items, mean over runs")
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    return figure


def confusion_caption(data: StudyData) -> str:
    """Return the figure's caption."""
    study, counts, variant = data.study, _confusions(data), best_variant(data)
    runs = data.runs_of(variant)
    predicted = per_item.of_runs(data.per_item, "predicted", runs)
    each = round(predicted.notna().sum().mean())  # folds may have slightly different sizes
    order = np.argsort(-counts, axis=None, kind="stable")[:PAIRS]
    pairs = [divmod(int(k), len(counts)) for k in order if counts.flat[k] > 0]
    named = "; ".join(
        f"{_class_in_words(study, a)} as {_class_in_words(study, b)}: {counts[a, b]:.1f}"
        for a, b in pairs
    )
    return (
        f"Confusion matrix of the variant with the best median score, "
        f"{study.variant_label(variant)}: test items by true class (row) and predicted class "
        f"(column), mean over its n = {len(runs)} runs of {each:,} test items; "
        f"correct predictions are not shown. Most frequent errors: {named or 'none'}. Runs: "
        f"{' '.join(runs)}."
    )
