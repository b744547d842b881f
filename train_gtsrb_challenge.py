"""Train one small CNN as well as we can on the German traffic signs: one run of a study.

    python train_gtsrb_challenge.py --epochs 3            (WANDB_MODE=offline: without an account)
    python -m lib.agent sweeps/gtsrb_challenge.yaml       (all seeds on this machine)

How good can a CNN get? A residual network of 0.7 million parameters on images of normalized
contrast, strongly distorted; its weights' moving average is tested on nine fixed views.
Apart from train_gtsrb.py, which compares: in one script, each would double the other's settings.
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

from lib.data import augment_strong, gtsrb
from lib.models.gtsrb_resnet import ChallengeNet, evaluate
from lib.tracking import media, wandb_run
from lib.training import checkpoint, config, hardware, metrics, optim, seeding

Share = Annotated[float, Field(ge=0, lt=1)]


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters of one run."""

    seed: NonNegativeInt = 0  # the replicate: feeds split, weights, order and augmentation
    data: str = "data/GTSRB"  # folder with Final_Training and Final_Test
    val_fraction: Share = 0.1  # share of each class's tracks; 0: none
    epochs: PositiveInt = 12  # passes over the training images
    batch_size: PositiveInt = 128  # images per step
    input_size: Annotated[int, Field(ge=16, le=128)] = 32  # pixels; images are resized to squares
    activation: Literal["elu", "relu", "gelu"] = "relu"  # after each normalization
    dropout: Share = 0.2  # share of the last features that a step leaves out
    normalize: bool = True  # each image to mean 0 and standard deviation 1
    sgd_lr: PositiveFloat = 0.2  # SGD's highest learning rate
    sgd_momentum: Share = 0.9  # SGD's Nesterov momentum
    weight_decay: NonNegativeFloat = 0.0005  # times the weights, added to the gradient
    schedule: optim.Schedule = "one_cycle"  # of the learning rate, per step
    label_smoothing: Share = 0.1  # share of a label spread over all classes
    average: Share = 0.998  # decay per step of the weights' moving average; 0: the weights
    mirror: augment_strong.Mirror = (
        "map"  # augmentation: none, same class, or map to the mirror's class
    )
    affine: NonNegativeFloat = 1.0  # augmentation: strength of turn, shift, zoom, shear
    perspective: Annotated[float, Field(ge=0, lt=0.5)] = 0.15  # augmentation: tilt, both ways
    light: Share = 0.5  # augmentation: brightness and contrast times 1 ± this
    colour: Share = 0.15  # augmentation: each of red, green, blue times 1 ± this
    blur: Annotated[float, Field(ge=0, le=1)] = 0.8  # augmentation: up to this share of blurred
    cutout: Share = 0.35  # augmentation: side of a grey square on half of the images
    views: Annotated[int, Field(ge=1, le=len(augment_strong.VIEWS))] = (
        9  # fixed views of a test image
    )
    precision: hardware.Precision = "float32"  # of convolutions and matrix products
    media: bool = False  # show the test's confusions and mistakes in W&B
    checkpoint_every: PositiveInt = 1  # epochs; a run that is killed loses at most so many


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
    strengths = (cfg.affine, cfg.perspective, cfg.light, cfg.colour, cfg.blur, cfg.cutout)
    images, labels = augment_strong.distort(images, labels, generator, cfg.mirror, *strengths)
    logits = model(images)
    loss = F.cross_entropy(logits, labels, label_smoothing=cfg.label_smoothing)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    sums += torch.stack([loss.detach() * len(batch), (logits.argmax(1) != labels).sum()])


def build(
    cfg: Config, steps: int, device: torch.device
) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return network, moving average, optimizer and schedule for ``steps`` steps in all."""
    torch.manual_seed(seeding.stream_seed(cfg.seed, "init"))
    model = ChallengeNet(cfg.normalize, cfg.dropout, cfg.activation)
    model = model.to(device, memory_format=torch.channels_last)
    average = optim.moving_average(model, cfg.average)
    for network in (model, average):
        network.forward = hardware.in_precision(network.forward, device, cfg.precision)
    optimizer = optim.sgd(model.parameters(), cfg.sgd_lr, cfg.sgd_momentum, cfg.weight_decay)
    return model, average, optimizer, optim.schedule_lr(optimizer, cfg.schedule, steps)


def train(cfg: Config, data: gtsrb.Data, run: wandb_run.Run) -> None:
    """Train one network, log a row per epoch; then test its moving average, once.

    Continues from the newest checkpoint, on the CPU bit for bit. A non-finite loss: ``diverged``.
    """
    device = hardware.best_device()
    split_generator = seeding.numpy_generator(cfg.seed, "split")
    split = gtsrb.split_by_track(data.train, cfg.val_fraction, split_generator)
    train_indices, val_indices = (torch.from_numpy(indices).to(device) for indices in split)
    part, steps = data.train.to(device), math.ceil(len(split[0]) / cfg.batch_size)
    model, average, optimizer, scheduler = build(cfg, steps * cfg.epochs, device)
    order = seeding.torch_generator(cfg.seed, "order")
    augmentation = seeding.torch_generator(cfg.seed, "augmentation", device)
    dropout = hardware.own_generator(device)
    dropout.manual_seed(seeding.stream_seed(cfg.seed, "dropout"))
    start_summary = {"data_sha256": data.sha256} | wandb_run.provenance(device)
    start_summary |= metrics.size(model, data.train.images.shape[1:])
    start_summary |= seeding.pair_hashes(cfg.seed, split)
    stateful = [model, average, optimizer, scheduler, order, augmentation, dropout]
    identity = dataclasses.asdict(cfg) | {"data": data.sha256}
    progress = checkpoint.resume(run.folder, identity, stateful)
    progress = progress or {"history": [], "diverged": False}
    epoch = len(progress["history"])
    run.summarize(start_summary | {"resumed_from_epoch": epoch})
    run.resume(progress["history"])

    sums = torch.zeros(2, device=device)  # of loss and mistakes; read once per epoch: no waiting
    step = functools.partial(train_step, model, optimizer, part, augmentation, cfg, sums)
    step = hardware.graphed(
        step, cfg.batch_size, steps * (cfg.epochs - epoch), optimizer, augmentation
    )
    with wandb_run.progress_bar(steps * cfg.epochs, steps * epoch) as bar:
        while epoch < cfg.epochs and not progress["diverged"]:
            epoch += 1
            start, lr = time.perf_counter(), optim.current_lr(scheduler)
            shuffled = train_indices[torch.randperm(len(split[0]), generator=order).to(device)]
            for batch in shuffled.split(cfg.batch_size):
                step(batch)
                average.update_parameters(model)
                scheduler.step()
                bar.update()
            train_loss, train_error = (total / len(split[0]) for total in sums.tolist())
            sums.zero_()
            rate = len(split[0]) / (time.perf_counter() - start)
            val_loss, val_error, *_ = evaluate(average, part, val_indices, views=1)
            row = {"epoch": epoch, "train/loss": train_loss, "train/error": train_error}
            row |= {"val/loss": val_loss, "val/error": val_error, "lr": lr}
            row |= {"seconds": time.perf_counter() - start, "images_per_second": rate}
            progress["history"].append(row)
            run.log_epochs([row])
            shown = "val/error" if cfg.val_fraction > 0 else "train/error"
            wandb_run.show_epoch(bar, row, cfg.epochs, shown)
            progress["diverged"] = not math.isfinite(train_loss)
            if progress["diverged"] or run.is_due(epoch, cfg.epochs, cfg.checkpoint_every):
                checkpoint.save(run.folder, epoch, identity, progress, stateful)
                run.stop_if_asked()

    run.summarize({"diverged": progress["diverged"]})
    views = 0 if progress["diverged"] else cfg.views
    outcomes, errors = test((average, model), data.test.to(device), views)
    run.save_arrays("test_scores.npz", **outcomes, **gtsrb.about_test(data, **outcomes))
    run.summarize(errors)
    run.show(media.signs, data.test.images, *outcomes.values())


def test(
    networks: tuple[nn.Module, nn.Module], part: gtsrb.Images, views: int
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """Test the first of ``networks``, the average, on all views; then both of them on one view.

    Returns each image's outcome and the errors. A diverged run has no view: the worst error, 1,
    predicted class -1 and probability 0.
    """
    error = one_view = last_weights = 1.0
    predicted, probability = torch.full_like(part.labels, -1), torch.zeros(len(part.labels))
    if views > 0:
        _, error, predicted, probability = evaluate(networks[0], part, part.indices, views)
        one_view, last_weights = (evaluate(net, part, part.indices, 1)[1] for net in networks)
    errors = {"test/error": error, "test/error_one_view": one_view}
    errors |= {"test/error_last_weights": last_weights}
    outcomes = {"labels": part.labels, "predicted": predicted, "probability": probability}
    return {name: values.cpu() for name, values in outcomes.items()}, errors


def main() -> None:
    """Read flags and sweep, load the data, train."""
    hardware.prepare()
    with wandb_run.start(config.from_flags(Config)) as (cfg, run):
        train(cfg, gtsrb.load(cfg.data, cfg.input_size), run)


if __name__ == "__main__":
    main()
