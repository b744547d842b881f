"""Measure the size of a network and the quality of a segmentation."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_macs(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Return the multiply-adds of convolutions and matrix products for one input of ``shape``.

    torch's counter counts two operations per multiply-add.
    """
    example = next(model.parameters()).new_zeros(1, *shape)
    was_training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(example)
    model.train(was_training)
    return counter.get_total_flops() // 2


def size(model: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """Return the network's ``parameters`` and its ``macs`` for one input of ``shape``."""
    return {"parameters": count_parameters(model), "macs": count_macs(model, shape)}


def overlap(predicted: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the Jaccard index and Dice coefficient (N,) float64 of bool masks (N, ...), per image.

    J = |A ∩ B| / |A ∪ B| and D = 2 |A ∩ B| / (|A| + |B|), so J = D / (2 - D). Both are 1 if both
    masks are empty, and 0 if exactly one is.
    """
    predicted, truth = predicted.flatten(1), truth.flatten(1)
    common = (predicted & truth).sum(1).double()
    total = (predicted.sum(1) + truth.sum(1)).double()
    both_empty = total == 0
    jaccard = torch.where(both_empty, 1.0, common / (total - common))
    return jaccard, torch.where(both_empty, 1.0, 2 * common / total)


def soft_dice_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the mean over images of 1 - soft Dice, for logits and bool masks (N, ...).

    Soft Dice replaces the predicted mask by probabilities (Milletari et al. 2016, but without
    squares in the denominator). 1 is added to numerator and denominator, so that images with an
    empty mask have a gradient.
    """
    probabilities, truth = logits.sigmoid().flatten(1), truth.to(logits.dtype).flatten(1)
    common = (probabilities * truth).sum(1)
    return (1 - (2 * common + 1) / (probabilities.sum(1) + truth.sum(1) + 1)).mean()


def segmentation_loss(
    logits: torch.Tensor, truth: torch.Tensor, dice_weight: float
) -> torch.Tensor:
    """Return the mean binary cross-entropy plus ``dice_weight`` times the soft Dice loss."""
    loss = F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype))
    return loss + dice_weight * soft_dice_loss(logits, truth) if dice_weight > 0 else loss
