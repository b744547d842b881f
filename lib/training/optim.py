"""The two optimizers and the learning-rate schedules of the studies."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

Schedule = Literal["constant", "cosine", "one_cycle"]
RISE = 0.2  # share of the steps in which one_cycle's rate rises


def sgd(
    parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float = 0.0
) -> torch.optim.SGD:
    """Return SGD with Nesterov momentum (Sutskever et al. 2013, as torch formulates it).

    torch refuses Nesterov with momentum 0, where it would change nothing: plain SGD then.
    ``weight_decay`` times a weight is added to its gradient.
    """
    parameters = list(parameters)
    return torch.optim.SGD(
        parameters,
        lr=lr,
        momentum=momentum,
        nesterov=momentum > 0,
        weight_decay=weight_decay,
        fused=_on_gpu(parameters),
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
    (Loshchilov & Hutter 2017, without restarts). one_cycle: straight up to that rate in the first
    fifth of the steps, then down to 0 along half a cosine (after Smith & Topin 2019).
    """

    def factor(step: int) -> float:
        if schedule == "constant":
            return 1.0
        rise = RISE * steps if schedule == "one_cycle" else 0
        if step < rise:
            return (step + 1) / (rise + 1)
        return (1 + math.cos(math.pi * (step - rise) / (steps - rise))) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """Return a network whose ``update_parameters(model)`` keeps the average of the model's weights.

    Exponential, of weights and of batch normalization's statistics: after step t the average moves
    by 1 - min(decay, (1 + t) / (10 + t)) of the way, so that the first weights are soon forgotten.
    """

    @torch.no_grad()
    def move(averages: list[torch.Tensor], values: list[torch.Tensor], done: torch.Tensor) -> None:
        share = 1 - min(decay, (1 + int(done)) / (10 + int(done)))  # counted on the CPU
        for average, value in zip(averages, values, strict=True):
            if value.is_floating_point():
                average.lerp_(value, share)
            else:  # batch normalization's count of batches
                average.copy_(value)

    return AveragedModel(model, multi_avg_fn=move, use_buffers=True)


def current_lr(scheduler: torch.optim.lr_scheduler.LRScheduler) -> float:
    """Return the learning rate of the next step, to the seven digits that a GPU's float32 has."""
    return float(f"{float(scheduler.get_last_lr()[0]):.7g}")
