"""The optimizers, learning-rate schedules and the moving average (EMA) of the studies."""

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

Schedule = Literal["constant", "cosine", "one_cycle"]
RISE = 0.2  # share of the steps in which one_cycle increases the learning rate


def sgd(
    parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float = 0.0
) -> torch.optim.SGD:
    """Return SGD with Nesterov momentum (Sutskever et al. 2013, in torch's formulation).

    With momentum 0 it is plain SGD, because torch rejects Nesterov momentum of 0.
    ``weight_decay`` is L2: times the weight, added to the gradient.
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
    """Return Adam (Kingma & Ba 2015) with torch's default betas, 0.9 and 0.999.

    The assignment's template sets eps = 0.1, far above the usual 1e-8. Where gradients are small,
    the update is then about lr / eps times their running mean.
    """
    parameters = list(parameters)
    return torch.optim.Adam(parameters, lr=lr, eps=eps, fused=_on_gpu(parameters))


def _on_gpu(parameters: list[nn.Parameter]) -> bool:
    """Return whether the parameters are on a GPU, where the fused step works in a CUDA graph."""
    return parameters[0].is_cuda


def schedule_lr(
    optimizer: torch.optim.Optimizer, schedule: Schedule, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return a scheduler to be stepped after every batch, for ``steps`` batches in total.

    constant: the optimizer's learning rate. cosine: cosine annealing from that rate to 0
    (Loshchilov & Hutter 2017, without restarts). one_cycle: linear warm-up to that rate in the
    first fifth of the steps, then cosine annealing to 0 (after Smith & Topin 2019).
    """

    def factor(step: int) -> float:
        if schedule == "constant":
            return 1.0
        warm_up = RISE * steps if schedule == "one_cycle" else 0
        if step < warm_up:
            return (step + 1) / (warm_up + 1)
        return (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up))) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average (EMA) of ``model``; call its ``update_parameters``.

    Averages weights and batch normalization's statistics. The decay of update t is min(decay,
    (1 + t) / (10 + t)), so that the initial weights are forgotten quickly.
    """

    @torch.no_grad()
    def move(averages: list[torch.Tensor], values: list[torch.Tensor], _: torch.Tensor) -> None:
        # The model's own count is on the CPU; int() of the third argument, which torch moves to
        # the weights' device, would wait for the GPU.
        done = int(whole.n_averaged)
        share = 1 - min(decay, (1 + done) / (10 + done))
        for average, value in zip(averages, values, strict=True):
            if value.is_floating_point():
                average.lerp_(value, share)
            else:  # batch normalization's num_batches_tracked
                average.copy_(value)

    whole = AveragedModel(model, multi_avg_fn=move, use_buffers=True)
    return whole


def current_lr(scheduler: torch.optim.lr_scheduler.LRScheduler) -> float:
    """Return the learning rate of the next step, rounded to float32's seven digits.

    On a GPU the learning rate is a float32 tensor; rounding makes logs of CPU and GPU agree.
    """
    return float(f"{float(scheduler.get_last_lr()[0]):.7g}")
