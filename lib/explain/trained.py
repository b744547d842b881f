"""Compute effective receptive fields, filters, feature maps, checkerboards of trained networks."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode, resolve_name

from lib.explain import layers as describe
from lib.explain import scripts
from lib.explain.receptive_field import OPERATIONS, Layer, trace
from lib.spec.errors import UserError
from lib.tracking import finished
from lib.training import checkpoint

IMAGES = 64  # over which gradients are averaged; a quarter of it for images larger than SMALL
SMALL = 64  # side in pixels
SHOWN = (14, 33, 2)  # feature maps are saved for one sign of each class: stop, turn right, 50 km/h
MAPS = 8  # feature maps saved per layer: the channels with the largest variance
FLAT = 64  # side in pixels of the saved crop of the response to a constant image


class Watch(TorchFunctionMode):
    """Record the outputs of all operations in receptive_field.OPERATIONS, in order."""

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


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A finished run: its script and configuration, its network before and after training."""

    run_id: str
    script: ModuleType
    cfg: Any
    before: nn.Module
    after: nn.Module
    optimizer: dict[str, Any]  # state_dict after the last epoch
    origin: dict[str, str]  # git_commit and data_sha256


def load_run(folder: Path, data: str) -> TrainedRun:
    """Return the run in ``folder``; ``data`` replaces the data path in its configuration.

    Raises:
        UserError: if the folder has no readable checkpoint, the run has not finished or has
            diverged, or its script cannot be loaded.
    """
    origin = run_origin(folder)
    content = checkpoint.newest(folder)
    key = content["config_key"]
    if "program" not in key:
        raise UserError(
            f"{folder}: the checkpoint does not name its training script. Checkpoints of this "
            "project's train_*.py scripts are accepted"
        )
    script = scripts.load(key["program"])
    fields = {field.name for field in dataclasses.fields(script.Config)}
    cfg = script.Config(**{k: v for k, v in key.items() if k in fields} | {"data": data})
    networks = [fresh_network(script, cfg) for _ in range(2)]
    networks[1].load_state_dict(content["state"]["model"])
    before, after = (network.eval() for network in networks)
    state = content["state"]["optimizer"]
    return TrainedRun(folder.name, script, cfg, before, after, state, origin)


def fresh_network(script: ModuleType, cfg: Any) -> nn.Module:
    """Return a run's network before training, with in-place operations switched off."""
    network = script.network(cfg)
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # recorded outputs must not be overwritten
    return network


def run_origin(folder: Path) -> dict[str, str]:
    """Return the commit and data hash of a finished run.

    Raises:
        UserError: if the run has not finished or has diverged.
    """
    done = finished.read(folder)
    if done is None:
        raise UserError(
            f"run {folder} has not finished; run its sweep again with `python -m lib.agent`"
        )
    summary = done["summary"]
    if summary.get("diverged"):
        raise UserError(f"run {folder} diverged, its weights are useless; choose another run")
    return {name: str(summary.get(name, "unknown")) for name in ("git_commit", "data_sha256")}


def adam_note(optimizer: dict[str, Any]) -> list[str]:
    """Return a list with a sentence that compares Adam's eps with sqrt(v); empty for SGD."""
    saved, group = optimizer["state"], optimizer["param_groups"][0]
    if "eps" not in group or not all("exp_avg_sq" in state for state in saved.values()):
        return []
    decay, eps = group["betas"][1], group["eps"]
    roots = torch.cat(
        [
            (state["exp_avg_sq"] / (1 - decay ** float(state["step"]))).sqrt().flatten()
            for state in saved.values()
        ]
    )
    below = (roots < eps / 10).double().mean().item()
    return [
        f"After training, the square root of Adam's mean squared gradient has the median "
        f"{roots.median().item():.2g} over the weights (maximum {roots.max().item():.2g}) and is "
        f"below a tenth of eps = {eps:g} for {100 * below:.1f} % of them."
    ]


def effective_field(model: nn.Module, images: torch.Tensor, operation: int) -> np.ndarray:
    """Return the absolute gradient (H, W) of an operation's middle output by input pixel.

    The output's channels are summed before differentiating; the absolute gradients are summed over
    input channels and averaged over ``images`` (N, C, H, W). ``operation``: index in the trace.
    Source: Luo, Li, Urtasun, Zemel, NeurIPS 2016.
    """
    images = images.clone().requires_grad_()
    with Watch() as watch:
        model(images)
    output = watch.outputs[operation]
    middle = output.shape[-1] // 2
    unit = output[:, :, middle, middle] if output.dim() == 4 else output
    (gradient,) = torch.autograd.grad(unit.sum(), images)
    return gradient.abs().sum(1).mean(0).numpy()


@torch.no_grad()
def feature_maps(model: nn.Module, images: torch.Tensor, operation: int) -> np.ndarray:
    """Return the MAPS channels with the largest spatial variance, (N, MAPS, H, W) float16."""
    with Watch() as watch:
        model(images)
    output = watch.outputs[operation]
    chosen = output.var((2, 3)).mean(0).argsort(descending=True)[:MAPS].sort().values
    return output[:, chosen].numpy().astype(np.float16)


def places(layers: list[Layer]) -> dict[str, int]:
    """Return the operations whose fields are computed, as indices by name.

    Of a classifier: all convolutions and max-poolings; of a U-Net: bottleneck and output.
    """
    if _is_classifier(layers):
        selected = {}
        for kind in ("convolution", "max-pooling"):
            indices = [i for i, layer in enumerate(layers) if layer.kind == kind]
            selected |= {f"{kind} {number}": i for number, i in enumerate(indices, 1)}
        return dict(sorted(selected.items(), key=lambda item: item[1]))
    encoder = [i for i, layer in enumerate(layers) if layer.name.startswith("encoder")]
    return {"bottleneck": encoder[-1], "output": len(layers) - 1}


def calibrate_batch_norm(model: nn.Module, images: torch.Tensor) -> None:
    """Set the running statistics of an untrained network's batch normalizations from ``images``.

    The initial statistics, mean 0 and variance 1, do not normalize: the signal would shrink from
    layer to layer, which it does not in training.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average over batches, here a single one
    model.train()
    with torch.no_grad():
        model(images)
    model.eval()


def flat_response(run: TrainedRun, model: nn.Module) -> np.ndarray:
    """Return a U-Net's logits (FLAT, FLAT) on a constant image, cropped far from its border.

    The image is enlarged until no cropped logit depends on the border.
    """
    side = 4 * FLAT
    while True:
        field = trace(fresh_network(run.script, run.cfg), (1, side, side))[-1].field
        first = (side - FLAT) // 2
        if field.low[first] > 0 and field.high[first + FLAT - 1] < side - 1:
            break
        side *= 2
    with torch.no_grad():
        logits = model(torch.zeros(1, 1, side, side))[0, 0]
    return logits[first : first + FLAT, first : first + FLAT].numpy()


def inspect_run(folder: Path, data: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return a run's entry in network.json; add its images and fields to ``arrays``.

    Raises:
        UserError: if the run has not finished or has diverged, its network cannot be traced, or it
            was trained on other data.
    """
    run = load_run(folder, data)
    shape = run.script.input_shape(run.cfg)
    layers = trace(fresh_network(run.script, run.cfg), shape)
    loaded = run.script.load_data(run.cfg)
    if loaded.sha256 != run.origin["data_sha256"]:
        raise UserError(
            f"run {folder} was trained on other data (SHA-256 {run.origin['data_sha256'][:8]}…) "
            f"than {data} ({loaded.sha256[:8]}…); give the folder of its training data with --data"
        )
    test_images = run.script.test_images(run.cfg, loaded)
    images = test_images[: IMAGES if shape[-1] <= SMALL else IMAGES // 4]
    calibrate_batch_norm(run.before, images)
    name, fields = run.run_id, {}
    for place, operation in places(layers).items():
        for when, model in (("before", run.before), ("after", run.after)):
            field = effective_field(model, images, operation)
            arrays[f"{name}/{when}/{place}"] = (field / max(field.max(), 1e-30)).astype(np.float16)
        theory = layers[operation].field
        fields[place] = {"size": theory.size, "centre": theory.center, "cut": theory.cut}
    if _is_classifier(layers):
        _save_maps(run, layers, test_images, loaded.test, arrays)
    else:
        arrays[f"{name}/flat/before"] = flat_response(run, run.before)
        arrays[f"{name}/flat/after"] = flat_response(run, run.after)
    return {
        "run": name,
        "origin": run.origin,
        "config": dataclasses.asdict(run.cfg),
        "images": len(images),
        "fields": fields,
        "headings": describe.HEADINGS,
        "rows": describe.rows(layers),
        "notes": [*describe.notes(layers), *adam_note(run.optimizer)],
    }


def _is_classifier(layers: list[Layer]) -> bool:
    return layers[-1].kind == "linear"


def _save_maps(
    run: TrainedRun,
    layers: list[Layer],
    images: torch.Tensor,
    part: Any,
    arrays: dict[str, np.ndarray],
) -> None:
    """Add the first layer's filters and the feature maps of one sign per SHOWN class."""
    name = run.run_id
    arrays[f"{name}/filters"] = next(run.after.parameters()).detach().numpy()
    if lacking := [label for label in SHOWN if not (part.labels == label).any()]:
        raise UserError(
            f"the test set has no images of the classes {', '.join(map(str, lacking))}, whose "
            "feature maps are shown; use data with all classes"
        )
    first = [int((part.labels == label).nonzero()[0]) for label in SHOWN]
    arrays[f"{name}/signs"] = part.images[first].permute(0, 2, 3, 1).numpy()
    activations = [i for i, layer in enumerate(layers) if layer.kind in ("ELU", "ReLU", "GELU")]
    for depth, operation in enumerate(activations, 1):
        arrays[f"{name}/maps/{depth}"] = feature_maps(run.after, images[first], operation)
