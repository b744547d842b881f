"""Train a small CNN for the lowest test error on the German traffic signs: one run of a study.

    python train_gtsrb_challenge.py --epochs 3     (one run; WANDB_MODE=offline: no account)
    python -m lib.agent gtsrb_challenge            (all runs of the study on this machine)

A residual network of 0.7 million parameters is trained on contrast-normalized images with strong
data augmentation. The exponential moving average (EMA) of its weights is tested on nine fixed views
of each image (test-time augmentation). train_gtsrb.py is for comparisons; a shared script would
have twice the settings.
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

from lib.data import augment_strong, gtsrb
from lib.models.gtsrb_resnet import ChallengeNet, evaluate
from lib.tracking import media, wandb_run
from lib.training import config, hardware, metrics, optim, seeding
from lib.training.loop import Loop
from lib.training.provenance import provenance

Share = Annotated[float, Field(ge=0, lt=1)]
Views = Annotated[int, Field(ge=1, le=len(augment_strong.VIEWS))]

PROGRAM = Path(__file__).stem  # stored in checkpoints

# ---------------------------------------------------------------------------------------------
# Hyperparameters


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters of one run, which trains the challenge network on the traffic signs.

    Set WANDB_MODE=offline to run without a W&B account.
    """

    # Replicate and data
    seed: NonNegativeInt = 0  # replicate; determines split, initial weights, order, augmentation
    data: str = "data/GTSRB"  # folder with the traffic signs
    val_fraction: Share = 0.1  # share of each class's tracks for validation; 0: none
    # Budget
    epochs: PositiveInt = 12  # passes over the training images
    batch_size: PositiveInt = 128  # images per step
    # Network
    input_size: Annotated[int, Field(ge=16, le=128)] = 32  # side of the images in pixels
    activation: Literal["elu", "relu", "gelu"] = "relu"  # activation after each batch normalization
    dropout: Share = 0.2  # dropout probability before the last layer
    normalize: bool = True  # normalize each image to mean 0 and standard deviation 1
    # Loss and optimizer
    sgd_lr: PositiveFloat = 0.2  # SGD's highest learning rate
    sgd_momentum: Share = 0.9  # SGD's Nesterov momentum
    weight_decay: NonNegativeFloat = 0.0005  # L2 penalty
    schedule: optim.Schedule = "one_cycle"  # learning-rate schedule
    label_smoothing: Share = 0.1  # label smoothing
    average: Share = 0.998  # decay per step of the moving average of the weights (EMA); 0: none
    # Augmentation
    mirror: augment_strong.Mirror = "map"  # flips: none, within a class, or also between classes
    affine: NonNegativeFloat = 1.0  # strength of rotation, shift, zoom and shear
    perspective: Annotated[float, Field(ge=0, lt=0.5)] = 0.15  # strength of perspective tilt
    light: Share = 0.5  # brightness and contrast jitter: factors of 1 ± this
    colour: Share = 0.15  # jitter of red, green and blue: factors of 1 ± this
    blur: Annotated[float, Field(ge=0, le=1)] = 0.8  # largest weight of a blurred copy
    cutout: Share = 0.35  # side of a gray square on half of the images, as share of theirs
    # Test
    views: Views = 9  # number of views of a test image (test-time augmentation)
    # Machine and files
    precision: hardware.Precision = "float32"  # precision of convolutions and matrix products
    media: bool = False  # log images of test confusions and mistakes to W&B
    checkpoint_every: PositiveInt = 1  # epochs between checkpoints


# ---------------------------------------------------------------------------------------------
# Network and optimizer


def network(cfg: Config) -> nn.Module:
    """Return the untrained network of a run: (N, 3, S, S) -> (N, 43) logits."""
    torch.manual_seed(seeding.stream_seed(cfg.seed, "init"))
    return ChallengeNet(cfg.normalize, cfg.dropout, cfg.activation)


def build(
    cfg: Config, steps: int, device: torch.device
) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return network, EMA, optimizer and learning-rate schedule for ``steps`` steps in total."""
    model = network(cfg).to(device, memory_format=torch.channels_last)
    average = optim.moving_average(model, cfg.average)
    optimizer = optim.sgd(model.parameters(), cfg.sgd_lr, cfg.sgd_momentum, cfg.weight_decay)
    return model, average, optimizer, optim.schedule_lr(optimizer, cfg.schedule, steps)


def input_shape(cfg: Config) -> tuple[int, int, int]:
    """Return the shape (C, H, W) of the network's input."""
    return (3, cfg.input_size, cfg.input_size)


def load_data(cfg: Config) -> gtsrb.Data:
    """Load the data of a run."""
    return gtsrb.load(cfg.data, cfg.input_size)


def test_images(cfg: Config, data: gtsrb.Data) -> torch.Tensor:
    """Return the test images as the network's input, first view, (N, 3, S, S) in [0, 1]."""
    return augment_strong.view(data.test.images, augment_strong.VIEWS[0])


# ---------------------------------------------------------------------------------------------
# One step


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
    images, labels = augment_strong.distort(
        part.images[batch],
        part.labels[batch],
        generator,
        mirror=cfg.mirror,
        affine=cfg.affine,
        perspective=cfg.perspective,
        light=cfg.light,
        color=cfg.colour,
        blur=cfg.blur,
        cutout=cfg.cutout,
    )
    with hardware.autocast(images.device, cfg.precision):
        logits = model(images)
    logits = logits.float()
    loss = F.cross_entropy(logits, labels, label_smoothing=cfg.label_smoothing)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    sums += torch.stack([loss.detach() * len(batch), (logits.argmax(1) != labels).sum()])


# ---------------------------------------------------------------------------------------------
# The run


def train(cfg: Config, data: gtsrb.Data, run: wandb_run.Run) -> None:
    """Train one network, log a history row per epoch, then test its EMA and log the summary.

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
    model, average, optimizer, scheduler = build(cfg, steps * cfg.epochs, device)
    order = seeding.torch_generator(cfg.seed, "order")
    augmentation = seeding.torch_generator(cfg.seed, "augmentation", device)
    dropout = hardware.default_generator(device)
    dropout.manual_seed(seeding.stream_seed(cfg.seed, "dropout"))
    state = {"model": model, "average": average, "optimizer": optimizer, "scheduler": scheduler}
    state |= {"order": order, "augmentation": augmentation, "dropout": dropout}
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
    score = functools.partial(evaluate, precision=cfg.precision)
    with wandb_run.progress_bar(steps * cfg.epochs, steps * loop.epoch) as bar:
        while loop.unfinished:
            start, lr = time.perf_counter(), optim.current_lr(scheduler)
            shuffled = train_indices[torch.randperm(n, generator=order).to(device)]
            for batch in shuffled.split(cfg.batch_size):
                step(batch)
                average.update_parameters(model)
                scheduler.step()
                bar.update()
            train_loss, train_error = (total / n for total in sums.tolist())
            sums.zero_()
            rate = n / (time.perf_counter() - start)
            val_loss, val_error, *_ = score(average, train_part, val_indices, views=1)
            row = {"train/loss": train_loss, "train/error": train_error}
            row |= {"val/loss": val_loss, "val/error": val_error, "lr": lr}
            row |= {"seconds": time.perf_counter() - start, "images_per_second": rate}
            loop.end_epoch(row, average)
            wandb_run.show_epoch(bar, loop.history[-1], cfg.epochs, watched or "train/error")
            if loop.in_tail:
                loop.add_tail(score(average, test_part, test_part.indices, views=cfg.views)[1])
            loop.save_if_due()

    test(model, average, data, loop, run, cfg)


def test(
    model: nn.Module,
    average: nn.Module,
    data: gtsrb.Data,
    loop: Loop,
    run: wandb_run.Run,
    cfg: Config,
) -> None:
    """Test the EMA on all views and on one, and the last weights on one; log the summary.

    A diverged run gets the worst error, 1, predicted classes -1 and probabilities 0.
    """
    part = data.test.to(hardware.best_device())
    score = functools.partial(evaluate, part=part, indices=part.indices, precision=cfg.precision)
    error = one_view = last_weights = best_error = mean_error = 1.0
    predicted, probability = torch.full_like(part.labels, -1), torch.zeros(len(part.labels))
    if not loop.diverged:
        _, error, predicted, probability = score(average, views=cfg.views)
        _, one_view, *_ = score(average, views=1)
        _, last_weights, *_ = score(model, views=1)
        mean_error = sum(loop.tail) / len(loop.tail)
        average.load_state_dict(loop.best_weights)
        _, best_error, *_ = score(average, views=cfg.views)
    scores = {"labels": part.labels, "predicted": predicted, "probability": probability}
    scores = {name: values.cpu() for name, values in scores.items()}
    run.save_arrays("test_scores.npz", **scores, **gtsrb.test_metadata(data, **scores))
    run.summarize({"test/error": error, "test/error_one_view": one_view})
    run.summarize({"test/error_last_weights": last_weights, "diverged": loop.diverged})
    run.summarize({"test/error_at_best_val": best_error, "test/error_mean_last_5": mean_error})
    run.summarize({"best_epoch": loop.best_epoch})
    outcome = (scores["labels"], scores["predicted"], scores["probability"])
    if cfg.media:
        run.log_media(media.signs(data.test.images, *outcome))


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
