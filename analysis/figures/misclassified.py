"""Figures of misclassified images, and of the error by original image width."""

import numpy as np
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.classification import class_name
from analysis.runs import per_item
from analysis.runs.data import StudyData
from analysis.statistics.failures import clopper_pearson

MOST = 60  # misclassified images shown
ACROSS = 6  # images per row
EDGES = (0, 30, 35, 40, 50, 60, 80, 120)  # lower limits of the width bins, in pixels


def median_run(data: StudyData) -> str:
    """Return the first variant's run with the median score; for even n the worse middle one."""
    from_best = np.argsort(-data.study.metric.sign * data.scores[0], kind="stable")
    return data.runs_of(data.study.variants[0])[from_best[data.scores.shape[1] // 2]]


def pictures(data: StudyData) -> Figure | None:
    """Plot the images that the median run misclassifies, with true and predicted class.

    At most ``MOST``. None if this run's misclassified images are not among the study's files.
    """
    path = data.folder / per_item.FILES / median_run(data) / per_item.SCORES
    arrays = per_item.load(path) if path.exists() else {}
    if "mistakes" not in arrays:
        return None
    shown = list(zip(arrays["mistakes"], arrays["mistaken_images"], strict=True))[:MOST]
    across = max(1, min(ACROSS, len(shown)))
    figure, axes = style.subplots(max(1, len(shown)), 1.06, across, sharey=False)
    for axis in axes:
        axis.set_axis_off()
    for axis, (index, pixels) in zip(axes, shown, strict=False):
        axis.imshow(pixels.transpose(1, 2, 0))
        classes = [int(arrays[key][index]) for key in ("labels", "predicted")]
        # Diverged runs predict -1.
        names = [class_name(data.study, k) if k >= 0 else "no class" for k in classes]
        lines = [_short(names[0]), f"→ {_short(names[1])}", f"{arrays['widths'][index]} px"]
        axis.set_title("\n".join(lines), fontsize=4.8, linespacing=1.15, pad=2)
    return figure


def pictures_caption(data: StudyData) -> str:
    """Return the figure's caption."""
    run = median_run(data)
    predicted = per_item.of_runs(data.per_item, "predicted", [run])[run]
    tested = int(predicted.notna().sum())
    wrong = int((predicted.ne(data.per_item["label"]) & predicted.notna()).sum())
    some = f", the {MOST} with the least probable true class" * (wrong > MOST)
    middle = " (the worse of the middle two)" * (len(data.study.seeds) % 2 == 0)
    return (
        f"What the run with the median score{middle} gets wrong: {wrong} of {tested:,} "
        f"test images{some}, at the network's input size. Above each: its true class, the class "
        "that it was taken for after the arrow, and the original width in pixels. "
        f"{data.study.declaration.data_source} Run: {run}."
    )


def _short(text: str, most: int = 19) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def by_width(data: StudyData) -> Figure:
    """Plot the error by original image width: one dot per run, the median and its interval."""
    table = data.per_item
    bins = np.searchsorted(EDGES, table["width"], side="right") - 1
    kept = [k for k in range(len(EDGES)) if (bins == k).any()]
    predicted = per_item.of_runs(table, "predicted", data.run_ids)
    wrong = per_item.wrong(predicted, table["label"]).to_numpy()
    figure, (axis,) = style.subplots(1, 2.8)
    for x, k in enumerate(kept):
        in_bin = wrong[bins == k]
        in_bin = in_bin[np.isfinite(in_bin).all(axis=1)]  # items that every run tested
        errors = 100 * in_bin.mean(axis=0)
        middle = int(np.sort(in_bin.sum(axis=0))[in_bin.shape[1] // 2])
        jitter = np.linspace(-0.2, 0.2, len(errors)) if len(errors) > 1 else [0.0]
        axis.scatter(x + jitter, errors, s=9, color=style.color(0), alpha=0.7, linewidths=0)
        height = 100 * middle / len(in_bin)
        axis.plot([x - 0.3, x + 0.3], [height] * 2, color="black", linewidth=2)
        low, high = clopper_pearson(middle, len(in_bin))
        axis.plot([x] * 2, [100 * low, 100 * high], color="0.5", linewidth=0.8)
    names = [_range(k) for k in kept]
    counts = [f"{name}\n({(bins == k).sum():,})" for name, k in zip(names, kept, strict=True)]
    axis.set_xticks(range(len(kept)), counts, fontsize=7)
    axis.set_ylim(bottom=-0.02 * axis.get_ylim()[1])
    axis.set_xlabel("Original width in pixels (number of test images)")
    axis.set_ylabel("Test error (%)")
    return figure


def by_width_caption(data: StudyData) -> str:
    """Return the figure's caption."""
    return (
        f"Test error by the width of the original image, before resizing. One dot per run "
        f"(n = {len(data.run_ids)}); bars: medians over runs (for an even number, the worse of the "
        f"middle two); thin lines: their exact 95 % intervals (Clopper–Pearson), assuming "
        f"independent images. {style.run_set(data)}"
    )


def _range(k: int) -> str:
    if k == len(EDGES) - 1:
        return f"{EDGES[k]}+"
    return f"<{EDGES[k + 1]}" if k == 0 else f"{EDGES[k]}–{EDGES[k + 1] - 1}"
