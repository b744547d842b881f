"""Building blocks that the sign network and the U-Net share."""

import functools
from typing import Literal

from torch import nn

Activation = Literal["elu", "relu", "gelu"]

# ELU and ReLU overwrite what they are given, which nothing needs again: less memory, and ELU's
# gradient comes from its result, without another exponential.
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
    """Return convolution, batch normalization if asked for, activation, in that order.

    (N, inputs, H, W) -> (N, outputs, H', W'), H' = H + 2 padding - kernel_size + 1, W' alike.
    Batch normalization is between the convolution and its activation (Ioffe & Szegedy 2015,
    section 3.2). Where it is a factor, the convolution keeps its ``bias`` in both arms, so that the
    factor adds layers and changes nothing else; batch normalization draws no random numbers, so
    both arms start from equal convolution weights at equal seed.
    """
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel_size, padding=padding, bias=bias)]
    if batch_norm:
        layers.append(nn.BatchNorm2d(outputs))
    layers.append(ACTIVATIONS[activation]())
    return layers
