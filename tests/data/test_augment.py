"""Batched augmentation against torchvision's functions, image by image."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from lib.data import augment
from lib.training.seeding import torch_generator


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


def vary(
    images: torch.Tensor, masks: torch.Tensor, **strengths: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment pairs with everything off but what is given."""
    names = ("rotation", "shift", "scale", "brightness", "contrast")
    values = [strengths.get(name, 0.0) for name in names]
    return augment.augment_pair(images, masks, torch.Generator().manual_seed(5), *values)


def blobs(n: int = 6, side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images that are brightest where their masks are, off the center."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")
    masks = (((x - 0.2) / 0.3) ** 2 + ((y + 0.1) / 0.5) ** 2 < 1).expand(n, 1, side, side)
    return masks.float() * 4 - 1, masks


def test_pairs_without_strength_stay_as_they_are() -> None:
    images, masks = torch.randn(5, 1, 24, 24), torch.rand(5, 1, 24, 24) > 0.5
    varied, followed = vary(images, masks)
    torch.testing.assert_close(varied, images, atol=1e-5, rtol=1e-5)
    assert torch.equal(followed, masks)


@pytest.mark.parametrize("strength", [{"rotation": 30.0}, {"shift": 0.2}, {"scale": 0.4}])
def test_masks_follow_their_images(strength: dict[str, float]) -> None:
    images, masks = blobs()
    varied, followed = vary(images, masks, **strength)
    assert followed.dtype == torch.bool
    assert torch.equal(varied > 1, followed)
    assert all((followed[i] != masks[i]).any() for i in range(len(masks)))


def center(mask: torch.Tensor) -> torch.Tensor:
    """Return the center of a mask (1, S, S), x and y from -1 to 1."""
    side = mask.shape[-1]
    y, x = mask[0].nonzero().double().mean(0)
    return (2 * torch.stack([x, y]) + 1) / side - 1


def test_how_far_pairs_move() -> None:
    images, masks = blobs(40)
    _, shifted = vary(images, masks, shift=0.1)
    moves = torch.stack([center(m) - center(masks[0]) for m in shifted])
    assert 0.15 < moves.abs().max() <= 0.2 + 0.02, "a tenth of the side is 0.2"
    _, turned = vary(images, masks, rotation=20.0)
    start = torch.atan2(*center(masks[0]).flip(0))
    angles = torch.stack([torch.atan2(*center(m).flip(0)) - start for m in turned]).rad2deg()
    assert 15 < angles.abs().max() < 22
    _, scaled = vary(images, masks, scale=0.3)
    areas = scaled.flatten(1).sum(1) / masks[0].sum()
    assert 0.49 - 0.05 < areas.min() < 0.7
    assert 1.4 < areas.max() < 1.69 + 0.05


def test_grays_change_by_what_is_said_and_masks_do_not() -> None:
    images, masks = blobs(50)
    varied, followed = vary(images, masks, brightness=0.5, contrast=0.3)
    assert torch.equal(followed, masks)
    spread = (varied.amax((1, 2, 3)) - varied.amin((1, 2, 3))) / 4
    assert 0.7 <= spread.min() < 0.8
    assert 1.2 < spread.max() <= 1.3
    brighter, _ = vary(images, masks, brightness=0.5)
    offsets = (brighter - images).mean((1, 2, 3))
    assert 0.4 < offsets.abs().max() <= 0.5


def test_a_strength_shifts_no_others_draws() -> None:
    images, masks = blobs()
    alone = vary(images, masks, rotation=9.0)[1]
    together = vary(images, masks, rotation=9.0, brightness=0.4, contrast=0.2)[1]
    assert torch.equal(alone, together)
