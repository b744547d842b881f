r"""Look into trained networks: effective receptive fields, filters, feature maps, checkerboards.

    python -m lib.fields runs/gtsrb_short/3c8c5bdf runs/gtsrb_short/00db1c6b \
        --data data/GTSRB --out analysis/results/gtsrb_short

Takes finished runs' folders (their newest checkpoint), signs or lungs. Writes network.npz and
network.json, from which `python -m analysis.report` draws and writes its section on the network.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode, resolve_name

from lib.data import gtsrb, jsrt
from lib.data.augment import center_crop
from lib.explain import layers as describe
from lib.explain.receptive_field import OPERATIONS, Layer, trace
from lib.models.gtsrb_cnn import CNN
from lib.models.unet import UNet
from lib.spec.errors import UserError
from lib.spec.files import read_torch, write_atomically
from lib.tracking.wandb_run import FINISHED
from lib.training import seeding

IMAGES = 64  # whose gradients are averaged; 16 radiographs
SHOWN = (14, 33, 2)  # classes of the signs whose feature maps are kept: stop, turn right, 50 km/h
MAPS = 8  # feature maps kept a layer: the channels that vary most over these signs
FLAT = 64  # pixels a side of what is kept of a flat image's output


class Watch(TorchFunctionMode):
    """Keep the output of every operation that lib.trace knows, in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[torch.Tensor] = []

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if (resolve_name(func) or "").split(".")[-1] in OPERATIONS:
            self.outputs.append(output)
        return output


def newest_checkpoint(folder: Path) -> dict[str, Any]:
    """Return what a run's last checkpoint holds.

    Raises:
        UserError: when the folder has no readable checkpoint.
    """
    paths = sorted(folder.glob("checkpoint-*.pt"))
    state = read_torch(paths[-1]) if paths else None
    if state is None:
        raise UserError(f"{folder} has no readable checkpoint; is it a run's folder, runs/…/<id>?")
    return state


def load_run(folder: Path) -> tuple[dict[str, Any], nn.Module, nn.Module]:
    """Return a run's configuration, its network before training and after its last epoch.

    Raises:
        UserError: when the folder has no readable checkpoint.
    """
    state = newest_checkpoint(folder)
    config, networks = state["identity"], []
    for _ in range(2):
        torch.manual_seed(seeding.stream_seed(config["seed"], "init"))
        networks.append(build(config))
    networks[1].load_state_dict(state["stateful"][0])
    return config, networks[0].eval(), networks[1].eval()


def build(config: dict[str, Any]) -> nn.Module:
    """Return the network of a run's configuration."""
    norm, activation = config["batch_norm"], config["activation"]
    if "upsampling" in config:
        depth, width = config["depth"], config["width"]
        network = UNet(depth, width, config["upsampling"], activation, norm)
    else:
        network = CNN(norm, activation)
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # what an operation gave is looked at later
    return network


def origin(folder: Path) -> dict[str, str]:
    """Return the commit and data hash of a finished run.

    Raises:
        UserError: when the run has not finished, or diverged.
    """
    try:
        summary = json.loads((folder / FINISHED).read_text())
    except FileNotFoundError as error:
        raise UserError(f"{folder} has not finished; its agent's command continues it") from error
    if summary["diverged"]:
        raise UserError(f"{folder} diverged: its network shows nothing; take another run")
    return {name: summary[name] for name in ("git_commit", "data_sha256")}


def adam_note(folder: Path, config: dict[str, Any]) -> list[str]:
    """Return a sentence on how Adam's eps compares with what it is added to, after training."""
    if config.get("optimizer") != "adam":
        return []
    saved = newest_checkpoint(folder)["stateful"][1]
    decay = saved["param_groups"][0]["betas"][1]
    roots = torch.cat(
        [
            (state["exp_avg_sq"] / (1 - decay ** float(state["step"]))).sqrt().flatten()
            for state in saved["state"].values()
        ]
    )
    below = (roots < config["adam_eps"] / 10).double().mean().item()
    return [
        f"After training the root of Adam's mean squared gradient is {roots.median().item():.2g} "
        f"(median over weights; the largest {roots.max().item():.2g}) and below a tenth of eps = "
        f"{config['adam_eps']:g} for {100 * below:.1f} % of the weights."
    ]


def effective_field(model: nn.Module, images: torch.Tensor, operation: int) -> np.ndarray:
    """Return the mean absolute gradient (H, W) of an operation's middle output, by input pixel.

    All channels of the output count together, and those of the input; the mean is over ``images``
    (N, C, H, W). Source: Luo, Li, Urtasun, Zemel, NeurIPS 2016.
    """
    images = images.clone().requires_grad_()
    with Watch() as watch:
        model(images)
    output = watch.outputs[operation]
    middle = output.shape[-1] // 2
    one = output[:, :, middle, middle] if output.dim() == 4 else output
    (gradient,) = torch.autograd.grad(one.sum(), images)
    return gradient.abs().sum(1).mean(0).numpy()


@torch.no_grad()
def feature_maps(model: nn.Module, images: torch.Tensor, operation: int) -> np.ndarray:
    """Return the ``MAPS`` channels of an operation that vary most, (N, MAPS, H, W) float16."""
    with Watch() as watch:
        model(images)
    output = watch.outputs[operation]
    chosen = output.var((2, 3)).mean(0).argsort(descending=True)[:MAPS].sort().values
    return output[:, chosen].numpy().astype(np.float16)


def places(layers: list[Layer]) -> dict[str, int]:
    """Return the operations to look at: signs' convolutions and poolings, a U-Net's two ends."""
    if layers[-1].kind == "linear":
        found = {}
        for kind in ("convolution", "max-pooling"):
            own = [i for i, layer in enumerate(layers) if layer.kind == kind]
            found |= {f"{kind} {count}": i for count, i in enumerate(own, 1)}
        return dict(sorted(found.items(), key=lambda item: item[1]))
    encoder = [i for i, layer in enumerate(layers) if layer.name.startswith("encoder")]
    return {"bottleneck": encoder[-1], "output": len(layers) - 1}


def settle(model: nn.Module, images: torch.Tensor) -> None:
    """Give an untrained network's batch normalizations the statistics of ``images``.

    Theirs are 0 and 1 until training begins; with those each layer's signal fades, as it never does
    in training.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches seen: here one
    model.train()
    with torch.no_grad():
        model(images)
    model.eval()


def looked_at(config: dict[str, Any], data: str, sha256: str) -> tuple[torch.Tensor, Any]:
    """Return the first test images of a run (N, C, H, W), and all signs of the test set.

    Raises:
        UserError: when the data cannot be read or are not those that the run saw.
    """
    if "upsampling" in config:
        part, signs = jsrt.load(data, config["image_size"]), None
        split = jsrt.split(
            part,
            config["fold"],
            config["val_fraction"],
            seeding.numpy_generator(config["seed"], "split"),
        )
        images, found = part.images[torch.from_numpy(split[-1])[: IMAGES // 4]], part.sha256
    else:
        whole = gtsrb.load(data)
        signs, found = whole.test, whole.sha256
        images = center_crop(signs.images[:IMAGES])
    if found != sha256:
        raise UserError(f"{data} holds other data than the run saw ({found[:8]}…, {sha256[:8]}…)")
    return images, signs


def flat_response(model: nn.Module, config: dict[str, Any]) -> np.ndarray:
    """Return a U-Net's logits (FLAT, FLAT) on an even image, where none depends on its border."""
    side = 4 * FLAT
    while True:
        field = trace(build(config), (1, side, side))[-1].field
        first = (side - FLAT) // 2
        if field.low[first] > 0 and field.high[first + FLAT - 1] < side - 1:
            break
        side *= 2
    with torch.no_grad():
        logits = model(torch.zeros(1, 1, side, side))[0, 0]
    return logits[first : first + FLAT, first : first + FLAT].numpy()


def look(folder: Path, data: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return what network.json says of a run; put its pictures into ``arrays``.

    Raises:
        UserError: when the run has not finished or diverged, or its data are not these.
    """
    source = origin(folder)
    config, before, after = load_run(folder)
    images, signs = looked_at(config, data, source["data_sha256"])
    settle(before, images)
    run, layers = folder.name, trace(build(config), tuple(images.shape[1:]))
    fields = {}
    for name, operation in places(layers).items():
        for when, model in (("before", before), ("after", after)):
            field = effective_field(model, images, operation)
            arrays[f"{run}/{when}/{name}"] = (field / max(field.max(), 1e-30)).astype(np.float16)
        theory = layers[operation].field
        fields[name] = {"size": theory.size, "centre": theory.centre, "cut": theory.cut}
    if signs is None:
        arrays[f"{run}/flat/before"] = flat_response(before, config)
        arrays[f"{run}/flat/after"] = flat_response(after, config)
    else:
        arrays[f"{run}/filters"] = after.features[0].weight.detach().numpy()
        first = [int((signs.labels == label).nonzero()[0]) for label in SHOWN]
        arrays[f"{run}/signs"] = signs.images[first].permute(0, 2, 3, 1).numpy()
        acted = [i for i, x in enumerate(layers) if x.kind in ("ELU", "ReLU", "GELU")]
        for depth, operation in enumerate(acted, 1):
            maps = feature_maps(after, center_crop(signs.images[first]), operation)
            arrays[f"{run}/maps/{depth}"] = maps
    return {
        "run": run,
        "origin": source,
        "config": {k: v for k, v in config.items() if v is not None},
        "images": len(images),
        "fields": fields,
        "headings": describe.HEADINGS,
        "rows": describe.rows(layers),
        "notes": [*describe.notes(layers), *adam_note(folder, config)],
    }


def main() -> None:
    """Look into trained networks and write network.npz and network.json for the report."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="run", help="runs/<study>/<run id>")
    parser.add_argument("--data", required=True, help="data/GTSRB or data/JSRT, as in training")
    parser.add_argument("--out", type=Path, required=True, help="analysis/results/<study>")
    arguments = parser.parse_args()
    arrays: dict[str, np.ndarray] = {}
    try:
        found = [look(folder, arguments.data, arrays) for folder in arguments.runs]
        arguments.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"networks": found}, indent=1, ensure_ascii=False) + "\n"
        write_atomically(
            arguments.out / "network.npz", lambda file: np.savez_compressed(file, **arrays)
        )
        write_atomically(arguments.out / "network.json", lambda file: file.write(text.encode()))
    except (UserError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{len(found)} networks: {arguments.out / 'network.json'} and network.npz")


if __name__ == "__main__":
    main()
