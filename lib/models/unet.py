"""The U-Net of the lung study, with the way it upsamples and its activation as factors."""

from typing import Literal

import torch
from torch import nn

from lib.models.blocks import Activation, conv_block
from lib.spec.errors import UserError

Upsampling = Literal["transposed", "nearest", "bilinear"]


class UNet(nn.Module):
    """Encoder and decoder with skip connections; (N, 1, H, W) -> (N, 1, H, W) logits.

    ``depth`` levels with ``width``, 2 ``width``, 4 ``width``, ... features, each of two 3×3
    convolutions; maxima over 2×2 lead down, ``upsampling`` by 2 leads up; the features of the
    encoder's level are concatenated with the upsampled ones. H and W must be multiples of
    2^(depth - 1). Source: Ronneberger et al. 2015, with padding, and with batch normalization,
    as in lightning-bolts (5 levels, 64 features).

    One channel plan for every variant. Encoder, decoder, head and upsampling are made in this
    order: what variants share starts from equal weights at equal seed.
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
            UserError: when 2^(depth - 1) does not divide height and width.
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
    """Refuse image sides that the network cannot halve often enough.

    Raises:
        UserError: naming the nearest allowed sides.
    """
    for side in (height, width):
        if side % divisor or side == 0:
            below, above = side // divisor * divisor, -(-side // divisor) * divisor
            near = f"{below} or {above}" if below else f"{max(above, divisor)}"
            raise UserError(
                f"an image side of {side} pixels does not fit this U-Net, which halves it until "
                f"{divisor} pixels are one: use a multiple of {divisor}, such as {near}, or a "
                "smaller depth"
            )


def _double(inputs: int, outputs: int, batch_norm: bool, activation: Activation) -> nn.Sequential:
    first = conv_block(inputs, outputs, 3, batch_norm, activation, padding=1)
    return nn.Sequential(
        *first, *conv_block(outputs, outputs, 3, batch_norm, activation, padding=1)
    )


def _up(inputs: int, outputs: int, upsampling: Upsampling) -> nn.Module:
    """Return (N, inputs, H, W) -> (N, outputs, 2 H, 2 W).

    Interpolation and the 1×1 convolution, which lightning-bolts puts after it, commute: before it,
    the convolution costs a quarter. Bilinear interpolation aligns corners, as there.
    """
    if upsampling == "transposed":
        return nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
    corners = True if upsampling == "bilinear" else None
    resize = nn.Upsample(scale_factor=2, mode=upsampling, align_corners=corners)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), resize)
