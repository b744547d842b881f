"""Trace a network's operations on one image: shapes, parameters, cost, receptive fields.

The forward pass is intercepted on torch's "meta" device, which computes shapes without data. So
skip connections and functional calls are included, and no second definition of the network is
needed.
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
    """Raised for an operation that cannot be traced or described."""


@dataclasses.dataclass(frozen=True)
class Field:
    """Theoretical receptive fields along one axis; both axes are equal, as images are square.

    ``low`` and ``high`` (n,): the first and last input pixel that each of n outputs depends on,
    inside the image. ``step``: distance in input pixels between neighboring outputs.
    """

    low: np.ndarray
    high: np.ndarray
    step: Fraction

    @property
    def middle(self) -> int:
        """The index of the output in the middle."""
        return len(self.low) // 2

    @property
    def size(self) -> int:
        """The number of input pixels (per axis) that the output in the middle depends on."""
        return int(self.high[self.middle] - self.low[self.middle]) + 1

    @property
    def center(self) -> float:
        """The middle of the middle output's field; 0 is the center of the first pixel."""
        return float(self.low[self.middle] + self.high[self.middle]) / 2

    @property
    def cut(self) -> bool:
        """Whether the field reaches the border, so that it may be larger in a larger image."""
        return bool(self.low[self.middle] == 0 or self.high[self.middle] == self.high.max())


@dataclasses.dataclass(frozen=True)
class Layer:
    """One operation of a network; shapes are without the batch dimension."""

    name: str  # of the module that calls the operation
    kind: str  # convolution, batch normalization, activation, max-pooling, …
    detail: dict[str, Any]  # kernel_size, stride, padding, activation, …
    inputs: list[tuple[int, ...]]
    output: tuple[int, ...]
    parameters: int
    macs: int  # multiply-adds for one image
    field: Field


def trace(model: nn.Module, shape: tuple[int, int, int]) -> list[Layer]:
    """Return the operations of ``model`` on one image of ``shape`` (C, H, W), in order.

    Moves the model to the "meta" device, where it loses its weights.

    Raises:
        UnknownOperationError: on an operation that is not in OPERATIONS.
        ValueError: if the image is not square.
    """
    if shape[1] != shape[2]:
        raise ValueError(f"images must be square to trace receptive fields, got {shape}")
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
    """Record every torch function that a forward pass calls on known tensors."""

    def __init__(self, image: torch.Tensor) -> None:
        super().__init__()
        pixels = np.arange(image.shape[-1])
        self.fields = {id(image): Field(pixels, pixels, Fraction(1))}
        self.alive = [image]  # keeps tensors alive, so that their ids are not reused
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
                f"{name} in {self.modules[-1] or 'the network'}: its effect on receptive fields is "
                f"not implemented; add it to OPERATIONS in {__name__}"
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
    """Return the fields of the ``n`` outputs of a sliding window over a layer with ``field``."""
    first = np.arange(n) * stride - padding  # output i has the inputs first[i] … + kernel - 1
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
    padded = np.arange(n) + p  # output o depends on input i if 0 <= o + p - i s < kernel
    last = len(fields[0].low) - 1
    low, high = (-((kernel - 1 - padded) // s)).clip(0, last), (padded // s).clip(0, last)
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
    else:  # bilinear with align_corners: the two neighbors of o (before - 1) / (n - 1)
        numerator = np.arange(n) * (before - 1)
        low, high = numerator // (n - 1), -(-numerator // (n - 1))
        step = Fraction(before - 1, n - 1)
    field = Field(fields[0].low[low], fields[0].high[high], fields[0].step * step)
    return {"mode": mode, "factor": n // before}, field, 0


def _elementwise(args: tuple, kwargs: dict, output: torch.Tensor, fields: list[Field]) -> tuple:
    return {}, fields[0], 0


def _concatenation(args: tuple, kwargs: dict, output: torch.Tensor, fields: list[Field]) -> tuple:
    low = np.minimum.reduce([f.low for f in fields])
    return {}, Field(low, np.maximum.reduce([f.high for f in fields]), fields[0].step), 0


def _all_inputs(args: tuple, kwargs: dict, output: torch.Tensor, fields: list[Field]) -> tuple:
    low, high = fields[0].low.min(keepdims=True), fields[0].high.max(keepdims=True)
    macs = output[0].numel() * args[0].shape[-1] if len(args) > 1 and _is_weight(args[1]) else 0
    return {}, Field(low, high, fields[0].step), macs


def _is_weight(value: Any) -> bool:
    return isinstance(value, nn.Parameter)


# torch function -> kind, and a function that returns detail, field and multiply-adds.
OPERATIONS = {
    "conv2d": ("convolution", _convolution),
    "conv_transpose2d": ("transposed convolution", _transposed),
    "batch_norm": ("batch normalization", _elementwise),
    "elu": ("ELU", _elementwise),
    "relu": ("ReLU", _elementwise),
    "gelu": ("GELU", _elementwise),
    "max_pool2d": ("max-pooling", _pooling),
    "interpolate": ("interpolation", _interpolation),
    "cat": ("concatenation", _concatenation),
    "flatten": ("flatten", _all_inputs),
    "linear": ("linear", _all_inputs),
}
