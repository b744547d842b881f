"""Train a CNN on the German Traffic Sign Recognition Benchmark: one run of a study.

    python train_gtsrb.py --epochs 3 --optimizer sgd   (WANDB_MODE=offline: without an account)
    python -m lib.agent sweeps/gtsrb_short.yaml        (a whole study on this machine)
    wandb sweep sweeps/gtsrb.yaml                      (a whole study on many machines)

What do batch normalization, the optimizer and the activation change? The defaults are the
assignment's template: three convolutions, ELU, Adam with eps 0.1, batches of 128, 400 epochs.
"""

import dataclasses
import functools
import math
import time
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn
from torch.nn import functional as F

from lib.data import gtsrb
from lib.data.augment import CROP, augment, center_crop
from lib.models.gtsrb_cnn import CNN
from lib.tracking import media, wandb_run
from lib.training import checkpoint, config, hardware, metrics, optim, seeding
from lib.training.hardware import graphed


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters of one run."""

    seed: NonNegativeInt = 0  # the replicate: feeds split, weights, order and augmentation
    data: str = "data/GTSRB"  # folder with Final_Training and Final_Test
    val_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1  # share of each class's tracks; 0: none
    epochs: PositiveInt = 400  # passes over the training images
    batch_size: PositiveInt = 128  # images per step
    batch_norm: bool = False  # between each convolution and its activation
    activation: Literal["elu", "relu", "gelu"] = "elu"  # after each convolution
    optimizer: Literal["adam", "sgd"] = "adam"  # sgd is with Nesterov momentum
    adam_lr: PositiveFloat = 0.001  # Adam's learning rate
    adam_eps: PositiveFloat = 0.1  # Adam's eps: the template's, far above the usual 1.0e-8
    sgd_lr: PositiveFloat = 0.01  # SGD's learning rate
    sgd_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # SGD's Nesterov momentum
    schedule: Literal["constant", "cosine"] = "constant"  # of the learning rate, per step
    rotation: NonNegativeFloat = 5.0  # augmentation: up to ± degrees
    brightness: NonNegativeFloat = 0.8  # augmentation: factor 1 ± this
    contrast: NonNegativeFloat = 0.4  # augmentation: factor 1 ± this
    flip: bool = True  # augmentation: mirror classes whose mirror image keeps its meaning
    precision: hardware.Precision = "float32"  # of convolutions and matrix products
    media: bool = False  # show the test's confusions and mistakes in W&B
    checkpoint_every: PositiveInt = 10  # epochs; a run that is killed loses at most so many


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    part: gtsrb.Images,
    generator: torch.Generator,
    cfg: Config,
    sums: torch.Tensor,
    batch: torch.Tensor,
) -> None:
    """Train on the images ``batch`` (n,); add loss and mistakes to ``sums`` (2,)."""
    model.train()
    images, labels = part.images[batch], part.labels[batch]
    variation = (cfg.rotation, cfg.brightness, cfg.contrast, cfg.flip)
    images = augment(images, labels, generator, *variation)
    logits = model(images)
    loss = F.cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    sums += torch.stack([loss.detach() * len(batch), (logits.argmax(1) != labels).sum()])


@torch.no_grad()
def evaluate(
    model: nn.Module, part: gtsrb.Images, indices: torch.Tensor
) -> tuple[float, float, torch.Tensor, torch.Tensor]:
    """Return mean loss, error, predicted class (n,) and probability of the true class (n,).

    On centre crops of the images ``indices`` (n,); with n = 0 loss and error are NaN.
    """
    model.eval()
    logits = torch.cat([model(center_crop(part.images[batch])) for batch in indices.split(256)])
    losses = F.cross_entropy(logits, part.labels[indices], reduction="none").double()
    predicted = logits.argmax(1)
    error = (predicted != part.labels[indices]).double().mean().item()
    return losses.mean().item(), error, predicted, (-losses).exp()


def build(
    cfg: Config, steps: int, device: torch.device
) -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return the network with its optimizer and the schedule for ``steps`` steps in all."""
    torch.manual_seed(seeding.stream_seed(cfg.seed, "init"))
    model = CNN(cfg.batch_norm, cfg.activation)
    model = model.to(device, memory_format=torch.channels_last)
    model.forward = hardware.in_precision(model.forward, device, cfg.precision)
    if cfg.optimizer == "sgd":
        optimizer = optim.sgd(model.parameters(), cfg.sgd_lr, cfg.sgd_momentum)
    else:
        optimizer = optim.adam(model.parameters(), cfg.adam_lr, cfg.adam_eps)
    return model, optimizer, optim.schedule_lr(optimizer, cfg.schedule, steps)


def train(cfg: Config, data: gtsrb.Data, run: wandb_run.Run) -> None:
    """Train one network, log a row per epoch; then log the test's summary.

    The test set selects nothing: the last epochs are tested, and the one best on validation.
    Continues from the newest checkpoint, on the CPU bit for bit. A non-finite loss: ``diverged``.
    """
    device = hardware.best_device()
    split_generator = seeding.numpy_generator(cfg.seed, "split")
    split = gtsrb.split_by_track(data.train, cfg.val_fraction, split_generator)
    train_indices, val_indices = (torch.from_numpy(indices).to(device) for indices in split)
    part, n, has_val = data.train.to(device), len(train_indices), len(val_indices) > 0
    test_part = data.test.to(device)
    steps = math.ceil(n / cfg.batch_size)
    model, optimizer, scheduler = build(cfg, steps * cfg.epochs, device)
    order = seeding.torch_generator(cfg.seed, "order")
    augmentation = seeding.torch_generator(cfg.seed, "augmentation", device)
    start_summary = {"data_sha256": data.sha256} | wandb_run.provenance(device)
    start_summary |= metrics.size(model, (3, CROP, CROP)) | seeding.pair_hashes(cfg.seed, split)

    stateful = [model, optimizer, scheduler, order, augmentation]
    identity = dataclasses.asdict(cfg) | {"data": data.sha256}
    progress = {"history": [], "diverged": False, "test_errors": []}
    progress["best"] = {"epoch": 0, "error": math.inf}
    progress = checkpoint.resume(run.folder, identity, stateful) or progress
    epoch = len(progress["history"])
    run.summarize(start_summary | {"resumed_from_epoch": epoch})
    run.resume(progress["history"])

    sums = torch.zeros(2, device=device)  # of loss and mistakes; read once per epoch: no waiting
    step = functools.partial(train_step, model, optimizer, part, augmentation, cfg, sums)
    step = graphed(step, cfg.batch_size, steps * (cfg.epochs - epoch), optimizer, augmentation)
    with wandb_run.progress_bar(steps * cfg.epochs, steps * epoch) as bar:
        while epoch < cfg.epochs and not progress["diverged"]:
            epoch += 1
            start, lr = time.perf_counter(), optim.current_lr(scheduler)
            shuffled = train_indices[torch.randperm(n, generator=order).to(device)]
            for batch in shuffled.split(cfg.batch_size):
                step(batch)
                scheduler.step()
                bar.update()
            train_loss, train_error = (total / n for total in sums.tolist())
            sums.zero_()
            rate = n / (time.perf_counter() - start)
            val_loss, val_error, *_ = evaluate(model, part, val_indices)
            row = {"epoch": epoch, "train/loss": train_loss, "train/error": train_error}
            row |= {"val/loss": val_loss, "val/error": val_error, "lr": lr}
            row |= {"seconds": time.perf_counter() - start, "images_per_second": rate}
            progress["history"].append(row)
            run.log_epochs([row])
            wandb_run.show_epoch(bar, row, cfg.epochs, "val/error")

            progress["diverged"] = not math.isfinite(train_loss + (val_loss if has_val else 0))
            if not progress["diverged"] and (not has_val or val_error < progress["best"]["error"]):
                weights = {name: value.clone() for name, value in model.state_dict().items()}
                progress["best"] = {"epoch": epoch, "error": val_error, "model": weights}
            if epoch > cfg.epochs - 5:  # their mean is one of the score rules
                progress["test_errors"].append(evaluate(model, test_part, test_part.indices)[1])
            if progress["diverged"] or run.is_due(epoch, cfg.epochs, cfg.checkpoint_every):
                checkpoint.save(run.folder, epoch, identity, progress, stateful)
                run.stop_if_asked()

    test(model, test_part, progress, run)


def test(model: nn.Module, part: gtsrb.Images, progress: dict, run: wandb_run.Run) -> None:
    """Evaluate the last and the best weights on the test images; log scores and summary.

    A diverged run gets the worst error, 1, predicted class -1 and probability 0.
    """
    error = best_error = mean_error = 1.0
    predicted, probability = torch.full_like(part.labels, -1), torch.zeros(len(part.labels))
    if not progress["diverged"]:
        _, error, predicted, probability = evaluate(model, part, part.indices)
        mean_error = sum(progress["test_errors"]) / len(progress["test_errors"])
        model.load_state_dict(progress["best"]["model"])
        _, best_error, *_ = evaluate(model, part, part.indices)
    scores = {"labels": part.labels, "predicted": predicted, "probability": probability}
    run.save_arrays("test_scores.npz", names=part.names, **scores)
    run.show(media.signs, part.images, part.labels, predicted, probability)
    run.summarize({"test/error": error, "test/error_at_best_val": best_error})
    run.summarize({"test/error_mean_last_5": mean_error, "diverged": progress["diverged"]})
    run.summarize({"best_epoch": progress["best"]["epoch"]})


def main() -> None:
    """Read flags and sweep, load the data, train."""
    hardware.prepare()
    with wandb_run.start(config.from_flags(Config)) as (cfg, run):
        train(cfg, gtsrb.load(cfg.data), run)


if __name__ == "__main__":
    main()
