"""Threads, number formats, and the step that a GPU replays."""

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import train_gtsrb
import train_unet
from lib import gtsrb, hardware, jsrt, optim, seeding
from lib.cnn import CNN
from tests.conftest import ROOT

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
ASK = """
import torch
from lib import hardware
hardware.prepare()
print(torch.get_num_threads(), torch.backends.cpu.get_cpu_capability())
"""


@pytest.mark.parametrize(
    ("text", "most"), [("max 100000", 10**6), ("100000 100000", 1), ("1000 100000", 1), ("", 10**6)]
)
def test_cores_are_within_the_quota(text: str, most: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert 1 <= hardware.cores(tmp_path / "cpu.max") <= most
    assert hardware.cores(tmp_path / "none") == hardware.cores(tmp_path / "cpu.max") or most == 1


@pytest.mark.parametrize("given", [{}, {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "default"}])
def test_what_the_user_sets_wins(given: dict[str, str], offline: dict[str, str]) -> None:
    values = {
        k: v for k, v in offline.items() if k not in ("OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY")
    }
    command = [sys.executable, "-c", ASK]
    done = subprocess.run(command, cwd=ROOT, env=values | given, capture_output=True, text=True)
    threads, capability = done.stdout.split()
    if given:
        assert (threads, capability) == ("1", "DEFAULT")
    else:
        assert threads == str(hardware.cores())
        assert capability != "AVX512"


def test_bfloat16_is_near_float32_and_leaves_the_rest_float32() -> None:
    torch.manual_seed(0)
    model, images = CNN(True, "elu"), torch.rand(16, 3, 28, 28)
    cpu, plain = torch.device("cpu"), model.forward
    exact = plain(images)
    assert torch.equal(hardware.in_precision(plain, cpu, "float32")(images), exact)
    rounded = hardware.in_precision(plain, cpu, "bfloat16")(images)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.05)
    rounded.sum().backward()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}


class NoWaiting(TorchDispatchMode):
    """Refuse what a CUDA graph cannot record: values read back, values sent from the host."""

    FORBIDDEN = ("_local_scalar_dense", "lift_fresh", "nonzero", "equal")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.FORBIDDEN, f"a training step calls {name}"
        return func(*args, **(kwargs or {}))


class NoOptimizer:
    """Leaves the weights alone: torch's optimizers read back on a CPU what they do not on a GPU."""

    def zero_grad(self) -> None:
        """Do nothing."""

    def step(self) -> None:
        """Do nothing."""


def sign_step(device: str, optimizer: Any = None) -> tuple[Callable, torch.nn.Module, Any, Any]:
    cfg = train_gtsrb.Config(batch_norm=True, optimizer="sgd", schedule="cosine")
    images = torch.randint(256, (40, 3, 32, 32), dtype=torch.uint8, generator=torch.manual_seed(0))
    labels = torch.arange(40) % 43
    part = gtsrb.Images(images, labels, labels, [""] * 40).to(torch.device(device))
    model, own, scheduler = train_gtsrb.build(cfg, 14, torch.device(device))
    generator = seeding.torch_generator(0, "augmentation", device)
    sums = torch.zeros(2, device=device)
    optimizer = optimizer or own
    step = functools.partial(train_gtsrb.train_step, model, optimizer, part, generator, cfg, sums)
    return step, model, (own, scheduler), (generator, sums)


def test_no_step_waits_for_the_device() -> None:
    step, *_ = sign_step("cpu", NoOptimizer())
    with NoWaiting():
        step(torch.arange(8))

    cfg = train_unet.Config(depth=2, width=4, image_size=16, dice_weight=1.0)
    images = torch.randn(4, 1, 16, 16)
    part = jsrt.Radiographs(images, images > 0, [""] * 4, [""] * 4, "")
    model, *_ = train_unet.build(cfg, 1, torch.device("cpu"))
    generator, loss_sum = seeding.torch_generator(0, "augmentation"), torch.zeros(())
    with NoWaiting():
        train_unet.train_step(model, NoOptimizer(), part, generator, cfg, loss_sum, torch.arange(4))
    assert loss_sum > 0

    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoWaiting():
        loss_sum.item()


def test_a_cpu_steps_plainly() -> None:
    step, _, (optimizer, _), (generator, _) = sign_step("cpu")
    assert hardware.graphed(step, 8, 10**6, optimizer, generator) is step


@NO_GPU
def test_a_graph_gives_the_plain_steps_numbers() -> None:
    """Also with a smaller batch among the others, and as the schedule lowers the rate."""
    found = []
    for graph in (False, True):
        step, model, (optimizer, scheduler), (generator, sums) = sign_step("cuda")
        if graph:
            step = hardware.graphed(step, 8, hardware.GRAPH_FROM, optimizer, generator)
        for i in range(14):
            step(torch.arange(5 if i == 9 else 8, device="cuda") + i)
            scheduler.step()
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        found.append((weights.cpu(), sums.cpu(), generator.get_state()))
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])
    assert torch.equal(found[0][2], found[1][2])


@NO_GPU
@pytest.mark.parametrize(
    "make", [lambda p: optim.sgd(p, 0.1, 0.9), lambda p: optim.adam(p, 0.1, 0.1)]
)
def test_on_a_gpu_an_optimizer_can_be_recorded(make: Callable) -> None:
    weight = torch.nn.Parameter(torch.ones(3, device="cuda"))
    optimizer = make([weight])
    assert optimizer.defaults["fused"]


def test_on_a_cpu_an_optimizer_is_the_plain_one() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    assert not optim.adam([weight], 0.1, 0.1).defaults["fused"]
    assert not optim.sgd([weight], 0.1, 0.9).defaults["fused"]
