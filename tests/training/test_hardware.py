"""Threads, number formats, and the step that a GPU replays."""

import contextlib
import functools
import math
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import train_gtsrb
import train_unet
from lib.data import gtsrb, jsrt
from lib.models.gtsrb_cnn import CNN
from lib.spec import machine
from lib.spec.errors import UserError
from lib.training import hardware, optim, seeding
from tests.conftest import ROOT

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
ASK = """
import torch
from lib.training import hardware
hardware.prepare()
print(torch.get_num_threads(), torch.backends.cpu.get_cpu_capability())
"""


@pytest.mark.parametrize(
    ("text", "count"),
    [("max 100000", 8), ("300000 100000", 3), ("1000 100000", 1), ("900000 100000", 8), ("", 8)],
)
def test_cores_are_within_the_quota(
    text: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(text)
    assert machine.cores(tmp_path / "cpu.max") == count
    assert machine.cores(tmp_path / "none") == 8


@pytest.mark.parametrize("given", [{}, {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "default"}])
def test_what_the_user_sets_wins(given: dict[str, str], offline: dict[str, str]) -> None:
    values = {
        k: v for k, v in offline.items() if k not in ("OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY")
    }
    command = [sys.executable, "-c", ASK]
    done = subprocess.run(command, cwd=ROOT, env=values | given, capture_output=True, text=True)
    threads, capability = done.stdout.strip().split(maxsplit=1)
    if given:
        assert threads == "1"
        assert capability in ("DEFAULT", "NO AVX")  # as newer and older releases of torch say it
    else:
        assert threads == str(machine.cores())
        assert capability != "AVX512"


def test_bfloat16_is_near_float32_and_leaves_the_rest_float32() -> None:
    torch.manual_seed(0)
    model, images = CNN(True, "elu"), torch.rand(16, 3, 28, 28)
    cpu, exact = torch.device("cpu"), model(images)
    with hardware.autocast(cpu, "float32"):
        assert torch.equal(model(images), exact)
    with hardware.autocast(cpu, "bfloat16"):
        rounded = model(images).float()
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.05)
    rounded.sum().backward()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}


class NoWaiting(TorchDispatchMode):
    """Refuse what a CUDA graph cannot record: values read back, values sent from the host."""

    READ = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "is_nonzero")
    SENT = ("lift_fresh",)  # torch.tensor(...)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.READ + self.SENT, f"a training step calls {name}"
        if name in ("index", "index_put_"):
            indices = [index.dtype for index in args[1] if index is not None]
            assert torch.bool not in indices, "a training step selects by a mask"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "reads",
    [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: x.nonzero(), lambda x: bool(x[0] > 0)],
)
def test_what_waits_is_seen(reads: Callable) -> None:
    x = torch.ones(3)
    with pytest.raises(AssertionError, match="a training step"), NoWaiting():
        reads(x)
    with pytest.raises(AssertionError, match="lift_fresh"), NoWaiting():
        torch.tensor([1.0])


class NoOptimizer:
    """Leaves the weights alone: torch's optimizers read back on a CPU what they do not on a GPU."""

    def zero_grad(self) -> None:
        """Do nothing."""

    def step(self) -> None:
        """Do nothing."""


def sign_step(device: str, own_optimizer: Any = None, **flags: Any) -> tuple:
    """Return the step, its model, optimizer, scheduler, generator and sums."""
    cfg = train_gtsrb.Config(**{"batch_norm": True, "schedule": "cosine"} | flags)
    images = torch.randint(256, (40, 3, 32, 32), dtype=torch.uint8, generator=torch.manual_seed(0))
    labels = torch.arange(40) % 43
    part = gtsrb.Images(images, labels, labels, labels, [""] * 40).to(torch.device(device))
    model, own, scheduler = train_gtsrb.build(cfg, 14, torch.device(device))
    generator = seeding.torch_generator(0, "augmentation", device)
    sums = torch.zeros(2, device=device)
    known = (model, own_optimizer or own, part, generator, cfg, sums)
    step = functools.partial(train_gtsrb.train_step, *known)
    return step, model, own, scheduler, generator, sums


def chest_step(device: str, own_optimizer: Any = None, **flags: Any) -> tuple:
    """Return the same of the U-Net."""
    small = {"depth": 2, "width": 4, "image_size": 16, "dice_weight": 1.0, "schedule": "cosine"}
    cfg = train_unet.Config(**small | flags)
    images = torch.randn(40, 1, 16, 16, generator=torch.manual_seed(0))
    part = jsrt.Radiographs(images, images > 0, [""] * 40, [""] * 40, "").to(torch.device(device))
    model, own, scheduler = train_unet.build(cfg, 14, torch.device(device))
    generator = seeding.torch_generator(0, "augmentation", device)
    sums = torch.zeros((), device=device)
    known = (model, own_optimizer or own, part, generator, cfg, sums)
    return functools.partial(train_unet.train_step, *known), model, own, scheduler, generator, sums


@pytest.mark.parametrize("make", [sign_step, chest_step])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_no_step_waits_for_the_device(make: Callable, precision: str) -> None:
    step, *_, sums = make("cpu", NoOptimizer(), precision=precision)
    with NoWaiting():
        step(torch.arange(8))
    assert sums.sum() > 0


class Recorded:
    """Stands in for torch.cuda's graph: keeps the step's call and calls it at each replay."""

    made: ClassVar[list] = []

    def __init__(self) -> None:
        self.made.append(self)
        self.generators, self.replays = [], 0

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    def replay(self) -> None:
        self.replays += 1
        self.call()


def test_when_a_graph_is_recorded_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three plain steps, then one recording; other sizes stay plain; the rate is the schedule's.

    Before it is used, the recorded step is compared: two plain steps, two recorded ones.
    """
    recording = [False]

    @contextlib.contextmanager
    def record(graph: Recorded, stream: Any) -> Iterator[None]:
        recording[0] = True
        yield
        recording[0] = False
        graph.call = lambda: step(stepper.batch)

    stream = types.SimpleNamespace(wait_stream=lambda _: None)
    monkeypatch.setattr(Recorded, "made", [])
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)
    monkeypatch.setattr(torch.cuda, "graph", record)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)

    model = torch.nn.Linear(2, 1)
    optimizer = optim.adam(model.parameters(), 0.1, 0.1)
    scheduler = optim.schedule_lr(optimizer, "cosine", 10)
    generator, seen = torch.Generator(), []

    def step(batch: torch.Tensor) -> None:
        if recording[0]:
            assert optimizer.param_groups[0]["capturable"]
        else:
            rate = optimizer.param_groups[0]["lr"]
            seen.append((batch.tolist(), round(float(rate), 6), isinstance(rate, torch.Tensor)))

    stepper = hardware.GraphedStep(step, 2, model, optimizer, generator, torch.zeros(2))
    batches = [[0, 1], [9], [2, 3], [4, 5], [6, 7], [8], [9, 0]]
    for batch in batches:
        stepper(torch.tensor(batch))
        optimizer.step()
        scheduler.step()
    rates = [round(0.1 * (1 + math.cos(math.pi * i / 10)) / 2, 6) for i in range(7)]
    expected = [(batch, rate, True) for batch, rate in zip(batches, rates, strict=True)]
    assert seen == [*expected[:4], *[expected[4]] * 4, *expected[4:]]
    (graph,) = Recorded.made
    assert (graph.replays, graph.generators) == (4, [generator])
    assert not optimizer.param_groups[0]["capturable"]
    assert optim.current_lr(scheduler) == pytest.approx(0.1 * (1 + math.cos(0.7 * math.pi)) / 2)


def test_a_cpu_steps_plainly() -> None:
    step, model, optimizer, _, generator, sums = sign_step("cpu")
    known = (model, optimizer, generator, sums)
    assert hardware.maybe_cuda_graph(step, 8, 10**6, *known) is step


@NO_GPU
@pytest.mark.parametrize("make", [sign_step, chest_step])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_graph_gives_the_plain_steps_numbers(
    make: Callable, precision: str, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a smaller batch among the others, and as the schedule lowers the rate."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    if make is sign_step:
        make = functools.partial(sign_step, optimizer=optimizer)
    found = []
    for graph in (False, True):
        step, model, own, scheduler, generator, sums = make("cuda", precision=precision)
        if graph:
            known = (model, own, generator, sums)
            step = hardware.maybe_cuda_graph(step, 8, hardware.GRAPH_FROM, *known)
            assert isinstance(step, hardware.GraphedStep)
        for i in range(14):
            step(torch.arange(5 if i == 9 else 8, device="cuda") + i)
            scheduler.step()
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        assert not (graph and step.gave_up)
        found.append((weights.cpu(), sums.cpu(), generator.get_state()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-4)
    assert torch.equal(found[0][2], found[1][2])


def test_on_a_cpu_an_optimizer_is_the_plain_one() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    assert not optim.adam([weight], 0.1, 0.1).defaults["fused"]
    assert not optim.sgd([weight], 0.1, 0.9).defaults["fused"]


@NO_GPU
def test_a_step_that_a_real_gpu_cannot_record(capsys: pytest.CaptureFixture) -> None:
    """It reads a value back, which a graph cannot; weights are those of plain steps."""
    found = []
    for graph in (False, True):
        step, model, own, _, generator, sums = sign_step("cuda")

        def reads(batch: torch.Tensor, s=step, total=sums) -> None:  # noqa: ANN001
            s(batch)
            total.sum().item()

        call = reads
        if graph:
            known = (model, own, generator, sums)
            call = hardware.maybe_cuda_graph(reads, 8, hardware.GRAPH_FROM, *known)
        for i in range(8):
            call(torch.arange(8, device="cuda") + i)
        found.append((sums.cpu(), generator.get_state()))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-3, atol=1e-3)
    assert torch.equal(found[0][1], found[1][1])
    assert capsys.readouterr().out.count("training without a CUDA graph") == 1


class _Stream:
    """Replace a CUDA stream on a machine without a GPU."""

    def wait_stream(self, _: object) -> None:
        """Wait for nothing."""


def noisy_steps(fault: str | None) -> tuple:
    """Return weights, sums and a random number after 20 steps; with which fault, if recorded."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2), torch.nn.Dropout())
    optimizer = torch.optim.Adam(model.parameters(), 0.001)
    generator, sums = torch.Generator().manual_seed(1), torch.zeros(2)

    def step(batch: torch.Tensor) -> None:
        noise = torch.rand(len(batch), 4, generator=generator)
        optimizer.zero_grad()
        loss = (model(batch[:, None] + noise) - 1).square().mean()
        loss.backward()
        optimizer.step()
        sums.add_(torch.stack([loss.detach(), torch.ones(())]))

    call = step
    if fault:
        call = hardware.GraphedStep(step, 8, model, optimizer, generator, sums)

        def record(batch: torch.Tensor) -> None:
            torch.rand(3, generator=generator)  # what a recording that breaks off may have drawn
            if fault == "memory":
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
            if fault == "refused":
                raise RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing")
            call.batch = batch.clone()
            stale = torch.zeros_like(batch)

            def replay() -> None:
                old = [weight.detach().clone() for weight in model.parameters()]
                step(stale if fault == "stale batch" else call.batch)
                share = {"no update": 0.0, "half of it": 0.5}.get(fault, 1.0)
                with torch.no_grad():
                    for weight, before in zip(model.parameters(), old, strict=True):
                        weight.copy_(before + share * (weight - before))

            call.graph = types.SimpleNamespace(replay=replay)

        call._record = record
        call._set_capturable = lambda _: None  # on a CPU Adam refuses it
    for i in range(20):
        call(torch.arange(8 if i % 5 else 3) / 8)
    refused = bool(fault) and call.gave_up
    state = [*model.state_dict().values(), sums, torch.rand(3), torch.rand(3, generator=generator)]
    return refused, [value.detach().clone() for value in state]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("none", None),
        ("refused", "RuntimeError: CUDA error: operation not permitted when stream is capturing"),
        ("stale batch", "ArithmeticError: the losses of two recorded steps are ["),
        ("no update", "ArithmeticError: after two recorded steps the weights differ"),
        ("half of it", "ArithmeticError: after two recorded steps the weights differ"),
        ("memory", "OutOfMemoryError: CUDA out of memory"),
    ],
)
def test_a_graph_that_cannot_be_used_is_done_without(
    fault: str, reason: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """It says why once; weights, statistics, sums and random numbers are as without a graph."""
    monkeypatch.setattr(torch.cuda, "Stream", _Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", _Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    _, plain = noisy_steps(None)
    refused, found = noisy_steps(fault)
    assert refused == (reason is not None)
    for one, other in zip(plain, found, strict=True):
        assert torch.allclose(one, other, atol=1e-6)  # lr as a tensor rounds otherwise
    said = capsys.readouterr().out
    assert said.count("training without a CUDA graph") == (reason is not None)
    assert (reason or "") in said


def test_a_gpu_without_memory_is_reported_with_the_batch_size() -> None:
    with pytest.raises(UserError) as error, hardware.explain_out_of_memory(128):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. More.")
    assert "with batch_size = 128 (CUDA out of memory)" in str(error.value)
    assert "continues from its last checkpoint" in str(error.value)
