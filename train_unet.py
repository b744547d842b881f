"""Train a U-Net to find the lung fields in chest radiographs: one run of a study.

    python train_unet.py --epochs 3 --image-size 128 --width 8    (WANDB_MODE=offline: no account)
    python -m lib.agent sweeps/unet_short.yaml                    (a whole study on this machine)
    wandb sweep sweeps/unet.yaml                                  (a whole study on many machines)

What do nearest-neighbour upsampling instead of transposed convolution, and ELU instead of ReLU,
change? The defaults are the assignment's network: lightning-bolts' U-Net, 5 levels, 64 features.
"""

import dataclasses
import functools
import math
import time
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn

from lib.data import jsrt
from lib.data.augment import augment_pair
from lib.models import unet
from lib.tracking import media, wandb_run
from lib.training import checkpoint, config, hardware, metrics, optim, seeding
from lib.training.hardware import graphed

Share = Annotated[float, Field(ge=0, lt=1)]


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters of one run."""

    seed: NonNegativeInt = 0  # the replicate: feeds split, weights, order and augmentation
    data: str = "data/JSRT"  # folder with radiographs and masks
    image_size: PositiveInt = 256  # pixels a side, a multiple of 2^(depth - 1)
    fold: Literal["odd", "even", "fixed"] = "odd"  # the numbers tested on, see lib/jsrt.py
    val_fraction: Share = 0.1  # share of the training fold; 0: none
    epochs: PositiveInt = 100  # passes over the training images
    batch_size: PositiveInt = 8  # images per step
    depth: PositiveInt = 5  # levels of the network
    width: PositiveInt = 64  # features of its first level; each further one has twice as many
    upsampling: Literal["transposed", "nearest", "bilinear"] = "transposed"  # on the way up
    activation: Literal["relu", "elu"] = "relu"  # after each 3×3 convolution
    batch_norm: bool = True  # between each 3×3 convolution and its activation
    dice_weight: NonNegativeFloat = 0.0  # of soft Dice in the loss, beside cross-entropy's 1
    adam_lr: PositiveFloat = 0.001  # Adam's learning rate
    adam_eps: PositiveFloat = 1.0e-8  # Adam's eps
    schedule: Literal["constant", "cosine"] = "constant"  # of the learning rate, per step
    rotation: NonNegativeFloat = 5.0  # augmentation: up to ± degrees
    shift: Share = 0.05  # augmentation: up to ± of the side
    scale: Share = 0.1  # augmentation: magnified by 1 ± this
    brightness: NonNegativeFloat = 0.2  # augmentation: ± this, in the image's deviations
    contrast: Share = 0.2  # augmentation: factor 1 ± this
    precision: hardware.Precision = "float32"  # of convolutions and matrix products
    media: bool = False  # show the worst test images with their lung fields in W&B
    save_overlays: bool = False  # keep test images with true and predicted masks, for figures
    checkpoint_every: PositiveInt = 10  # epochs; a run that is killed loses at most so many


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    part: jsrt.Radiographs,
    generator: torch.Generator,
    cfg: Config,
    loss_sum: torch.Tensor,
    batch: torch.Tensor,
) -> None:
    """Train on the images ``batch`` (n,); add the loss to ``loss_sum``, a scalar."""
    model.train()
    variation = (cfg.rotation, cfg.shift, cfg.scale, cfg.brightness, cfg.contrast)
    images, masks = augment_pair(part.images[batch], part.masks[batch], generator, *variation)
    loss = metrics.segmentation_loss(model(images), masks, cfg.dice_weight)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    loss_sum += loss.detach() * len(batch)


@torch.no_grad()
def evaluate(
    model: nn.Module, part: jsrt.Radiographs, cfg: Config
) -> tuple[float, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mean loss (NaN if n = 0), Jaccard (n,), Dice (n,), predicted masks (n, 1, S, S)."""
    model.eval()
    batches = part.images.split(cfg.batch_size) if len(part.names) else []
    logits = torch.cat([part.images[:0], *(model(batch) for batch in batches)])
    loss = metrics.segmentation_loss(logits, part.masks, cfg.dice_weight).item()
    return loss, *metrics.overlap(logits > 0, part.masks), logits > 0


def build(
    cfg: Config, steps: int, device: torch.device
) -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return the network with its optimizer and the schedule for ``steps`` steps in all."""
    torch.manual_seed(seeding.stream_seed(cfg.seed, "init"))
    model = unet.UNet(cfg.depth, cfg.width, cfg.upsampling, cfg.activation, cfg.batch_norm)
    model = model.to(device, memory_format=torch.channels_last)  # 1.1–1.5 × as fast on a CPU
    model.forward = hardware.in_precision(model.forward, device, cfg.precision)
    optimizer = optim.adam(model.parameters(), cfg.adam_lr, cfg.adam_eps)
    return model, optimizer, optim.schedule_lr(optimizer, cfg.schedule, steps)


def train(cfg: Config, data: jsrt.Radiographs, run: wandb_run.Run) -> None:
    """Train one network, log a row per epoch; then log the test's summary.

    The test set selects nothing: the last epochs are tested, and the one best on validation.
    Continues from the newest checkpoint, on the CPU bit for bit. A non-finite loss: ``diverged``.
    """
    device = hardware.best_device()
    split = jsrt.split(data, cfg.fold, cfg.val_fraction, seeding.numpy_generator(cfg.seed, "split"))
    train_part, val_part, test_part = (data.select(torch.from_numpy(i)).to(device) for i in split)
    n, has_val = len(split[0]), len(split[1]) > 0
    steps = math.ceil(n / cfg.batch_size)
    model, optimizer, scheduler = build(cfg, steps * cfg.epochs, device)
    order = seeding.torch_generator(cfg.seed, "order")
    augmentation = seeding.torch_generator(cfg.seed, "augmentation", device)
    start_summary = {"data_sha256": data.sha256} | seeding.pair_hashes(cfg.seed, split)
    start_summary |= metrics.size(model, (1, cfg.image_size, cfg.image_size))

    stateful = [model, optimizer, scheduler, order, augmentation]
    identity = dataclasses.asdict(cfg) | {"data": data.sha256}
    progress = {"history": [], "diverged": False, "overlaps": []}
    progress["best"] = {"epoch": 0, "jaccard": -math.inf}
    progress = checkpoint.resume(run.folder, identity, stateful) or progress
    epoch = len(progress["history"])
    run.summarize(start_summary | wandb_run.provenance(device) | {"resumed_from_epoch": epoch})
    run.resume(progress["history"])

    loss_sum = torch.zeros((), device=device)  # read once per epoch: no waiting for the device
    step = functools.partial(train_step, model, optimizer, train_part, augmentation, cfg, loss_sum)
    step = graphed(step, cfg.batch_size, steps * (cfg.epochs - epoch), optimizer, augmentation)
    with wandb_run.progress_bar(steps * cfg.epochs, steps * epoch) as bar:
        while epoch < cfg.epochs and not progress["diverged"]:
            epoch += 1
            start, lr = time.perf_counter(), optim.current_lr(scheduler)
            for batch in torch.randperm(n, generator=order).to(device).split(cfg.batch_size):
                step(batch)
                scheduler.step()
                bar.update()
            train_loss = loss_sum.item() / n
            loss_sum.zero_()
            rate = n / (time.perf_counter() - start)
            val_loss, jaccard, dice, _ = evaluate(model, val_part, cfg)
            row = {"epoch": epoch, "train/loss": train_loss, "val/loss": val_loss, "lr": lr}
            row |= {"val/jaccard": jaccard.mean().item(), "val/dice": dice.mean().item()}
            row |= {"seconds": time.perf_counter() - start, "images_per_second": rate}
            progress["history"].append(row)
            run.log_epochs([row])
            wandb_run.show_epoch(bar, row, cfg.epochs, "val/jaccard")

            progress["diverged"] = not math.isfinite(train_loss + (val_loss if has_val else 0))
            better = not has_val or row["val/jaccard"] > progress["best"]["jaccard"]
            if not progress["diverged"] and better:
                weights = {name: value.clone() for name, value in model.state_dict().items()}
                progress["best"] = {"epoch": epoch, "jaccard": row["val/jaccard"], "model": weights}
            if epoch > cfg.epochs - 5:  # their mean is one of the score rules
                progress["overlaps"].append([s.cpu() for s in evaluate(model, test_part, cfg)[1:3]])
            if progress["diverged"] or run.is_due(epoch, cfg.epochs, cfg.checkpoint_every):
                checkpoint.save(run.folder, epoch, identity, progress, stateful)
                run.stop_if_asked()

    test(model, test_part, progress, run, cfg)


def test(
    model: nn.Module, part: jsrt.Radiographs, progress: dict, run: wandb_run.Run, cfg: Config
) -> None:
    """Evaluate the last and the best weights on the test images; log scores and summary.

    A diverged run gets the worst Jaccard and Dice, 0, and empty masks.
    """
    predicted, none = torch.zeros_like(part.masks), torch.zeros(len(part.names)).double()
    last = best = mean = (none, none)  # Jaccard and Dice, an image each
    if not progress["diverged"]:
        _, *last, predicted = evaluate(model, part, cfg)
        mean = [torch.stack(tail).mean(0) for tail in zip(*progress["overlaps"], strict=True)]
        model.load_state_dict(progress["best"]["model"])
        _, *best, _ = evaluate(model, part, cfg)
    run.save_arrays("test_scores.npz", names=part.names, jaccard=last[0], dice=last[1])
    arrays = {"images": jsrt.to_grey(part.images), "truth": part.masks, "predicted": predicted}
    if cfg.save_overlays:
        run.save_arrays("test_overlays.npz", names=part.names, **arrays)
    run.show(media.lungs, *arrays.values(), part.names, last[0])
    for rule, scores in {"": last, "_at_best_val": best, "_mean_last_5": mean}.items():
        jaccard, dice = (score.mean().item() for score in scores)
        run.summarize({f"test/jaccard{rule}": jaccard, f"test/dice{rule}": dice})
    run.summarize({"best_epoch": progress["best"]["epoch"], "diverged": progress["diverged"]})


def main() -> None:
    """Read flags and sweep, load the data, train."""
    hardware.prepare()
    with wandb_run.start(config.from_flags(Config)) as (cfg, run):
        unet.check_size(cfg.image_size, cfg.image_size, 2 ** (cfg.depth - 1))
        train(cfg, jsrt.load(cfg.data, cfg.image_size), run)


if __name__ == "__main__":
    main()
