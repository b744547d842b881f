"""Strong data augmentation of sign images, and fixed views for test-time augmentation."""

import math
from typing import Literal

import torch
from torch.nn import functional as F

from lib.data.augment import FLIP_SAFE, adjust_brightness, adjust_contrast

Mirror = Literal["none", "same", "map"]

# Pairs of classes that are mirror images: dangerous curve, turn, straight or turn, keep.
MIRROR_PAIRS = ((19, 20), (33, 34), (36, 37), (38, 39))

# Largest distortions at affine = 1: rotation in degrees, shift as a share of the side, zoom and
# aspect as factors of 1 ± this, shear as a slope. All in both directions.
ROTATION, SHIFT, ZOOM, ASPECT, SHEAR = 15.0, 0.1, 0.2, 0.1, 0.15
DRAWS = 18  # random values per image

# Fixed views of a test image: rotation in degrees, shift right and down as shares of the side,
# zoom. The first view is the image itself.
VIEWS = (
    (0.0, 0.0, 0.0, 1.0),
    (0.0, 0.06, 0.0, 1.0),
    (0.0, -0.06, 0.0, 1.0),
    (0.0, 0.0, 0.06, 1.0),
    (0.0, 0.0, -0.06, 1.0),
    (0.0, 0.0, 0.0, 1.1),
    (0.0, 0.0, 0.0, 0.9),
    (6.0, 0.0, 0.0, 1.0),
    (-6.0, 0.0, 0.0, 1.0),
)


def distort(
    images: torch.Tensor,
    labels: torch.Tensor,
    generator: torch.Generator,
    mirror: Mirror,
    affine: float,
    perspective: float,
    light: float,
    color: float,
    blur: float,
    cutout: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return augmented images, float32 in [0, 1], of (N, 3, S, S) uint8, and their labels (N,).

    In order: horizontal flip, affine and perspective transform (all in one bilinear sampling that
    repeats the border), blur, brightness, contrast, color of the light, cutout with a gray square.
    A strength of 0 switches an augmentation off. Labels change only where a flip changes the class.
    Every image consumes the same number of random values from ``generator`` whatever the settings,
    so switching one augmentation off does not change the others.
    """
    draws = torch.rand(DRAWS, len(images), generator=generator, device=images.device)
    signed = 2 * draws - 1
    mirrored, labels = mirrored_labels(labels, draws[0] < 0.5, mirror)
    zoom, aspect = (1 + ZOOM) ** (affine * signed[1]), (1 + ASPECT) ** (affine * signed[2])
    varied = warp(
        images.float() / 255,
        degrees=affine * ROTATION * signed[3],
        shift=affine * SHIFT * signed[4:6],
        zoom=torch.stack([zoom * aspect * (1 - 2 * mirrored.float()), zoom / aspect]),
        shear=affine * SHEAR * signed[6],
        perspective=perspective * signed[7:9],
    )
    varied = mix_blurred(varied, (blur * signed[9]).clamp(min=0))
    varied = adjust_brightness(varied, 1 + light * signed[10])
    varied = adjust_contrast(varied, 1 + light * signed[11])
    varied = (varied * (1 + color * signed[12:15].T[:, :, None, None])).clamp(0, 1)
    return cut_out(varied, draws[15:17], torch.where(draws[17] < 0.5, cutout, 0.0)), labels


def mirrored_labels(
    labels: torch.Tensor, chosen: torch.Tensor, mirror: Mirror
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which of the ``chosen`` (N,) images to flip (N,) bool, and the labels after it (N,).

    ``mirror``: "none": no image; "same": images of classes whose mirror image belongs to the same
    class (FLIP_SAFE); "map": in addition images of classes whose mirror image belongs to another
    class (MIRROR_PAIRS), which becomes their label.
    """
    mirrored, mapped = torch.zeros_like(chosen), labels
    if mirror != "none":
        mirrored = mirrored | (sum(labels == label for label in FLIP_SAFE) > 0)
    if mirror == "map":
        for left, right in MIRROR_PAIRS:
            mirrored = mirrored | (labels == left) | (labels == right)
            mapped = torch.where(labels == left, right, mapped)
            mapped = torch.where(labels == right, left, mapped)
    mirrored = mirrored & chosen
    return mirrored, torch.where(mirrored, mapped, labels)


def warp(
    images: torch.Tensor,
    degrees: torch.Tensor,
    shift: torch.Tensor,
    zoom: torch.Tensor,
    shear: torch.Tensor,
    perspective: torch.Tensor,
) -> torch.Tensor:
    """Transform float (N, C, S, S) about the center: bilinear, repeating the border outside.

    The output at (u, v), in [-1, 1] from left to right and top to bottom, is the input at
    (R (u / zoom_x + shear v / zoom_y, v / zoom_y) - 2 shift) / (1 + perspective · (u, v)),
    where R rotates by ``degrees`` (N,). ``shift``, ``zoom`` and ``perspective`` (2, N) hold x and
    y. Shifts are shares of the side; zoom_x < 0 flips horizontally; |perspective_x| +
    |perspective_y| must be below 1.
    """
    side = images.shape[-1]
    places = (2 * torch.arange(side, device=images.device, dtype=images.dtype) + 1) / side - 1
    u, v = places[None, None, :], places[None, :, None]  # columns, rows

    def per_image(values: torch.Tensor) -> torch.Tensor:
        return values[:, None, None]

    radians = per_image(degrees * (math.pi / 180))
    down = v / per_image(zoom[1])
    right = u / per_image(zoom[0]) + per_image(shear) * down
    x = radians.cos() * right - radians.sin() * down - 2 * per_image(shift[0])
    y = radians.sin() * right + radians.cos() * down - 2 * per_image(shift[1])
    depth = 1 + per_image(perspective[0]) * u + per_image(perspective[1]) * v
    grid = torch.stack([x / depth, y / depth], -1)
    return F.grid_sample(images, grid, "bilinear", padding_mode="border", align_corners=False)


def mix_blurred(images: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Blend float (N, C, H, W) with a blurred copy (two 3×3 means) of weight ``share`` (N,)."""
    smooth = images
    for _ in range(2):
        smooth = F.avg_pool2d(smooth, 3, stride=1, padding=1, count_include_pad=False)
    return images + share[:, None, None, None] * (smooth - images)


def cut_out(images: torch.Tensor, centers: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Cover a square of float (N, C, S, S) with mid-gray (cutout, DeVries & Taylor 2017).

    ``centers`` (2, N): x and y in [0, 1]. ``share`` (N,): side of the square as a share of the
    image's. The square may extend beyond the image.
    """
    side = images.shape[-1]
    places = (torch.arange(side, device=images.device) + 0.5) / side
    across, down = (
        (places - center[:, None]).abs() < share[:, None] / 2 for center in (centers[0], centers[1])
    )
    inside = across[:, None, None, :] & down[:, None, :, None]
    return torch.where(inside, 0.5, images)


def view(images: torch.Tensor, which: tuple[float, float, float, float]) -> torch.Tensor:
    """Return (N, 3, S, S) uint8 as float32 in [0, 1], transformed by ``which``, one of VIEWS."""
    degrees, right, down, zoom = which
    pixels = images.float() / 255
    if (degrees, right, down, zoom) == VIEWS[0]:
        return pixels
    same = torch.ones(len(images), device=images.device)
    shift, zooms = torch.stack([right * same, down * same]), torch.stack([zoom * same] * 2)
    return warp(pixels, degrees * same, shift, zooms, 0 * same, torch.stack([0 * same] * 2))
