"""Train a U-Net to segment the lungs in chest radiographs: one run of a study.

    python train_unet.py --image-size 128 --width 8    (without an account: WANDB_MODE=offline)
    python -m lib.agent unet_short                     (all runs of a study on this machine)
    wandb sweep sweeps/unet.yaml                       (all runs of a study on several machines)

For studies of upsampling (transposed convolution or interpolation) and activations. The default
network is lightning-bolts' U-Net with 5 levels and 64 features at the first level.
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

from lib.data import jsrt
from lib.data.augment import augment_pair
from lib.models import unet
from lib.spec.errors import UserError
from lib.tracking import media, wandb_run
from lib.training import config, hardware, metrics, optim, seeding
from lib.training.loop import Loop
from lib.training.provenance import provenance

Share = Annotated[float, Field(ge=0, lt=1)]

PROGRAM = Path(__file__).stem  # stored in checkpoints

# ---------------------------------------------------------------------------------------------
# Hyperparameters


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters of one run, which trains a U-Net to find lung fields in radiographs.

    Set WANDB_MODE=offline to run without a W&B account.
    """

    # Replicate and data
    seed: NonNegativeInt = 0  # replicate; determines split, initial weights, order, augmentation
    data: str = "data/JSRT"  # folder with radiographs and lung masks
    image_size: PositiveInt = 256  # side of the images in pixels, a multiple of 2^(depth - 1)
    fold: Literal["odd", "even", "fixed"] = "odd"  # test images; fixed: every fifth number
    val_fraction: Share = 0.1  # share of the training images, for validation
    # Budget
    epochs: PositiveInt = 100  # passes over the training images
    batch_size: PositiveInt = 8  # images per step
    # Network
    depth: PositiveInt = 5  # levels of the network
    width: PositiveInt = 64  # features of the first level; they double at each further level
    upsampling: Literal["transposed", "nearest", "bilinear"] = "transposed"  # in the decoder
    activation: Literal["relu", "elu"] = "relu"  # activation after each 3×3 convolution
    batch_norm: bool = True  # batch normalization before each activation
    # Loss and optimizer
    dice_weight: NonNegativeFloat = 0.0  # weight of the soft Dice loss; that of cross-entropy is 1
    adam_lr: PositiveFloat = 0.001  # Adam's learning rate
    adam_eps: PositiveFloat = 1.0e-8  # Adam's eps
    schedule: Literal["constant", "cosine"] = "constant"  # learning-rate schedule
    # Augmentation
    rotation: NonNegativeFloat = 5.0  # random rotation up to ± degrees
    shift: Share = 0.05  # random shift up to ± this share of the side
    scale: Share = 0.1  # random zoom by a factor of 1 ± this
    brightness: NonNegativeFloat = 0.2  # brightness jitter: ± standard deviations of the image
    contrast: Share = 0.2  # contrast jitter: factor of 1 ± this
    # Machine and files
    precision: hardware.Precision = "float32"  # precision of convolutions and matrix products
    media: bool = False  # log the worst test images with their masks to W&B
    save_overlays: bool = False  # save test images with true and predicted masks, for figures
    checkpoint_every: PositiveInt = 10  # epochs between checkpoints

    def __post_init__(self) -> None:
        """Raise a UserError unless image_size is a multiple of 2^(depth - 1)."""
        if min(self.image_size, self.depth) < 1:
            return  # refused by its type
        try:
            unet.check_size(self.image_size, self.image_size, 2 ** (self.depth - 1))
        except UserError as error:
            given = f"image_size = {self.image_size}, depth = {self.depth}"
            raise UserError(f"{given}: {error}") from error


# ---------------------------------------------------------------------------------------------
# Network and optimizer


def network(cfg: Config) -> nn.Module:
    """Return the untrained network of a run: (N, 1, S, S) -> (N, 1, S, S) logits."""
    torch.manual_seed(seeding.stream_seed(cfg.seed, "init"))
    return unet.UNet(cfg.depth, cfg.width, cfg.upsampling, cfg.activation, cfg.batch_norm)


def build(
    cfg: Config, steps: int, device: torch.device
) -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return network, optimizer and learning-rate schedule for ``steps`` steps in total."""
    model = network(cfg).to(device, memory_format=torch.channels_last)  # 1.1–1.5 × faster on a CPU
    optimizer = optim.adam(model.parameters(), cfg.adam_lr, cfg.adam_eps)
    return model, optimizer, optim.schedule_lr(optimizer, cfg.schedule, steps)


def input_shape(cfg: Config) -> tuple[int, int, int]:
    """Return the shape (C, H, W) of the network's input."""
    return (1, cfg.image_size, cfg.image_size)


def load_data(cfg: Config) -> jsrt.Radiographs:
    """Load the data of a run."""
    return jsrt.load(cfg.data, cfg.image_size)


def split_data(cfg: Config, data: jsrt.Radiographs) -> jsrt.Split:
    """Return the indices of training, validation and test images."""
    generator = seeding.numpy_generator(cfg.seed, "split")
    return jsrt.split(data, cfg.fold, cfg.val_fraction, generator)


def test_images(cfg: Config, data: jsrt.Radiographs) -> torch.Tensor:
    """Return the test images as the network's input, (N, 1, S, S)."""
    return data.images[torch.from_numpy(split_data(cfg, data)[-1])]


# ---------------------------------------------------------------------------------------------
# One step, one evaluation


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    part: jsrt.Radiographs,
    generator: torch.Generator,
    cfg: Config,
    loss_sum: torch.Tensor,
    batch: torch.Tensor,
) -> None:
    """Train on the images at ``batch`` (n,); add the loss to the scalar ``loss_sum``."""
    model.train()
    images, masks = augment_pair(
        part.images[batch],
        part.masks[batch],
        generator,
        rotation=cfg.rotation,
        shift=cfg.shift,
        scale=cfg.scale,
        brightness=cfg.brightness,
        contrast=cfg.contrast,
    )
    with hardware.autocast(images.device, cfg.precision):
        logits = model(images)
    loss = metrics.segmentation_loss(logits.float(), masks, cfg.dice_weight)
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
    with hardware.autocast(part.images.device, cfg.precision):
        outputs = [model(batch).float() for batch in batches]
    logits = torch.cat([part.images[:0], *outputs])
    loss = metrics.segmentation_loss(logits, part.masks, cfg.dice_weight).item()
    return loss, *metrics.overlap(logits > 0, part.masks), logits > 0


# ---------------------------------------------------------------------------------------------
# The run


def train(cfg: Config, data: jsrt.Radiographs, run: wandb_run.Run) -> None:
    """Train one network, log a history row per epoch, then test it and log the summary.

    Tests the last epochs and the epoch best on validation; the test set selects nothing. Resumes
    from the newest checkpoint, on the CPU bit for bit. Stops if loss or weights are not finite.
    """
    # Data
    device = hardware.best_device()
    split = split_data(cfg, data)
    train_part, val_part, test_part = (data.select(torch.from_numpy(i)).to(device) for i in split)
    n = len(split[0])
    steps = math.ceil(n / cfg.batch_size)
    one_pixel = cfg.image_size == 2 ** (cfg.depth - 1)  # at the smallest resolution
    if cfg.batch_norm and one_pixel and 1 in (cfg.batch_size, n % cfg.batch_size):
        raise UserError(
            f"image_size = {cfg.image_size}, batch_size = {cfg.batch_size}: with depth {cfg.depth} "
            "the smallest feature maps have one pixel, and batch normalization needs more than one "
            f"value, but {n} training images leave a batch of one. Use another batch_size, larger "
            "images, or a smaller depth"
        )

    # State
    model, optimizer, scheduler = build(cfg, steps * cfg.epochs, device)
    order = seeding.torch_generator(cfg.seed, "order")
    augmentation = seeding.torch_generator(cfg.seed, "augmentation", device)
    state = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    state |= {"order": order, "augmentation": augmentation}
    config_key = dataclasses.asdict(cfg) | {"data": data.sha256, "program": PROGRAM}
    watched = "val/jaccard" if len(split[1]) else None
    made_by, every = provenance(device), cfg.checkpoint_every
    loop = Loop(run, config_key, state, cfg.epochs, every, watched, made_by, "maximize")
    run.summarize({"data_sha256": data.sha256, "test_item": "radiograph"})
    run.summarize(seeding.pairing_hashes(cfg.seed, split))
    run.summarize(metrics.size(model, input_shape(cfg)))
    loop.resume()

    # Epochs
    loss_sum = torch.zeros((), device=device)  # read once per epoch: no step waits for the GPU
    step = functools.partial(train_step, model, optimizer, train_part, augmentation, cfg, loss_sum)
    left = steps * (cfg.epochs - loop.epoch)
    known = (model, optimizer, augmentation, loss_sum)
    step = hardware.maybe_cuda_graph(step, cfg.batch_size, left, *known)
    with wandb_run.progress_bar(steps * cfg.epochs, steps * loop.epoch) as bar:
        while loop.unfinished:
            start, lr = time.perf_counter(), optim.current_lr(scheduler)
            for batch in torch.randperm(n, generator=order).to(device).split(cfg.batch_size):
                step(batch)
                scheduler.step()
                bar.update()
            train_loss = loss_sum.item() / n
            loss_sum.zero_()
            rate = n / (time.perf_counter() - start)
            val_loss, jaccard, dice, _ = evaluate(model, val_part, cfg)
            row = {"train/loss": train_loss, "val/loss": val_loss, "lr": lr}
            row |= {"val/jaccard": jaccard.mean().item(), "val/dice": dice.mean().item()}
            row |= {"seconds": time.perf_counter() - start, "images_per_second": rate}
            loop.end_epoch(row, model)
            wandb_run.show_epoch(bar, loop.history[-1], cfg.epochs, watched or "train/loss")
            if loop.in_tail:
                _, jaccard, dice, _ = evaluate(model, test_part, cfg)
                loop.add_tail({"jaccard": jaccard.cpu(), "dice": dice.cpu()})
            loop.save_if_due()

    test(model, test_part, loop, run, cfg)


def test(
    model: nn.Module, part: jsrt.Radiographs, loop: Loop, run: wandb_run.Run, cfg: Config
) -> None:
    """Test the last and the best weights; save scores per image, log the summary.

    A diverged run gets the worst Jaccard and Dice, 0, and empty masks.
    """
    predicted, worst = torch.zeros_like(part.masks), torch.zeros(len(part.names)).double()
    last = best = mean = {"jaccard": worst, "dice": worst}  # one value per image
    if not loop.diverged:
        _, jaccard, dice, predicted = evaluate(model, part, cfg)
        last = {"jaccard": jaccard, "dice": dice}
        mean = {key: torch.stack([scores[key] for scores in loop.tail]).mean(0) for key in last}
        model.load_state_dict(loop.best_weights)
        _, jaccard, dice, _ = evaluate(model, part, cfg)
        best = {"jaccard": jaccard, "dice": dice}
    run.save_arrays("test_scores.npz", names=part.names, jaccard=last["jaccard"], dice=last["dice"])
    gray = jsrt.to_gray(part.images)
    if cfg.save_overlays:
        arrays = {"images": gray, "truth": part.masks, "predicted": predicted}
        run.save_arrays("test_overlays.npz", names=part.names, **arrays)
    if cfg.media:
        run.log_media(media.lungs(gray, part.masks, predicted, part.names, last["jaccard"]))
    for rule, scores in {"": last, "_at_best_val": best, "_mean_last_5": mean}.items():
        run.summarize({f"test/{key}{rule}": score.mean().item() for key, score in scores.items()})
    run.summarize({"best_epoch": loop.best_epoch, "diverged": loop.diverged})


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
