"""Batched augmentation against torchvision's functions, image by image."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from lib import augment
from lib.seeding import torch_generator


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (12, 3, 32, 32), generator=torch.Generator().manual_seed(1)).byte()


def test_rotate_crop_flip_is_torchvisions_rotate_crop_hflip(images: torch.Tensor) -> None:
    floats = images.float() / 255
    angles = torch.linspace(-40, 40, 12)
    top, left = torch.arange(12) % 5, torch.arange(12).flip(0) % 5
    mirrored = torch.arange(12) % 3 == 0
    ours = augment.rotate_crop_flip(floats, angles, top, left, mirrored)
    for i in range(12):
        theirs = TF.rotate(floats[i], angles[i].item(), InterpolationMode.BILINEAR)
        theirs = TF.crop(theirs, int(top[i]), int(left[i]), 28, 28)
        theirs = TF.hflip(theirs) if mirrored[i] else theirs
        # torchvision rounds its coordinates at another place: edges may differ in the last bits
        torch.testing.assert_close(ours[i], theirs, atol=2e-4, rtol=0)


@pytest.mark.parametrize("factor", [0.0, 0.2, 1.0, 1.8])
def test_brightness_and_contrast_are_torchvisions(images: torch.Tensor, factor: float) -> None:
    floats = images.float() / 255
    factors = torch.full((12,), factor)
    for ours, theirs in (
        (augment.adjust_brightness, TF.adjust_brightness),
        (augment.adjust_contrast, TF.adjust_contrast),
    ):
        expected = torch.stack([theirs(image, factor) for image in floats])
        torch.testing.assert_close(ours(floats, factors), expected, atol=1e-6, rtol=0)


def test_center_crop_is_torchvisions(images: torch.Tensor) -> None:
    expected = TF.center_crop(images, [28, 28]).float() / 255
    torch.testing.assert_close(augment.center_crop(images), expected)


def test_nothing_but_the_crop_happens_when_all_is_off(images: torch.Tensor) -> None:
    labels = torch.full((12,), 11)
    out = augment.augment(images, labels, torch_generator(3, "augmentation"), 0, 0, 0, False)
    windows = images.float().unfold(2, 28, 1).unfold(3, 28, 1) / 255  # (N, 3, 5, 5, 28, 28)
    gaps = (windows - out[:, :, None, None]).abs().amax((1, 4, 5)).flatten(1)
    assert (gaps.amin(1) < 1e-4).all()
    assert len(gaps.argmin(1).unique()) > 3, "the crop's place must vary"


def test_flips_touch_the_safe_classes_only(images: torch.Tensor) -> None:
    for label, may_flip in ((11, True), (33, False)):
        labels = torch.full((12,), label)
        plain, flipped = (
            augment.augment(images, labels, torch_generator(0, "augmentation"), 0, 0, 0, flip)
            for flip in (False, True)
        )
        changed = (plain != flipped).flatten(1).any(1)
        torch.testing.assert_close(flipped[changed], plain[changed].flip(3), atol=1e-4, rtol=0)
        assert bool(changed.any()) == may_flip
        assert not changed.all()


def test_switching_one_part_off_leaves_the_others_draws_alone(images: torch.Tensor) -> None:
    labels = torch.full((12,), 11)
    dark = augment.augment(images, labels, torch_generator(0, "augmentation"), 5, 0.8, 0, False)
    plain = augment.augment(images, labels, torch_generator(0, "augmentation"), 5, 0, 0, False)
    unclipped = (dark < 1) & (plain > 0.05)
    for i in range(12):
        ratios = dark[i][unclipped[i]] / plain[i][unclipped[i]]
        torch.testing.assert_close(ratios, ratios.mean().expand_as(ratios), atol=1e-3, rtol=1e-3)
