"""The challenge network for traffic signs: 694,283 parameters, 53.2 M multiply-adds at 32 × 32."""

import math

import torch
from torch import nn

from lib.data import augment_strong, gtsrb
from lib.models.blocks import ACTIVATIONS, Activation, conv_block
from lib.spec.gtsrb_classes import CLASSES
from lib.training import hardware

WIDTHS = (32, 64, 128, 192)  # channels at each of the four sizes


class Residual(nn.Module):
    """Two 3×3 convolutions with a shortcut (He et al., CVPR 2016); keeps the shape (N, C, H, W).

    The scale of the second batch normalization is initialized to 0, so that the branch starts at 0
    and the block as the identity up to its activation (Goyal et al. 2017, section 5.1).
    """

    def __init__(self, channels: int, activation: Activation) -> None:
        super().__init__()
        self.first = nn.Sequential(*_block(channels, channels, 3, activation))
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        nn.init.zeros_(self.second[1].weight)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return activation(images + branch)."""
        return self.activation(images + self.second(self.first(images)))


class ChallengeNet(nn.Module):
    """Eight convolutions at four resolutions and a linear layer: (N, 3, S, S) -> (N, 43) logits.

    Inputs are in [0, 1]. For S = 32 the side lengths are 32 -pool-> 16 -pool-> 8 -pool-> 4; most of
    the computation is at 16 and 8. With ``normalize`` each image is first normalized to mean 0 and
    standard deviation 1, which removes differences in brightness and contrast. Global max-pooling
    precedes the linear layer, so S can vary. ``dropout`` is the dropout probability of the pooled
    features (Srivastava et al. 2014).
    """

    def __init__(self, normalize: bool, dropout: float, activation: Activation) -> None:
        super().__init__()
        self.normalize = normalize
        first, second, third, fourth = WIDTHS
        self.features = nn.Sequential(
            *_block(3, first, 5, activation),
            nn.MaxPool2d(2),
            *_block(first, second, 3, activation),
            Residual(second, activation),
            nn.MaxPool2d(2),
            *_block(second, third, 3, activation),
            Residual(third, activation),
            nn.MaxPool2d(2),
            *_block(third, fourth, 3, activation),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
        )
        self.classifier = nn.Linear(fourth, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, 43)."""
        return self.classifier(self.features(normalize(images) if self.normalize else images))


def _block(inputs: int, outputs: int, kernel_size: int, activation: Activation) -> list[nn.Module]:
    """Return a convolution without bias, batch normalization and activation; keeps H and W."""
    padding = kernel_size // 2
    return conv_block(inputs, outputs, kernel_size, True, activation, padding, bias=False)


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Normalize each image of float (N, C, H, W) in [0, 1] to mean 0 and standard deviation 1.

    The divisor is at least 1/255, the resolution of a pixel, so that a nearly constant image is not
    amplified.
    """
    centered = images - images.mean((1, 2, 3), keepdim=True)
    deviation = centered.square().mean((1, 2, 3), keepdim=True).sqrt()
    return centered / deviation.clamp(min=1 / 255)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    part: gtsrb.Images,
    indices: torch.Tensor,
    views: int,
    precision: hardware.Precision = "float32",
) -> tuple[float, float, torch.Tensor, torch.Tensor]:
    """Return mean loss, error, predicted class (n,) and probability of the true class (n,).

    Evaluates the images at ``indices`` (n,). Probabilities are averaged over the first ``views`` of
    augment_strong.VIEWS (test-time augmentation). With n = 0 loss and error are NaN.
    """
    model.eval()
    logs = []
    for batch in indices.split(256):
        inputs = [
            augment_strong.view(part.images[batch], which) for which in augment_strong.VIEWS[:views]
        ]
        with hardware.autocast(part.images.device, precision):
            outputs = [model(images).float() for images in inputs]
        logs.append(torch.stack([logits.log_softmax(1) for logits in outputs]).logsumexp(0))
    logs, labels = torch.cat(logs).double() - math.log(views), part.labels[indices]
    predicted, log_likelihood = logs.argmax(1), logs.gather(1, labels[:, None])[:, 0]
    error = (predicted != labels).double().mean().item()
    return -log_likelihood.mean().item(), error, predicted, log_likelihood.exp().float()
