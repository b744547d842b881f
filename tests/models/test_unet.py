"""The U-Net: sizes, counts, one factor at a time; and metrics of segmentations."""

import itertools

import hypothesis
import hypothesis.extra.numpy
import numpy as np
import pytest
import torch

from lib.models import unet
from lib.spec.errors import UserError
from lib.training import metrics

MODES = ("transposed", "nearest", "bilinear")


def build(
    depth: int = 3, width: int = 4, up: str = "nearest", act: str = "relu", bn: bool = True
) -> unet.UNet:
    torch.manual_seed(0)
    return unet.UNet(depth, width, up, act, bn)


# 5 levels of 64 features. A 1×1 convolution in place of the 2×2 one saves 3 · 2w · w a level: in
# all 6 · (64² + 128² + 256² + 512²) = 2,088,960. Batch normalization adds 2 values a
# feature, 11,776.
PARAMETERS = {
    ("transposed", True): 31_042_369,
    ("transposed", False): 31_030_593,
    ("nearest", True): 28_953_409,
    ("nearest", False): 28_941_633,
    ("bilinear", True): 28_953_409,
    ("bilinear", False): 28_941_633,
}


@pytest.mark.parametrize(("up", "bn"), PARAMETERS)
@pytest.mark.parametrize("act", ["relu", "elu"])
def test_parameter_counts(up: str, bn: bool, act: str) -> None:
    with torch.device("meta"):
        model = unet.UNet(5, 64, up, act, bn)
    assert metrics.count_parameters(model) == PARAMETERS[up, bn]


@pytest.mark.parametrize(("depth", "width", "side"), [(1, 3, 5), (2, 4, 6), (3, 2, 20), (5, 2, 48)])
@pytest.mark.parametrize("up", MODES)
def test_any_side_that_can_be_halved_works(depth: int, width: int, side: int, up: str) -> None:
    images = torch.randn(2, 1, side, 2 * side if depth > 1 else side)
    assert build(depth, width, up)(images).shape == images.shape


@pytest.mark.parametrize(("side", "advice"), [(30, "28 or 32"), (3, "such as 4"), (0, "such as 4")])
def test_other_sides_are_refused_with_advice(side: int, advice: str) -> None:
    with pytest.raises(UserError, match=advice):
        build()(torch.zeros(1, 1, side, 32))


def test_shared_layers_start_from_equal_weights() -> None:
    variants = itertools.product(MODES, ("relu", "elu"), (True, False))
    states = [build(3, 4, *variant).state_dict() for variant in variants]
    shared = set.intersection(*(set(state) for state in states))
    convolutions = {name for name in shared if name.startswith(("encoder.0.0", "head"))}
    assert len(convolutions) == 4
    for state in states[1:]:
        for name in convolutions:
            assert torch.equal(state[name], states[0][name]), name
    with_norm = [build(3, 4, *v).state_dict() for v in itertools.product(MODES, ("relu", "elu"))]
    for state in with_norm[1:]:
        for name in with_norm[0]:
            if not name.startswith("up."):
                assert torch.equal(state[name], with_norm[0][name]), name


def test_batch_norm_changes_no_convolution() -> None:
    weights = [
        [m.weight for m in build(bn=bn).modules() if isinstance(m, torch.nn.Conv2d)]
        for bn in (True, False)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_interpolation_and_1x1_convolution_commute(mode: str) -> None:
    convolution, resize = unet._up(6, 3, mode)
    images = torch.randn(2, 6, 5, 7)
    torch.testing.assert_close(resize(convolution(images)), convolution(resize(images)))


MASKS = hypothesis.extra.numpy.arrays(bool, (3, 4, 5))


@hypothesis.given(MASKS, MASKS)
def test_overlap_agrees_with_sets(a: np.ndarray, b: np.ndarray) -> None:
    jaccard, dice = metrics.overlap(torch.from_numpy(a), torch.from_numpy(b))
    torch.testing.assert_close(jaccard, dice / (2 - dice))
    for i in range(3):
        x, y = ({*map(tuple, np.argwhere(m[i]))} for m in (a, b))
        assert jaccard[i] == (len(x & y) / len(x | y) if x | y else 1)
        assert dice[i] == (2 * len(x & y) / (len(x) + len(y)) if x | y else 1)


def test_overlap_of_empty_and_full_masks() -> None:
    empty, full = torch.zeros(1, 2, 2, dtype=torch.bool), torch.ones(1, 2, 2, dtype=torch.bool)
    half = torch.tensor([[[True, True], [False, False]]])
    pairs = [(empty, empty, 1), (empty, full, 0), (full, empty, 0), (full, full, 1)]
    for predicted, truth, value in [*pairs, (full, half, 1 / 2), (empty, half, 0)]:
        assert metrics.overlap(predicted, truth)[0].item() == value


def test_soft_dice_of_sure_predictions_is_dice() -> None:
    truth, predicted = (torch.rand(2, 4, 1, 40, 40) > 0.4).unbind()
    loss = metrics.soft_dice_loss(40.0 * (2.0 * predicted - 1), truth)
    assert loss.item() == pytest.approx(
        1 - metrics.overlap(predicted, truth)[1].mean().item(), abs=1e-3
    )


def test_segmentation_loss_adds_what_its_weight_says() -> None:
    logits, truth = torch.randn(2, 1, 8, 8), torch.rand(2, 1, 8, 8) > 0.5
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth.float())
    assert metrics.segmentation_loss(logits, truth, 0.0) == plain
    both = metrics.segmentation_loss(logits, truth, 2.0)
    torch.testing.assert_close(both, plain + 2 * metrics.soft_dice_loss(logits, truth))


def test_an_empty_mask_has_a_gradient() -> None:
    logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
    metrics.soft_dice_loss(logits, torch.zeros(1, 1, 4, 4, dtype=torch.bool)).backward()
    assert (logits.grad > 0).all()
