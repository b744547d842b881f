"""Look into trained networks: effective receptive fields, filters, feature maps, checkerboards."""

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

SMALL = 64  # pixels; of larger images a quarter as many are averaged
IMAGES = 64  # whose gradients are averaged
SHOWN = (14, 33, 2)  # classes of the signs whose feature maps are kept: stop, turn right, 50 km/h
MAPS = 8  # feature maps kept a layer: the channels that vary most over these signs
FLAT = 64  # pixels a side of what is kept of a flat image's output


class Watch(TorchFunctionMode):
    """Keep the output of every operation that receptive_field.py knows, in its order."""

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
    optimizer: dict[str, Any]  # its state after the last epoch
    origin: dict[str, str]  # commit and data hash


def load_run(folder: Path, data: str) -> TrainedRun:
    """Return the run in ``folder`` with ``data`` as the path of its data.

    Raises:
        UserError: when the folder has no readable checkpoint, the run has not finished or diverged,
            or its script cannot be used.
    """
    origin = run_origin(folder)
    content = checkpoint.newest(folder)
    key = content["config_key"]
    if "program" not in key:
        raise UserError(f"{folder}: its checkpoint does not say which script wrote it")
    script = scripts.load(key["program"])
    fields = {field.name for field in dataclasses.fields(script.Config)}
    cfg = script.Config(**{k: v for k, v in key.items() if k in fields} | {"data": data})
    networks = [fresh_network(script, cfg) for _ in range(2)]
    networks[1].load_state_dict(content["state"]["model"])
    before, after = (network.eval() for network in networks)
    state = content["state"]["optimizer"]
    return TrainedRun(folder.name, script, cfg, before, after, state, origin)


def fresh_network(script: ModuleType, cfg: Any) -> nn.Module:
    """Return a run's network before training, without operations that overwrite their input."""
    network = script.network(cfg)
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # what an operation gave is looked at later
    return network


def run_origin(folder: Path) -> dict[str, str]:
    """Return the commit and data hash of a finished run.

    Raises:
        UserError: when the run has not finished, or diverged.
    """
    done = finished.read(folder)
    if done is None:
        raise UserError(f"{folder} has not finished; its agent's command continues it")
    summary = done["summary"]
    if summary.get("diverged"):
        raise UserError(f"{folder} diverged: its network shows nothing; take another run")
    return {name: str(summary.get(name, "unknown")) for name in ("git_commit", "data_sha256")}


def adam_note(optimizer: dict[str, Any]) -> list[str]:
    """Return a sentence on how Adam's eps compares with what it is added to; nothing for SGD."""
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
        f"After training the root of Adam's mean squared gradient is {roots.median().item():.2g} "
        f"(median over weights; the largest {roots.max().item():.2g}) and below a tenth of eps = "
        f"{eps:g} for {100 * below:.1f} % of the weights."
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
    if _is_classifier(layers):
        found = {}
        for kind in ("convolution", "max-pooling"):
            own = [i for i, layer in enumerate(layers) if layer.kind == kind]
            found |= {f"{kind} {count}": i for count, i in enumerate(own, 1)}
        return dict(sorted(found.items(), key=lambda item: item[1]))
    encoder = [i for i, layer in enumerate(layers) if layer.name.startswith("encoder")]
    return {"bottleneck": encoder[-1], "output": len(layers) - 1}


def calibrate_batch_norm(model: nn.Module, images: torch.Tensor) -> None:
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


def flat_response(run: TrainedRun, model: nn.Module) -> np.ndarray:
    """Return a U-Net's logits (FLAT, FLAT) on an even image, where none depends on its border."""
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
    """Return what network.json says of a run; put its pictures into ``arrays``.

    Raises:
        UserError: when the run has not finished or diverged, its network cannot be followed, or its
            data are not these.
    """
    run = load_run(folder, data)
    shape = run.script.input_shape(run.cfg)
    layers = trace(fresh_network(run.script, run.cfg), shape)
    loaded = run.script.load_data(run.cfg)
    if loaded.sha256 != run.origin["data_sha256"]:
        raise UserError(
            f"{data} holds other data than the run saw ({loaded.sha256[:8]}…, "
            f"{run.origin['data_sha256'][:8]}…)"
        )
    whole = run.script.test_images(run.cfg, loaded)
    images = whole[: IMAGES if shape[-1] <= SMALL else IMAGES // 4]
    calibrate_batch_norm(run.before, images)
    name, fields = run.run_id, {}
    for place, operation in places(layers).items():
        for when, model in (("before", run.before), ("after", run.after)):
            field = effective_field(model, images, operation)
            arrays[f"{name}/{when}/{place}"] = (field / max(field.max(), 1e-30)).astype(np.float16)
        theory = layers[operation].field
        fields[place] = {"size": theory.size, "centre": theory.centre, "cut": theory.cut}
    if _is_classifier(layers):
        _keep_maps(run, layers, whole, loaded.test, arrays)
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


def _keep_maps(
    run: TrainedRun,
    layers: list[Layer],
    images: torch.Tensor,
    part: Any,
    arrays: dict[str, np.ndarray],
) -> None:
    """Keep the first layer's filters, and the feature maps on one sign of each SHOWN class."""
    name = run.run_id
    arrays[f"{name}/filters"] = next(run.after.parameters()).detach().numpy()
    first = [int((part.labels == label).nonzero()[0]) for label in SHOWN]
    arrays[f"{name}/signs"] = part.images[first].permute(0, 2, 3, 1).numpy()
    acted = [i for i, layer in enumerate(layers) if layer.kind in ("ELU", "ReLU", "GELU")]
    for depth, operation in enumerate(acted, 1):
        arrays[f"{name}/maps/{depth}"] = feature_maps(run.after, images[first], operation)
