"""Figures of trained networks: receptive fields, filters and feature maps, checkerboards.

Drawn from network.json and network.npz, which `python -m lib.fields` writes next to the tables.
"""

import json
import textwrap
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.runs.per_item import DAMAGE
from analysis.runs.tables import NETWORK, TableError
from lib.spec.study import Study

NAME, ARRAYS = NETWORK
MASS = 0.95  # share of the gradient inside the effective receptive field
SQUARE = "#D55E00"  # the theoretical receptive field

# An introduction for readers who are new to the topic, shown below each caption.
OF_FIELDS = (
    "The output in the middle of a layer can depend only on the pixels inside the orange square, "
    "its theoretical receptive field. The gradient shows how much each pixel changes this output, "
    "the effective receptive field. Before training it is largest near the middle, because more "
    "paths through the network start there than in the corners. The second row of each network "
    "shows the field after training, with the number of pixels that hold 95 % of the gradient."
)
OF_FILTERS = (
    "Each small square at the top is a pattern of colors that the first layer detects anywhere in "
    "the image. A feature map is bright where its pattern, or a combination of earlier patterns, "
    "was detected. With every layer the maps become smaller and respond less to single pixels and "
    "more to parts of signs."
)
OF_FLAT = (
    "The input is uniform gray, and only its middle is shown, which no border affects. The ideal "
    "output is uniform too. A transposed convolution writes each pixel into its own 2×2 block with "
    "four different weights. This produces a grid of the size of these blocks, and a coarser one "
    "from each lower level. Copying pixels treats all positions equally and produces no grid; "
    "interpolation with aligned corners produces almost none."
)


def read(folder: Path) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Return the descriptions and the arrays of the trained networks; empty without such files.

    Raises:
        TableError: if a file is damaged, or if the two files are of different runs.
    """
    if not (folder / NAME).exists():
        return [], {}
    try:
        networks = json.loads((folder / NAME).read_text(encoding="utf-8"))["networks"]
        with np.load(folder / ARRAYS) as file:
            arrays = dict(file)
        runs = {network["run"] for network in networks}
    except DAMAGE as error:
        raise TableError(f"{folder / NAME} or {ARRAYS} is damaged: {error!r}") from error
    if {key.split("/")[0] for key in arrays} != runs:
        raise TableError(
            f"{folder / NAME} and {ARRAYS} contain different runs; run lib.fields again"
        )
    return networks, arrays


def described(folder: Path) -> list[dict[str, Any]]:
    """Return headings, rows and notes of the layers, once per distinct architecture."""
    networks, _ = read(folder)
    distinct: dict[str, dict[str, Any]] = {}
    for one in networks:
        kept = distinct.setdefault(json.dumps(one["rows"]), one | {"runs": []})
        kept["runs"].append(one["run"])
    return list(distinct.values())


def label(network: dict[str, Any], study: Study) -> str:
    """Return the levels of the study's factors in a network, one per line, or its run id."""
    return "\n".join(textwrap.fill(word, 20) for word in _levels(network, study)) or network["run"]


def _levels(network: dict[str, Any], study: Study) -> list[str]:
    config = network["config"]
    return [study.level_label(name, config[name]) for name in study.factors if name in config]


def area(field: np.ndarray) -> tuple[int, float]:
    """Return the number of pixels that hold ``MASS`` of a field (H, W), and their smallest value.

    0 and infinity for a field of zeros (the input does not affect the layer).
    """
    if not field.any():
        return 0, np.inf
    values = np.sort(field.astype(float), axis=None)[::-1]
    held = np.cumsum(values) / values.sum()
    count = int(np.searchsorted(held, MASS)) + 1
    return count, float(values[count - 1])


def run_ids(networks: list[dict[str, Any]]) -> list[str]:
    """Return the ids of the runs whose networks are shown."""
    return [network["run"] for network in networks]


def receptive_fields(
    networks: list[dict[str, Any]], arrays: dict[str, np.ndarray], study: Study
) -> Figure:
    """Plot effective and theoretical receptive fields, before and after training.

    One row per network and time, one column per layer; gradients on a square-root scale.
    """
    layers = list(networks[0]["fields"])
    rows = [(network, when) for network in networks for when in ("before", "after")]
    side = (style.COLUMN - 1.25) / len(layers)
    style.use()
    figure, axes = plt.subplots(
        len(rows),
        len(layers),
        figsize=(style.COLUMN, 0.5 + len(rows) * (min(side, 1.15) + 0.14)),
        squeeze=False,
    )
    for line, (network, when) in zip(axes, rows, strict=True):
        for axis, name in zip(line, layers, strict=True):
            field = arrays[f"{network['run']}/{when}/{name}"].astype(float)
            _draw_field(axis, field, network["fields"][name])
        text = f"{label(network, study)}\n{when} training"
        line[0].set_ylabel(text, rotation=0, ha="right", va="center", fontsize=6.5)
    for axis, name in zip(axes[0], layers, strict=True):
        axis.set_title(textwrap.fill(name, 12), fontsize=6.5)
    return figure


def receptive_fields_caption(networks: list[dict[str, Any]]) -> str:
    """Return the figure's caption."""
    return (
        f"Receptive field of the output in the middle of each layer. Gray: mean absolute gradient "
        f"per input pixel (dark: large; square-root scale), n = {networks[0]['images']} test "
        f"images; before training, batch normalization uses the statistics of these images. Orange "
        f"square: the theoretical field; blue: the pixels that hold 95 % of the gradient. Below "
        f"each panel: the number of blue pixels, of the number in theory (“cut”: by the image "
        f"border). Runs: "
        f"{' '.join(run_ids(networks))}."
    )


def _draw_field(axis: Axes, field: np.ndarray, theory: dict[str, Any]) -> None:
    count, least = area(field)
    axis.imshow(np.sqrt(field / max(field.max(), 1e-30)), cmap="Greys", vmin=0, vmax=1)
    if 1 < count < field.size:
        axis.contour(field >= least, [0.5], colors=style.COLORS[0], linewidths=0.7)
    size, center = theory["size"], theory["centre"]
    corner = center - size / 2
    box = plt.Rectangle((corner, corner), size, size, fill=False, edgecolor=SQUARE, linewidth=1)
    axis.add_patch(box)
    axis.set_xticks([])
    axis.set_yticks([])
    label = f"{count} of {size}²{' cut' if theory['cut'] else ''}" if count else "no gradient"
    axis.set_xlabel(label, fontsize=6.5, labelpad=1)


def filters_and_maps(networks: list[dict[str, Any]], arrays: dict[str, np.ndarray]) -> Figure:
    """Plot the last network's filters in the first layer, and its feature maps of some signs."""
    network = networks[-1]
    run = network["run"]
    filters = arrays[f"{run}/filters"].astype(float).transpose(0, 2, 3, 1)  # (64, 5, 5, 3)
    bound = np.maximum(np.abs(filters).max(axis=(1, 2, 3), keepdims=True), 1e-30)
    tiles = _tile(0.5 + filters / (2 * bound), 16, 1.0)
    signs = arrays[f"{run}/signs"]
    depths = sorted(int(key.split("/")[-1]) for key in arrays if key.startswith(f"{run}/maps/"))
    style.use()
    below_height = 0.75 * len(signs) + 0.2
    figure = plt.figure(figsize=(style.COLUMN, 1.25 + below_height))
    top, below = figure.subfigures(2, 1, height_ratios=(1.25, below_height))
    axis = top.subplots()
    axis.imshow(tiles, interpolation="nearest")
    axis.set_axis_off()
    axis.set_title(f"The {len(filters)} filters of the first layer", fontsize=8)
    axes = below.subplots(len(signs), 1 + len(depths), width_ratios=[1, *[2.4] * len(depths)])
    for i, sign in enumerate(signs):
        axes[i, 0].imshow(sign)
        for axis, depth in zip(axes[i, 1:], depths, strict=True):
            maps = arrays[f"{run}/maps/{depth}"][i].astype(float)
            low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
            scaled = (maps - low) / np.maximum(high - low, 1e-9)
            axis.imshow(_tile(scaled, 4, 1.0), cmap="gray", interpolation="nearest", vmin=0, vmax=1)
    for axis in axes.ravel():
        axis.set_axis_off()
    for axis, title in zip(
        axes[0], ["sign", *(f"after activation {depth}" for depth in depths)], strict=True
    ):
        axis.set_title(title, fontsize=7)
    return figure


def filters_and_maps_caption(
    networks: list[dict[str, Any]], arrays: dict[str, np.ndarray], study: Study
) -> str:
    """Return the figure's caption for classifiers."""
    network = networks[-1]
    run, signs = network["run"], arrays[f"{network['run']}/signs"]
    name = ", ".join([*_levels(network, study), f"run {run}"])
    return (
        f"Inside a trained network ({name}; n = {len(signs)} test images). Top: the "
        f"filters of the first layer as colors, each scaled to its largest weight (gray is 0). "
        f"Bottom: after each activation, the eight channels that vary most over these signs, each "
        f"map scaled to its own range. {study.declaration.data_source}"
    )


def checkerboards(
    networks: list[dict[str, Any]], arrays: dict[str, np.ndarray], study: Study
) -> Figure:
    """Plot each U-Net's output for a uniform image, away from its border."""
    style.use()
    size = (style.COLUMN, 3.7)
    figure, axes = plt.subplots(2, len(networks), figsize=size, squeeze=False)
    for line, when in zip(axes, ("before", "after"), strict=True):
        flat = [arrays[f"{network['run']}/flat/{when}"].astype(float) for network in networks]
        flat = [picture - picture.mean() for picture in flat]
        limit = max(1e-30, *(np.abs(picture).max() for picture in flat))  # one scale per row
        for axis, picture in zip(line, flat, strict=True):
            shown = axis.imshow(picture, cmap="PuOr", vmin=-limit, vmax=limit)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(f"SD {picture.std():.2g}", fontsize=7)
        line[0].set_ylabel(f"{when} training", fontsize=7)
        figure.colorbar(shown, ax=line.tolist(), shrink=0.8, aspect=12)
    for axis, network in zip(axes[0], networks, strict=True):
        axis.set_title(label(network, study), fontsize=7)
    return figure


def checkerboards_caption(networks: list[dict[str, Any]], arrays: dict[str, np.ndarray]) -> str:
    """Return the figure's caption for U-Nets."""
    side = len(arrays[f"{networks[0]['run']}/flat/after"])
    return (
        f"Output of each network for a uniform image: {side}×{side} pixels from the middle of a "
        f"larger image, so that no output shown depends on its border. Logits minus their mean, "
        f"one scale per row; SD: their standard deviation; n = {len(networks)} networks. Before "
        f"training, batch normalization uses the statistics of {networks[0]['images']} test "
        f"images. Runs: {' '.join(run_ids(networks))}."
    )


def _tile(pictures: np.ndarray, columns: int, blank: float) -> np.ndarray:
    """Return pictures (N, H, W[, 3]) as one grid, separated by lines of one pixel."""
    n, height, width, *color = pictures.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, *color), blank)
    for k, picture in enumerate(pictures):
        i, j = divmod(k, columns)
        top, left = i * (height + 1), j * (width + 1)
        sheet[top : top + height, left : left + width] = picture
    return sheet
