"""The U-Net of the lung study, with a choice of upsampling and activation."""

from typing import Literal

import torch
from torch import nn

from lib.models.blocks import Activation, conv_block
from lib.spec.errors import UserError

Upsampling = Literal["transposed", "nearest", "bilinear"]


class UNet(nn.Module):
    """Encoder and decoder with skip connections: (N, 1, H, W) -> (N, 1, H, W) logits.

    ``depth`` levels with ``width``, 2 ``width``, 4 ``width``, … features, each with two 3×3
    convolutions. The encoder downsamples by 2×2 max-pooling, the decoder upsamples by a factor of 2
    (``upsampling``) and concatenates the encoder's features of the same level. H and W must be
    multiples of 2^(depth - 1). Source: Ronneberger et al. 2015; padding and batch normalization as
    in lightning-bolts (5 levels, 64 features).

    All variants have the same numbers of channels. Encoder, decoder, head and upsampling are
    initialized in this order, so with one seed the layers that variants share start from the same
    weights.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        upsampling: Upsampling,
        activation: Activation,
        batch_norm: bool,
    ) -> None:
        super().__init__()
        sizes = [width * 2**level for level in range(depth)]
        self.divisor = 2 ** (depth - 1)
        self.encoder = nn.ModuleList(
            _double(inputs, outputs, batch_norm, activation)
            for inputs, outputs in zip([1, *sizes[:-1]], sizes, strict=True)
        )
        self.decoder = nn.ModuleList(
            _double(2 * size, size, batch_norm, activation) for size in sizes[-2::-1]
        )
        self.head = nn.Conv2d(width, 1, 1)
        self.up = nn.ModuleList(_up(2 * size, size, upsampling) for size in sizes[-2::-1])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, 1, H, W).

        Raises:
            UserError: if height or width is not a multiple of 2^(depth - 1).
        """
        check_size(*images.shape[2:], self.divisor)
        features, skipped = self.encoder[0](images), []
        for block in self.encoder[1:]:
            skipped.append(features)
            features = block(nn.functional.max_pool2d(features, 2))
        for up, block in zip(self.up, self.decoder, strict=True):
            features = block(torch.cat([skipped.pop(), up(features)], 1))
        return self.head(features)


def check_size(height: int, width: int, divisor: int) -> None:
    """Raise a UserError unless height and width are positive multiples of ``divisor``."""
    for side in (height, width):
        if side % divisor or side == 0:
            below, above = side // divisor * divisor, -(-side // divisor) * divisor
            near = f"{below} or {above}" if below else f"{max(above, divisor)}"
            raise UserError(
                f"image side {side}: this U-Net downsamples by a factor of {divisor} in total. Use "
                f"a multiple of {divisor}, such as {near}, or a smaller depth"
            )


def _double(inputs: int, outputs: int, batch_norm: bool, activation: Activation) -> nn.Sequential:
    first = conv_block(inputs, outputs, 3, batch_norm, activation, padding=1)
    return nn.Sequential(
        *first, *conv_block(outputs, outputs, 3, batch_norm, activation, padding=1)
    )


def _up(inputs: int, outputs: int, upsampling: Upsampling) -> nn.Module:
    """Return a module that upsamples (N, inputs, H, W) to (N, outputs, 2 H, 2 W).

    lightning-bolts puts the 1×1 convolution after the interpolation. They commute, and before it
    the convolution costs a quarter. Bilinear interpolation uses align_corners=True as there.
    """
    if upsampling == "transposed":
        return nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
    align = True if upsampling == "bilinear" else None
    resize = nn.Upsample(scale_factor=2, mode=upsampling, align_corners=align)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), resize)
