"""Images of a run's test results for W&B, logged at its end with ``media: true``.

matplotlib is imported inside functions, because it takes a third of a second that most runs do not
need.
"""

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import wandb
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = 16  # largest number of signs, about 2 kB each
RADIOGRAPHS = 8  # largest number of radiographs, about 50 kB each at 256 pixels


def signs(
    images: torch.Tensor,
    labels: torch.Tensor,
    predicted: torch.Tensor,
    probability: torch.Tensor,
) -> dict[str, Any]:
    """Return images of the confusion matrix, error per class, and the most confident mistakes.

    ``images`` (N, 3, H, W) uint8; true class, predicted class and probability of the true class
    (N,). Returns an empty mapping for a diverged run, whose predicted classes are -1.
    """
    images, labels, predicted, probability = (
        tensor.cpu() for tensor in (images, labels, predicted, probability)
    )
    if (predicted < 0).any():
        return {}
    count = int(max(labels.max(), predicted.max())) + 1
    matrix = torch.bincount(labels * count + predicted, minlength=count**2).view(count, count)
    confusions = matrix.fill_diagonal_(0).double()
    images_per_class = torch.bincount(labels, minlength=count)
    errors = confusions.sum(1) / images_per_class.clamp(min=1)
    mistakes = (predicted != labels).nonzero().flatten()
    confident = mistakes[probability[mistakes].argsort()][:PICTURES]
    pictures = [
        wandb.Image(
            images[i].permute(1, 2, 0).numpy(),
            caption=f"class {labels[i]}, predicted {predicted[i]}; probability of {labels[i]}: "
            f"{probability[i]:.3f}",
        )
        for i in confident.tolist()
    ]
    panels = {"media/confusions": _confusions(confusions)}
    panels["media/class_errors"] = _class_errors(errors, images_per_class)
    return panels | ({"media/confident_mistakes": pictures} if pictures else {})


def _confusions(counts: torch.Tensor) -> wandb.Image:
    """Draw a confusion matrix: true class by row, predicted class by column, empty diagonal."""
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.subplots()
    shades = axes.imshow(counts.numpy(), cmap="cividis", norm=PowerNorm(0.5, vmin=0))
    axes.set(xlabel="predicted class", ylabel="true class", title="Test confusion matrix")
    figure.colorbar(shades, label="images")
    return _image(figure, f"{int(counts.sum())} mistakes; correct predictions are not shown")


def _class_errors(errors: torch.Tensor, counts: torch.Tensor) -> wandb.Image:
    """Draw the test error of each class."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(errors)), 100 * errors.numpy(), color="#0072b2")
    axes.set(xlabel="class", ylabel="test error (%)", title="Test error per class")
    return _image(figure, f"{int(counts.min())} to {int(counts.max())} images per class")


def _image(figure: "Figure", caption: str) -> wandb.Image:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    return wandb.Image(Image.open(drawn), caption=caption)


def lungs(
    images: torch.Tensor,
    truth: torch.Tensor,
    predicted: torch.Tensor,
    names: list[str],
    jaccard: torch.Tensor,
) -> dict[str, Any]:
    """Return the radiographs with the lowest Jaccard index, with true and predicted masks.

    ``images`` (N, 1, S, S) uint8; masks ``truth`` and ``predicted`` (N, 1, S, S) bool; ``jaccard``
    (N,).
    """
    inside, pictures = {0: "outside", 1: "lung"}, []
    for i in jaccard.argsort()[:RADIOGRAPHS].tolist():
        masks = {
            name: {"mask_data": mask[i, 0].cpu().numpy().astype(np.uint8), "class_labels": inside}
            for name, mask in {"true": truth, "predicted": predicted}.items()
        }
        caption = f"{names[i]}: Jaccard {jaccard[i]:.3f}"
        pictures.append(wandb.Image(images[i, 0].cpu().numpy(), masks=masks, caption=caption))
    return {"media/worst_lung_fields": pictures}
