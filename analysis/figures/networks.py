"""Figures of trained networks: receptive fields by theory and effect, filters, checkerboards.

Drawn from network.json and network.npz, which `python -m lib.fields` writes next to the tables.
"""

import json
import textwrap
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.runs.tables import TableError
from lib.spec.study import Study

NAME, ARRAYS = "network.json", "network.npz"
# What numpy and json raise on files that were cut off or changed.
DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError)
DAMAGE += (zipfile.BadZipFile, zlib.error, tokenize.TokenError)
MASS = 0.95  # of the gradient, inside the area that the caption gives
SQUARE = "#D55E00"  # the theoretical field

# What a newcomer may want to know under each figure.
OF_FIELDS = (
    "A network sees an image through windows: an output in the middle of a layer can only depend "
    "on the pixels inside the orange square. How much each pixel really moves that output is its "
    "gradient; before training it is largest near the middle, since more paths lead there than "
    "from the corners. What training made of it, the second row of each network shows, and the "
    "number of pixels that hold nearly all of the gradient."
)
OF_FILTERS = (
    "Each small square above is a pattern of colours that the first layer looks for all over the "
    "image. A feature map is bright where its pattern, or a mixture of earlier ones, was found. "
    "With every layer the maps become smaller and say less about pixels, more about parts of signs."
)
OF_FLAT = (
    "The input is one even grey, and the pictures show its middle, which no border reaches: an "
    "even output is the only one with a reason. A transposed convolution writes each pixel into "
    "its own 2×2 block with four different weights, so a grid as fine as these blocks appears, "
    "and a coarser one from each level below. Copying pixels treats all places alike, so nothing "
    "appears; interpolation with aligned corners nearly does."
)


def read(folder: Path) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Return what is known of each trained network, and its arrays; nothing where there is none.

    Raises:
        TableError: when a file is damaged or belongs to another call.
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
            f"{folder / NAME} and {ARRAYS} are of different runs; run lib.fields again"
        )
    return networks, arrays


def described(folder: Path) -> list[dict[str, Any]]:
    """Return headings, rows and notes of the layers, once for networks that are built alike."""
    networks, _ = read(folder)
    unlike: dict[str, dict[str, Any]] = {}
    for one in networks:
        kept = unlike.setdefault(json.dumps(one["rows"]), one | {"runs": []})
        kept["runs"].append(one["run"])
    return list(unlike.values())


def label(network: dict[str, Any], study: Study) -> str:
    """Name a network by the levels of the study's factors, on lines of their own."""
    config = network["config"]
    words = [study.level_label(name, config[name]) for name in study.factors if name in config]
    return "\n".join(textwrap.fill(word, 20) for word in words) or network["run"]


def area(field: np.ndarray) -> tuple[int, float]:
    """Return how many pixels hold ``MASS`` of a field (H, W), and the least value among them.

    None and infinity for a field of zeros, as of a layer that no input moves.
    """
    if not field.any():
        return 0, np.inf
    values = np.sort(field.astype(float), axis=None)[::-1]
    held = np.cumsum(values) / values.sum()
    count = int(np.searchsorted(held, MASS)) + 1
    return count, float(values[count - 1])


def run_ids(networks: list[dict[str, Any]]) -> list[str]:
    """Return the runs whose networks are shown."""
    return [network["run"] for network in networks]


def receptive_fields(
    networks: list[dict[str, Any]], arrays: dict[str, np.ndarray], study: Study
) -> Figure:
    """Effective fields before and after training, with the theoretical square.

    A row a network and time, a column a layer; gradients on a square-root scale.
    """
    layers = list(networks[0]["fields"])
    rows = [(network, when) for network in networks for when in ("before", "after")]
    side = (style.COLUMN - 1.25) / len(layers)
    mpl.rcParams.update(style.STYLE)
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
        f"Receptive field of the output in the middle of each layer. Grey: mean absolute gradient "
        f"by input pixel (dark: large; square-root scale), n = {networks[0]['images']} test "
        f"images; batch normalization before training has their statistics. Orange square: the "
        f"field by theory; blue: the pixels that hold 95 % of the gradient. Below each picture: "
        f"their number, of how many by theory (“cut”: by the image's edge). Runs: "
        f"{' '.join(run_ids(networks))}."
    )


def _draw_field(axis: Axes, field: np.ndarray, theory: dict[str, Any]) -> None:
    count, least = area(field)
    axis.imshow(np.sqrt(field / max(field.max(), 1e-30)), cmap="Greys", vmin=0, vmax=1)
    if 1 < count < field.size:
        axis.contour(field >= least, [0.5], colors=style.COLOURS[0], linewidths=0.7)
    size, centre = theory["size"], theory["centre"]
    corner = centre - size / 2
    box = plt.Rectangle((corner, corner), size, size, fill=False, edgecolor=SQUARE, linewidth=1)
    axis.add_patch(box)
    axis.set_xticks([])
    axis.set_yticks([])
    label = f"{count} of {size}²{' cut' if theory['cut'] else ''}" if count else "no gradient"
    axis.set_xlabel(label, fontsize=6.5, labelpad=1)


def filters_and_maps(networks: list[dict[str, Any]], arrays: dict[str, np.ndarray]) -> Figure:
    """The first layer's filters of the last network, and its feature maps on signs."""
    network = networks[-1]
    run = network["run"]
    filters = arrays[f"{run}/filters"].astype(float).transpose(0, 2, 3, 1)  # (64, 5, 5, 3)
    bound = np.maximum(np.abs(filters).max(axis=(1, 2, 3), keepdims=True), 1e-30)
    tiles = _tile(0.5 + filters / (2 * bound), 16, 1.0)
    signs = arrays[f"{run}/signs"]
    depths = sorted(int(key.split("/")[-1]) for key in arrays if key.startswith(f"{run}/maps/"))
    mpl.rcParams.update(style.STYLE)
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
    name = label(network, study).replace("\n", " ")
    return (
        f"Inside a trained network ({name}, run {run}; n = {len(signs)} test images): above, the "
        f"first layer's filters as colours, each scaled to its largest weight (grey is 0); below, "
        f"after each activation the eight channels that vary most over these signs, each picture "
        f"scaled to its own range. {study.declaration.data_source}"
    )


def checkerboards(
    networks: list[dict[str, Any]], arrays: dict[str, np.ndarray], study: Study
) -> Figure:
    """What each U-Net makes of a flat image, where no border reaches."""
    mpl.rcParams.update(style.STYLE)
    size = (style.COLUMN, 3.7)
    figure, axes = plt.subplots(2, len(networks), figsize=size, squeeze=False)
    for line, when in zip(axes, ("before", "after"), strict=True):
        flat = [arrays[f"{network['run']}/flat/{when}"].astype(float) for network in networks]
        flat = [picture - picture.mean() for picture in flat]
        limit = max(1e-30, *(np.abs(picture).max() for picture in flat))  # one scale for the row
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
        f"What each network makes of a flat image: {side}×{side} pixels from the middle of a "
        f"larger one, so that no output shown depends on its border; logits about their mean, one "
        f"scale a row, SD: their standard deviation; n = {len(networks)} networks. Batch "
        f"normalization before training has the statistics of {networks[0]['images']} test "
        f"images. Runs: {' '.join(run_ids(networks))}."
    )


def _tile(pictures: np.ndarray, columns: int, blank: float) -> np.ndarray:
    """Lay pictures (N, H, W[, 3]) on a grid with a pixel between them."""
    n, height, width, *colour = pictures.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, *colour), blank)
    for k, picture in enumerate(pictures):
        i, j = divmod(k, columns)
        top, left = i * (height + 1), j * (width + 1)
        sheet[top : top + height, left : left + width] = picture
    return sheet
