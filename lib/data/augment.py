"""Augment whole batches of images and masks, on their device and with a given generator."""

import math

import torch
from torch.nn import functional as F

CROP = 28  # side of the network's input, in pixels

# Classes whose mirror image belongs to the same class (from the assignment's template).
FLIP_SAFE = (11, 12, 13, 17, 18, 26, 30, 35)


def center_crop(images: torch.Tensor) -> torch.Tensor:
    """Return the central crops (N, 3, 28, 28), float32 in [0, 1], of (N, 3, H, W) uint8."""
    top, left = (images.shape[2] - CROP) // 2, (images.shape[3] - CROP) // 2
    return images[:, :, top : top + CROP, left : left + CROP].float() / 255


def augment(
    images: torch.Tensor,
    labels: torch.Tensor,
    generator: torch.Generator,
    rotation: float,
    brightness: float,
    contrast: float,
    flip: bool,
) -> torch.Tensor:
    """Return augmented images (N, 3, 28, 28), float32 in [0, 1], of (N, 3, H, W) uint8.

    Random rotation by up to ±``rotation`` degrees about the center (bilinear, black outside),
    random 28×28 crop, brightness jitter by a factor of 1 ± ``brightness``, contrast jitter by a
    factor of 1 ± ``contrast``, and with ``flip`` a horizontal flip with probability 0.5 for the
    classes in FLIP_SAFE.

    ``generator`` must be on the images' device. Every image consumes the same number of random
    values whatever the settings, so switching one augmentation off does not change the others.
    """
    n, _, height, width = images.shape
    draws = torch.rand(6, n, generator=generator, device=images.device)
    angles = (2 * draws[0] - 1) * rotation
    top = (draws[1] * (height - CROP + 1)).long()
    left = (draws[2] * (width - CROP + 1)).long()
    mirrored = draws[3] < (0.5 if flip else 0.0)
    # A comparison per class: torch.isin would need a tensor copied to the device.
    mirrored &= sum(labels == label for label in FLIP_SAFE) > 0
    varied = rotate_crop_flip(images.float() / 255, angles, top, left, mirrored)
    varied = adjust_brightness(varied, _factors(draws[4], brightness))
    return adjust_contrast(varied, _factors(draws[5], contrast))


def rotate_crop_flip(
    images: torch.Tensor,
    angles: torch.Tensor,
    top: torch.Tensor,
    left: torch.Tensor,
    mirrored: torch.Tensor,
) -> torch.Tensor:
    """Rotate float (N, 3, H, W) about the center, crop to (N, 3, 28, 28) and flip, in one sampling.

    ``angles`` (N,) in degrees, counter-clockwise; ``top``, ``left`` (N,) in pixels; ``mirrored``
    (N,) bool: which crops to flip horizontally. Bilinear, black outside. Equals torchvision's
    rotate, crop and hflip in sequence.
    """
    height, width = images.shape[2:]
    radians = angles * (math.pi / 180)
    cos, sin = radians.cos()[:, None, None], radians.sin()[:, None, None]
    steps = torch.arange(CROP, device=images.device, dtype=images.dtype)
    columns = torch.where(mirrored[:, None], steps.flip(0), steps)
    y = steps[None, :, None] + top[:, None, None] - (height - 1) / 2  # pixels from the center
    x = columns[:, None, :] + left[:, None, None] - (width - 1) / 2
    grid = torch.stack(((cos * x - sin * y) / (width / 2), (sin * x + cos * y) / (height / 2)), -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def adjust_brightness(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Multiply float (N, 3, H, W) in [0, 1] by ``factors`` (N,) and clip to [0, 1]."""
    return (images * factors[:, None, None, None]).clamp(0, 1)


def adjust_contrast(images: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Scale float (N, 3, H, W) by ``factors`` (N,) about each image's mean gray; clip to [0, 1].

    Gray is 0.2989 R + 0.587 G + 0.114 B (ITU-R 601-2), as in torchvision.
    """
    red, green, blue = images.mean((2, 3)).T
    mean = (0.2989 * red + 0.587 * green + 0.114 * blue)[:, None, None, None]
    factors = factors[:, None, None, None]
    return (factors * images + (1 - factors) * mean).clamp(0, 1)


def _factors(uniform: torch.Tensor, strength: float) -> torch.Tensor:
    """Map uniform values in [0, 1) to factors in [max(0, 1 - strength), 1 + strength)."""
    low = max(0.0, 1 - strength)
    return low + uniform * (1 + strength - low)


def augment_pair(
    images: torch.Tensor,
    masks: torch.Tensor,
    generator: torch.Generator,
    rotation: float,
    shift: float,
    scale: float,
    brightness: float,
    contrast: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment images (N, 1, H, W) float of mean 0 together with their masks (N, 1, H, W) bool.

    Geometry, about the center: rotation by up to ±``rotation`` degrees, scaling by 1 ± ``scale``,
    then translation by up to ±``shift`` of the side lengths. Bilinear; pixels outside the image
    repeat its border. Masks get the same transform and are thresholded at 1/2, so they stay binary.
    Then the images are multiplied by 1 ± ``contrast``, and up to ±``brightness`` is added, in units
    of their standard deviation. No horizontal flip, because the heart is on one side.

    Every image consumes the same number of random values from ``generator`` whatever the settings.
    """
    n, _, height, width = images.shape
    draws = 2 * torch.rand(6, n, generator=generator, device=images.device) - 1
    radians = draws[0] * rotation * (math.pi / 180)
    zoom = 1 + draws[1] * scale
    cos, sin = radians.cos() / zoom, radians.sin() / zoom
    x, y = 2 * shift * draws[2], 2 * shift * draws[3]  # sampling grids span [-1, 1]
    aspect = height / width
    rows = (cos, -sin * aspect, -cos * x + sin * aspect * y)
    rows += (sin / aspect, cos, -sin / aspect * x - cos * y)
    grid = F.affine_grid(torch.stack(rows, 1).view(n, 2, 3), list(images.shape), False)
    pairs = torch.cat([images, masks.to(images.dtype)], 1)
    pairs = F.grid_sample(pairs, grid, padding_mode="border", align_corners=False)
    factors = (1 + draws[4] * contrast)[:, None, None, None]
    varied = pairs[:, :1] * factors + (draws[5] * brightness)[:, None, None, None]
    return varied, pairs[:, 1:] >= 0.5
