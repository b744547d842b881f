"""Figures of what a good classifier still gets wrong: the images, and how wide they once were."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import binomtest

from analysis.figures import style
from analysis.figures.classification import class_name
from analysis.grid import Study, Sweep
from analysis.runs import per_item
from analysis.runs.completeness import Ledger

MOST = 60  # mistakes that are shown
ACROSS = 6  # pictures in a row
EDGES = (0, 30, 35, 40, 50, 60, 80, 120)  # pixels, from the left edge on


def median_run(study: Study, ledger: Ledger, cell: tuple, scores: list[float]) -> str:
    """Return the run whose score is the median over seeds; n even: the worse of the middle two."""
    sign = 1 if study.direction == "lower" else -1
    from_best = np.argsort(np.array(scores) * sign, kind="stable")
    return ledger.runs(cell)[from_best[len(scores) // 2]]


def pictures(
    study: Study, ledger: Ledger, table: pd.DataFrame, cell: tuple, scores: list[float], files: Path
) -> tuple[Figure | None, str, list[str]]:
    """Figure 14: images that the median run mistakes, MOST at most, with true and predicted class.

    The figure is None where ``files`` has no pixels of this run's mistakes.
    """
    run = median_run(study, ledger, cell, scores)
    wrong = table[run].ne(table["label"])
    some = f", the {MOST} with the least probable true class" * bool(wrong.sum() > MOST)
    middle = " (the worse of the middle two)" * (len(scores) % 2 == 0)
    caption = (
        f"What the run with the median score{middle} gets wrong: {int(wrong.sum())} of "
        f"{len(table):,} test images{some}, at the network's input size. Above each: its true "
        "class, the class that it was taken for after the arrow, and the original width in pixels. "
        f"{study.data_source} Run: {run}."
    )
    path = files / run / per_item.SCORES
    arrays = per_item.load(path) if path.exists() else {}
    if "mistakes" not in arrays:
        return None, caption, [run]
    shown = list(zip(arrays["mistakes"], arrays["mistaken_images"], strict=True))[:MOST]
    across = max(1, min(ACROSS, len(shown)))
    figure, axes = style.subplots(max(1, len(shown)), 1.06, across, sharey=False)
    for axis in axes:
        axis.set_axis_off()
    for axis, (place, pixels) in zip(axes, shown, strict=False):
        axis.imshow(pixels.transpose(1, 2, 0))
        classes = [int(arrays[key][place]) for key in ("labels", "predicted")]
        names = [class_name(study, k) if k >= 0 else "no class" for k in classes]  # diverged: -1
        lines = [_short(names[0]), f"→ {_short(names[1])}", f"{arrays['widths'][place]} px"]
        axis.set_title("\n".join(lines), fontsize=4.8, linespacing=1.15, pad=2)
    return figure, caption, [run]


def _short(text: str, most: int = 19) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def by_width(sweep: Sweep, ledger: Ledger, table: pd.DataFrame) -> tuple[Figure, str]:
    """Figure 15: the error on images of a range of original widths, a dot a run, and the median."""
    bins = np.searchsorted(EDGES, table["width"], side="right") - 1
    kept = [k for k in range(len(EDGES)) if (bins == k).any()]
    wrong = table[ledger.counting].ne(table["label"], axis=0).to_numpy(dtype=float)
    figure, (axis,) = style.subplots(1, 2.8)
    for place, k in enumerate(kept):
        own = wrong[bins == k]
        errors = 100 * own.mean(axis=0)
        middle = int(np.sort(own.sum(axis=0))[own.shape[1] // 2])
        jitter = np.linspace(-0.2, 0.2, len(errors)) if len(errors) > 1 else [0.0]
        axis.scatter(place + jitter, errors, s=9, color=style.colour(0), alpha=0.7, linewidths=0)
        height = 100 * middle / len(own)
        axis.plot([place - 0.3, place + 0.3], [height] * 2, color="black", linewidth=2)
        sure = binomtest(middle, len(own)).proportion_ci(0.95, "exact")
        axis.plot([place] * 2, [100 * sure.low, 100 * sure.high], color="0.5", linewidth=0.8)
    names = [_range(k) for k in kept]
    counts = [f"{name}\n({(bins == k).sum():,})" for name, k in zip(names, kept, strict=True)]
    axis.set_xticks(range(len(kept)), counts, fontsize=7)
    axis.set_ylim(bottom=-0.02 * axis.get_ylim()[1])
    axis.set_xlabel("Original width in pixels (number of test images)")
    axis.set_ylabel("Test error (%)")
    return figure, (
        f"Test error by the width of the original image, before all were made equal. A dot per run "
        f"(n = {len(ledger.counting)}), bars: medians over runs (of an even number the worse of "
        f"the middle two), thin lines: their exact 95 % interval (Clopper–Pearson), as if images "
        f"were independent. {style.run_set(sweep, ledger)}"
    )


def _range(k: int) -> str:
    if k == len(EDGES) - 1:
        return f"{EDGES[k]}+"
    return f"<{EDGES[k + 1]}" if k == 0 else f"{EDGES[k]}–{EDGES[k + 1] - 1}"
