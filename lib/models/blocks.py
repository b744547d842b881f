"""Building blocks that the networks share."""

import functools
from typing import Literal

from torch import nn

Activation = Literal["elu", "relu", "gelu"]

# ELU and ReLU work in place because their inputs are not needed in the backward pass. This saves
# memory, and ELU's gradient is computed from its output without another exponential.
ACTIVATIONS = {
    "elu": functools.partial(nn.ELU, inplace=True),
    "relu": functools.partial(nn.ReLU, inplace=True),
    "gelu": nn.GELU,
}


def conv_block(
    inputs: int,
    outputs: int,
    kernel_size: int,
    batch_norm: bool,
    activation: Activation,
    padding: int = 0,
    bias: bool = True,
) -> list[nn.Module]:
    """Return a convolution, a batch normalization if ``batch_norm``, and an activation.

    (N, inputs, H, W) -> (N, outputs, H', W') with H' = H + 2 padding - kernel_size + 1, and W'
    likewise. Batch normalization is between convolution and activation (Ioffe & Szegedy 2015,
    section 3.2). Where a study compares networks with and without it, keep ``bias`` True in both,
    so that they differ in nothing else. Its initialization uses no random numbers, so with one seed
    both start from the same convolution weights.
    """
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel_size, padding=padding, bias=bias)]
    if batch_norm:
        layers.append(nn.BatchNorm2d(outputs))
    layers.append(ACTIVATIONS[activation]())
    return layers
