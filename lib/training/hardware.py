"""Use what this machine has: its cores, its number formats, its GPU without waiting for it."""

import contextlib
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from lib.spec.machine import cores

Precision = Literal["float32", "bfloat16"]

# glibc gives large blocks back at once and faults them in again at the next step; kept, a run
# spends a tenth of that time in the kernel, with the same numbers. In bytes; keys as in malloc.h:
# M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD.
MALLOPT = {-1: 1 << 30, -2: 1 << 26, -3: 1 << 30}
GRAPH_FROM = 200  # steps; a CUDA graph takes some tenths of a second to record
WARM_UP = 3  # steps before a graph is recorded: libraries and optimizers set themselves up in them


def prepare() -> None:
    """Set up threads, memory and kernels; to be called before the first computation.

    Where OMP_NUM_THREADS or ATEN_CPU_CAPABILITY is set, it holds.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # only glibc has it
        mallopt = ctypes.CDLL(None).mallopt
        for setting, value in MALLOPT.items():
            mallopt(setting, value)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cores())
    processor = Path("/proc/cpuinfo")
    if processor.exists() and "avx512f" in processor.read_text():
        # torch's expm1, and so ELU, takes two to five times as long with AVX-512 as with AVX2
        # (EPYC, torch 2.14); convolutions and matrix products choose their instructions themselves.
        os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
    torch.backends.cudnn.benchmark = True  # on a GPU: try the kernels; there are few shapes


def best_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def default_generator(device: torch.device) -> torch.Generator:
    """Return the generator that dropout draws from on ``device``: torch's own."""
    if device.type == "cuda":
        return torch.cuda.default_generators[torch.cuda.current_device()]
    return torch.default_generator


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return a context in which convolutions and matrix products are computed in ``precision``.

    Weights and batch normalization's statistics stay float32; call ``.float()`` on what comes out.
    On a GPU, convolutions in float32 round their inputs to TF32, as torch has it.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


class GraphedStep:
    """A training step, replayed on a GPU as one CUDA graph instead of a hundred small launches.

    ``step`` takes a batch's indices (n,) and returns nothing; it must not read a value back. The
    first steps, and batches of another size (an epoch's last), are run plainly: the numbers are
    those of the plain step. The learning rate becomes a float32 tensor, which a scheduler fills.
    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture
    """

    def __init__(
        self,
        step: Callable[[torch.Tensor], None],
        size: int,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> None:
        self.step, self.size, self.optimizer, self.generator = step, size, optimizer, generator
        self.graph: torch.cuda.CUDAGraph | None = None
        self.stream = torch.cuda.Stream()
        self.warmed_up = 0
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=generator.device)

    def __call__(self, batch: torch.Tensor) -> None:
        """Train on one batch."""
        if len(batch) != self.size or self.warmed_up < WARM_UP:
            self.warmed_up += len(batch) == self.size
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.step(batch)
            torch.cuda.current_stream().wait_stream(self.stream)
            return
        if self.graph is None:
            self.batch = batch.clone()
            self.graph = torch.cuda.CUDAGraph()
            self.graph.register_generator_state(self.generator)
            self._say_capturable(True)
            with torch.cuda.graph(self.graph, stream=self.stream):
                self.step(self.batch)  # recorded, not run
            self._say_capturable(False)  # a plain step would warn of it
        self.batch.copy_(batch)
        self.graph.replay()

    def _say_capturable(self, value: bool) -> None:
        """Let Adam be recorded, or not; its fused step is the same either way."""
        for group in self.optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = value


def maybe_cuda_graph(
    step: Callable[[torch.Tensor], None],
    size: int,
    steps: int,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> Callable[[torch.Tensor], None]:
    """Return ``step`` for batches of ``size``, on a GPU as a graph if ``steps`` are enough for it.

    ``generator`` is what the step draws from. CUDA_GRAPH=0 in the environment: never a graph.
    """
    if generator.device.type != "cuda" or steps < GRAPH_FROM:
        return step
    return (
        step
        if os.environ.get("CUDA_GRAPH") == "0"
        else GraphedStep(step, size, optimizer, generator)
    )
