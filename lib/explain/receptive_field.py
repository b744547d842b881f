"""What a network does with one image, operation by operation: shapes, sizes, receptive fields.

The forward pass itself is watched, on torch's device without data ("meta"): skip connections and
functional calls are seen as they happen, and nothing is written down twice.
"""

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode, resolve_name

from lib.spec.errors import UserError


class UnknownOperationError(UserError):
    """An operation that cannot be followed or described here; says which."""


@dataclasses.dataclass(frozen=True)
class Field:
    """Theoretical receptive fields along one axis; networks and images here are square.

    ``low`` and ``high`` (n,): the first and last input pixel that each of n outputs depends on,
    inside the image. ``step``: input pixels from one output to the next.
    """

    low: np.ndarray
    high: np.ndarray
    step: Fraction

    @property
    def middle(self) -> int:
        """The output in the middle."""
        return len(self.low) // 2

    @property
    def size(self) -> int:
        """Input pixels that the output in the middle depends on."""
        return int(self.high[self.middle] - self.low[self.middle]) + 1

    @property
    def centre(self) -> float:
        """The middle of these pixels; 0 is the centre of the first pixel."""
        return float(self.low[self.middle] + self.high[self.middle]) / 2

    @property
    def cut(self) -> bool:
        """Whether these pixels reach the image's edge, so that a larger image may show more."""
        return bool(self.low[self.middle] == 0 or self.high[self.middle] == self.high.max())


@dataclasses.dataclass(frozen=True)
class Layer:
    """One operation: its name in the network, kind, shapes without the batch, size, field."""

    name: str
    kind: str  # convolution, batch normalization, activation, max-pooling, …
    detail: dict[str, Any]  # kernel_size, stride, padding, activation, …
    inputs: list[tuple[int, ...]]
    output: tuple[int, ...]
    parameters: int
    macs: int  # multiply-adds for one image
    field: Field


def trace(model: nn.Module, shape: tuple[int, int, int]) -> list[Layer]:
    """Return the operations of ``model`` on one image of ``shape`` (C, H, W), in order.

    Raises:
        UnknownOperationError: on an operation whose receptive field is not known here.
        ValueError: when the image is not square.
    """
    if shape[1] != shape[2]:
        raise ValueError(f"an image of {shape[1]}×{shape[2]}: receptive fields here are of squares")
    model = model.to("meta").eval()
    image = torch.empty(1, *shape, device="meta")
    watch = _Watch(image)
    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(watch.enter(name)))
        handles.append(module.register_forward_hook(watch.leave))
    with torch.no_grad(), watch:
        model(image)
    for handle in handles:
        handle.remove()
    return watch.layers


class _Watch(TorchFunctionMode):
    """See every torch function that a forward pass calls."""

    def __init__(self, image: torch.Tensor) -> None:
        super().__init__()
        pixels = np.arange(image.shape[-1])
        self.fields = {id(image): Field(pixels, pixels, Fraction(1))}
        self.alive = [image]  # ids are of living tensors only
        self.layers: list[Layer] = []
        self.modules: list[str] = []

    def enter(self, name: str) -> Callable:
        def hook(_module: nn.Module, _inputs: tuple) -> None:
            self.modules.append(name)

        return hook

    def leave(self, _module: nn.Module, _inputs: tuple, _output: torch.Tensor) -> None:
        self.modules.pop()

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        first = args[0] if args else None
        sources = list(first) if isinstance(first, tuple | list) else [first]
        known = [s for s in sources if isinstance(s, torch.Tensor) and id(s) in self.fields]
        if not known or not isinstance(output, torch.Tensor):
            return output
        name = (resolve_name(func) or str(func)).split(".")[-1]
        if name not in OPERATIONS:
            raise UnknownOperationError(
                f"{name} in {self.modules[-1] or 'the network'}: how it moves receptive fields is "
                f"not known; add it to {__name__}"
            )
        kind, describe = OPERATIONS[name]
        detail, field, macs = describe(args, kwargs, output, [self.fields[id(s)] for s in known])
        self.fields[id(output)] = field
        self.alive.append(output)
        weights = [a for a in [*args[1:], *kwargs.values()] if isinstance(a, nn.Parameter)]
        self.layers.append(
            Layer(
                name=self.modules[-1],
                kind=kind,
                detail=detail,
                inputs=[tuple(s.shape[1:]) for s in known],
                output=tuple(output.shape[1:]),
                parameters=sum(w.numel() for w in weights),
                macs=macs,
                field=field,
            )
        )
        return output


def _window(field: Field, n: int, kernel: int, stride: int, padding: int) -> Field:
    """Move a field through a window: output i sees inputs i stride - padding to … + kernel - 1."""
    first = np.arange(n) * stride - padding
    last = len(field.low) - 1
    low, high = first.clip(0, last), (first + kernel - 1).clip(0, last)
    return Field(field.low[low], field.high[high], field.step * stride)


def _convolution(args: tuple, kwargs: dict, output: torch.Tensor, fields: list[Field]) -> tuple:
    _, weight, _, stride, padding, *_ = args
    kernel = weight.shape[-1]
    detail = {"kernel_size": kernel, "stride": stride[0], "padding": padding[0]}
    field = _window(fields[0], output.shape[-1], kernel, stride[0], padding[0])
    return detail, field, output[0].numel() * weight[0].numel()


def _transposed(args: tuple, kwargs: dict, output: torch.Tensor, fields: list[Field]) -> tuple:
    images, weight, _, stride, padding, *_ = args
    kernel, s, p, n = weight.shape[-1], stride[0], padding[0], output.shape[-1]
    places = np.arange(n) + p  # output o gets input i where 0 <= o - i s < kernel
    last = len(fields[0].low) - 1
    low, high = (-((kernel - 1 - places) // s)).clip(0, last), (places // s).clip(0, last)
    field = Field(fields[0].low[low], fields[0].high[high], fields[0].step / s)
    detail = {"kernel_size": kernel, "stride": s, "padding": p}
    return detail, field, images[0].numel() * weight[0].numel()


def _pooling(args: tuple, kwargs: dict, output: torch.Tensor, fields: list[Field]) -> tuple:
    kernel = args[1] if len(args) > 1 else kwargs["kernel_size"]
    stride = (args[2] if len(args) > 2 else kwargs.get("stride")) or kernel
    field = _window(fields[0], output.shape[-1], kernel, stride, 0)
    return {"kernel_size": kernel, "stride": stride}, field, 0


def _interpolation(args: tuple, kwargs: dict, output: torch.Tensor, fields: list[Field]) -> tuple:
    n, before = output.shape[-1], len(fields[0].low)
    mode = kwargs.get("mode", "nearest")
    if mode == "nearest":
        low = high = np.arange(n) * before // n
        step = Fraction(before, n)
    else:  # bilinear with aligned corners: the two neighbours of o (before - 1) / (n - 1)
        numerator = np.arange(n) * (before - 1)
        low, high = numerator // (n - 1), -(-numerator // (n - 1))
        step = Fraction(before - 1, n - 1)
    field = Field(fields[0].low[low], fields[0].high[high], fields[0].step * step)
    return {"mode": mode, "factor": n // before}, field, 0


def _same(args: tuple, kwargs: dict, output: torch.Tensor, fields: list[Field]) -> tuple:
    return {}, fields[0], 0


def _beside(args: tuple, kwargs: dict, output: torch.Tensor, fields: list[Field]) -> tuple:
    low = np.minimum.reduce([f.low for f in fields])
    return {}, Field(low, np.maximum.reduce([f.high for f in fields]), fields[0].step), 0


def _whole(args: tuple, kwargs: dict, output: torch.Tensor, fields: list[Field]) -> tuple:
    low, high = fields[0].low.min(keepdims=True), fields[0].high.max(keepdims=True)
    macs = output[0].numel() * args[0].shape[-1] if len(args) > 1 and _is_weight(args[1]) else 0
    return {}, Field(low, high, fields[0].step), macs


def _is_weight(value: Any) -> bool:
    return isinstance(value, nn.Parameter)


OPERATIONS = {
    "conv2d": ("convolution", _convolution),
    "conv_transpose2d": ("transposed convolution", _transposed),
    "batch_norm": ("batch normalization", _same),
    "elu": ("ELU", _same),
    "relu": ("ReLU", _same),
    "gelu": ("GELU", _same),
    "max_pool2d": ("max-pooling", _pooling),
    "interpolate": ("interpolation", _interpolation),
    "cat": ("concatenation", _beside),
    "flatten": ("flatten", _whole),
    "linear": ("linear", _whole),
}
