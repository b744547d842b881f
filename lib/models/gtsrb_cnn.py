"""The reference network for 28×28 traffic signs: 87,403 parameters, 23.9 M multiply-adds."""

import torch
from torch import nn

from lib.models.blocks import Activation, conv_block
from lib.spec.gtsrb_classes import CLASSES


class CNN(nn.Module):
    """Three convolutions and one linear layer: (N, 3, 28, 28) in [0, 1] -> (N, 43) logits.

    Side lengths: 28 -5x5-> 24 -5x5-> 20 -pool-> 10 -3x3-> 8 -pool-> 4. This gives 32 · 4 · 4 = 512
    features.
    """

    def __init__(self, batch_norm: bool, activation: Activation) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *conv_block(3, 64, 5, batch_norm, activation),
            *conv_block(64, 32, 5, batch_norm, activation),
            nn.MaxPool2d(2),
            *conv_block(32, 32, 3, batch_norm, activation),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(32 * 4 * 4, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, 43)."""
        return self.classifier(self.features(images))
