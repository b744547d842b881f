"""Train a CNN on the German Traffic Sign Recognition Benchmark: one run of a study.

    python train_gtsrb.py --epochs 3 --optimizer sgd   (one run; WANDB_MODE=offline: no account)
    python -m lib.agent gtsrb_short                    (all runs of a study on this machine)
    wandb sweep sweeps/gtsrb.yaml                      (all runs of a study on several machines)

For studies of batch normalization, optimizers and activations. The defaults are those of the
assignment's template: three convolutions, ELU, Adam with eps 0.1, batches of 128, 400 epochs.
"""

import dataclasses
import functools
import math
import time
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn
from torch.nn import functional as F

from lib.data import gtsrb
from lib.data.augment import CROP, augment, center_crop
from lib.models.gtsrb_cnn import CNN
from lib.tracking import media, wandb_run
from lib.training import config, hardware, metrics, optim, seeding
from lib.training.loop import Loop
from lib.training.provenance import provenance

PROGRAM = Path(__file__).stem  # stored in checkpoints

# ---------------------------------------------------------------------------------------------
# Hyperparameters


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters of one run, which trains the small CNN on the traffic signs.

    Set WANDB_MODE=offline to run without a W&B account.
    """

    # Replicate and data
    seed: NonNegativeInt = 0  # replicate; determines split, initial weights, order, augmentation
    data: str = "data/GTSRB"  # folder with the traffic signs
    val_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1  # share of tracks for validation
    # Budget
    epochs: PositiveInt = 400  # passes over the training images
    batch_size: PositiveInt = 128  # images per step
    # Network
    batch_norm: bool = False  # batch normalization before each activation
    activation: Literal["elu", "relu", "gelu"] = "elu"  # activation after each convolution
    # Optimizer
    optimizer: Literal["adam", "sgd"] = "adam"  # sgd has Nesterov momentum
    adam_lr: PositiveFloat = 0.001  # Adam's learning rate
    adam_eps: PositiveFloat = 0.1  # Adam's eps; 0.1 is the template's, 1.0e-8 is usual
    sgd_lr: PositiveFloat = 0.01  # SGD's learning rate
    sgd_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # SGD's Nesterov momentum
    schedule: Literal["constant", "cosine"] = "constant"  # learning-rate schedule
    # Augmentation
    rotation: NonNegativeFloat = 5.0  # random rotation up to ± degrees
    brightness: NonNegativeFloat = 0.8  # brightness jitter: factor of 1 ± this
    contrast: NonNegativeFloat = 0.4  # contrast jitter: factor of 1 ± this
    flip: bool = True  # random flip of classes whose mirror image is in the same class
    # Machine and files
    precision: hardware.Precision = "float32"  # precision of convolutions and matrix products
    media: bool = False  # log images of test confusions and mistakes to W&B
    checkpoint_every: PositiveInt = 10  # epochs between checkpoints


# ---------------------------------------------------------------------------------------------
# Network and optimizer


def network(cfg: Config) -> nn.Module:
    """Return the untrained network of a run: (N, 3, 28, 28) -> (N, 43) logits."""
    torch.manual_seed(seeding.stream_seed(cfg.seed, "init"))
    return CNN(cfg.batch_norm, cfg.activation)


def test_images(cfg: Config, data: gtsrb.Data) -> torch.Tensor:
    """Return the test images as the network's input, (N, 3, 28, 28) in [0, 1]."""
    return center_crop(data.test.images)


def input_shape(cfg: Config) -> tuple[int, int, int]:
    """Return the shape (C, H, W) of the network's input."""
    return (3, CROP, CROP)


def load_data(cfg: Config) -> gtsrb.Data:
    """Load the data of a run."""
    return gtsrb.load(cfg.data)


def build(
    cfg: Config, steps: int, device: torch.device
) -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return network, optimizer and learning-rate schedule for ``steps`` steps in total."""
    model = network(cfg).to(device, memory_format=torch.channels_last)
    if cfg.optimizer == "sgd":
        optimizer = optim.sgd(model.parameters(), cfg.sgd_lr, cfg.sgd_momentum)
    else:
        optimizer = optim.adam(model.parameters(), cfg.adam_lr, cfg.adam_eps)
    return model, optimizer, optim.schedule_lr(optimizer, cfg.schedule, steps)


# ---------------------------------------------------------------------------------------------
# One step, one evaluation


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    part: gtsrb.Images,
    generator: torch.Generator,
    cfg: Config,
    sums: torch.Tensor,
    batch: torch.Tensor,
) -> None:
    """Train on the images at ``batch`` (n,); add loss and number of errors to ``sums`` (2,)."""
    model.train()
    images, labels = part.images[batch], part.labels[batch]
    images = augment(
        images,
        labels,
        generator,
        rotation=cfg.rotation,
        brightness=cfg.brightness,
        contrast=cfg.contrast,
        flip=cfg.flip,
    )
    with hardware.autocast(images.device, cfg.precision):
        logits = model(images)
    logits = logits.float()
    loss = F.cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    sums += torch.stack([loss.detach() * len(batch), (logits.argmax(1) != labels).sum()])


@torch.no_grad()
def evaluate(
    model: nn.Module, part: gtsrb.Images, indices: torch.Tensor, cfg: Config
) -> tuple[float, float, torch.Tensor, torch.Tensor]:
    """Return mean loss, error, predicted class (n,) and probability of the true class (n,).

    Evaluates center crops of the images at ``indices`` (n,). With n = 0 loss and error are NaN.
    """
    model.eval()
    with hardware.autocast(part.images.device, cfg.precision):
        outputs = [model(center_crop(part.images[batch])).float() for batch in indices.split(256)]
    logits = torch.cat(outputs)
    losses = F.cross_entropy(logits, part.labels[indices], reduction="none").double()
    predicted = logits.argmax(1)
    error = (predicted != part.labels[indices]).double().mean().item()
    return losses.mean().item(), error, predicted, (-losses).exp()


# ---------------------------------------------------------------------------------------------
# The run


def train(cfg: Config, data: gtsrb.Data, run: wandb_run.Run) -> None:
    """Train one network, log a history row per epoch, then test it and log the summary.

    Tests the last epochs and the epoch best on validation; the test set selects nothing. Resumes
    from the newest checkpoint, on the CPU bit for bit. Stops if loss or weights are not finite.
    """
    # Data
    device = hardware.best_device()
    split_generator = seeding.numpy_generator(cfg.seed, "split")
    split = gtsrb.split_by_track(data.train, cfg.val_fraction, split_generator)
    train_indices, val_indices = (torch.from_numpy(indices).to(device) for indices in split)
    train_part, test_part, n = data.train.to(device), data.test.to(device), len(split[0])
    steps = math.ceil(n / cfg.batch_size)

    # State
    model, optimizer, scheduler = build(cfg, steps * cfg.epochs, device)
    order = seeding.torch_generator(cfg.seed, "order")
    augmentation = seeding.torch_generator(cfg.seed, "augmentation", device)
    state = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    state |= {"order": order, "augmentation": augmentation}
    config_key = dataclasses.asdict(cfg) | {"data": data.sha256, "program": PROGRAM}
    watched = "val/error" if len(val_indices) else None
    made_by = provenance(device)
    loop = Loop(run, config_key, state, cfg.epochs, cfg.checkpoint_every, watched, made_by)
    run.summarize(data.about)
    run.summarize(seeding.pairing_hashes(cfg.seed, split))
    run.summarize(metrics.size(model, input_shape(cfg)))
    loop.resume()

    # Epochs
    # Sums of loss and errors. They are read once per epoch, so that no step waits for the GPU.
    sums = torch.zeros(2, device=device)
    step = functools.partial(train_step, model, optimizer, train_part, augmentation, cfg, sums)
    left = steps * (cfg.epochs - loop.epoch)
    known = (model, optimizer, augmentation, sums)
    step = hardware.maybe_cuda_graph(step, cfg.batch_size, left, *known)
    with wandb_run.progress_bar(steps * cfg.epochs, steps * loop.epoch) as bar:
        while loop.unfinished:
            start, lr = time.perf_counter(), optim.current_lr(scheduler)
            shuffled = train_indices[torch.randperm(n, generator=order).to(device)]
            for batch in shuffled.split(cfg.batch_size):
                step(batch)
                scheduler.step()
                bar.update()
            train_loss, train_error = (total / n for total in sums.tolist())
            sums.zero_()
            rate = n / (time.perf_counter() - start)
            val_loss, val_error, *_ = evaluate(model, train_part, val_indices, cfg)
            row = {"train/loss": train_loss, "train/error": train_error}
            row |= {"val/loss": val_loss, "val/error": val_error, "lr": lr}
            row |= {"seconds": time.perf_counter() - start, "images_per_second": rate}
            loop.end_epoch(row, model)
            wandb_run.show_epoch(bar, loop.history[-1], cfg.epochs, watched or "train/error")
            if loop.in_tail:
                loop.add_tail(evaluate(model, test_part, test_part.indices, cfg)[1])
            loop.save_if_due()

    test(model, test_part, loop, run, cfg)


def test(model: nn.Module, part: gtsrb.Images, loop: Loop, run: wandb_run.Run, cfg: Config) -> None:
    """Test the last and the best weights; save scores per image, log the summary.

    A diverged run gets the worst error, 1, predicted classes -1 and probabilities 0.
    """
    error = best_error = mean_error = 1.0
    predicted, probability = torch.full_like(part.labels, -1), torch.zeros(len(part.labels))
    if not loop.diverged:
        _, error, predicted, probability = evaluate(model, part, part.indices, cfg)
        mean_error = sum(loop.tail) / len(loop.tail)
        model.load_state_dict(loop.best_weights)
        _, best_error, *_ = evaluate(model, part, part.indices, cfg)
    scores = {"labels": part.labels, "predicted": predicted, "probability": probability}
    run.save_arrays("test_scores.npz", names=part.names, **scores)
    if cfg.media:
        run.log_media(media.signs(part.images, part.labels, predicted, probability))
    run.summarize({"test/error": error, "test/error_at_best_val": best_error})
    run.summarize({"test/error_mean_last_5": mean_error, "diverged": loop.diverged})
    run.summarize({"best_epoch": loop.best_epoch})


def main() -> None:
    """Parse flags and sweep parameters, load the data, train."""
    hardware.prepare()
    with wandb_run.start(config.from_flags(Config)) as (cfg, run):
        data = load_data(cfg)
        if not run.dry:
            with hardware.explain_out_of_memory(cfg.batch_size):
                train(cfg, data, run)


if __name__ == "__main__":
    main()
