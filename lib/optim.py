"""The two optimizers and the learning-rate schedules of the studies."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

Schedule = Literal["constant", "cosine"]


def sgd(parameters: Iterable[nn.Parameter], lr: float, momentum: float) -> torch.optim.SGD:
    """Return SGD with Nesterov momentum (Sutskever et al. 2013, as torch formulates it).

    torch refuses Nesterov with momentum 0, where it would change nothing: plain SGD then.
    """
    nesterov = momentum > 0
    parameters = list(parameters)
    return torch.optim.SGD(
        parameters, lr=lr, momentum=momentum, nesterov=nesterov, fused=_on_gpu(parameters)
    )


def adam(parameters: Iterable[nn.Parameter], lr: float, eps: float) -> torch.optim.Adam:
    """Return Adam (Kingma & Ba 2015) with torch's decay rates 0.9 and 0.999.

    The assignment's template sets eps = 0.1, far above the usual 1e-8: where gradients are small
    the step is then about lr / eps times their running mean.
    """
    parameters = list(parameters)
    return torch.optim.Adam(parameters, lr=lr, eps=eps, fused=_on_gpu(parameters))


def _on_gpu(parameters: list[nn.Parameter]) -> bool:
    """Say whether a step is to be one kernel on the device, which a CUDA graph can record."""
    return parameters[0].is_cuda


def schedule_lr(
    optimizer: torch.optim.Optimizer, schedule: Schedule, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return a scheduler to be stepped once per batch, for ``steps`` batches in all.

    constant: the optimizer's rate throughout. cosine: from that rate to 0 along half a cosine
    (Loshchilov & Hutter 2017, without restarts).
    """

    def factor(step: int) -> float:
        return 1.0 if schedule == "constant" else (1 + math.cos(math.pi * step / steps)) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def current_lr(scheduler: torch.optim.lr_scheduler.LRScheduler) -> float:
    """Return the learning rate of the next step, to the seven digits that a GPU's float32 has."""
    return float(f"{float(scheduler.get_last_lr()[0]):.7g}")
