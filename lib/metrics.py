"""What is measured about a network."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable values."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_macs(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Return the multiply-adds of convolutions and matrix products for one input of ``shape``.

    torch's own counter counts two operations for each multiply-add.
    """
    example = next(model.parameters()).new_zeros(1, *shape)
    was_training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(example)
    model.train(was_training)
    return counter.get_total_flops() // 2
