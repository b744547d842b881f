"""Use what this machine has: its cores, its number formats, its GPU without waiting for it."""

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import torch

from lib.spec.errors import UserError
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


@contextlib.contextmanager
def told_when_out_of_memory(batch_size: int) -> Iterator[None]:
    """Turn a GPU's lack of memory into a UserError that says what to do.

    Raises:
        UserError: with the batch size.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        first = str(error).split(". ")[0]
        raise UserError(
            f"the GPU has no memory for a step with batch_size = {batch_size} ({first}). Set a "
            "smaller batch_size or precision = bfloat16 (another recipe: for all runs of the "
            "study), or end other programs on the GPU; the run continues from its last checkpoint"
        ) from error


class GraphedStep:
    """A training step, replayed on a GPU as one CUDA graph instead of a hundred small launches.

    ``step`` takes a batch's indices (n,) and returns nothing; it must not read a value back. The
    first steps, and batches of another size (an epoch's last), are run plainly: the numbers are
    those of the plain step. The learning rate becomes a float32 tensor, which a scheduler fills.
    Where recording fails, it says why in one line and runs every step plainly: recording computes
    nothing, so that state and random numbers are as if it had not been tried.
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
        self.refused = False
        self.stream = torch.cuda.Stream()
        self.warmed_up = 0
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=generator.device)

    def __call__(self, batch: torch.Tensor) -> None:
        """Train on one batch."""
        warm = len(batch) == self.size and self.warmed_up >= WARM_UP
        if warm and self.graph is None and not self.refused:
            self._try_to_record(batch)
        if not warm or self.refused:
            self.warmed_up += len(batch) == self.size
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.step(batch)
            torch.cuda.current_stream().wait_stream(self.stream)
            return
        self.batch.copy_(batch)
        self.graph.replay()

    def _try_to_record(self, batch: torch.Tensor) -> None:
        """Record the step, once; where that fails, leave all as it was."""
        before = self.generator.get_state()
        self._say_capturable(True)
        try:
            self._record(batch)
        except Exception as error:  # drivers, libraries and steps fail in ways of their own
            self.graph, self.refused = None, True
            self.generator.set_state(before)
            told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            print(f"no CUDA graph, every step is run plainly, which is slower: {told}", flush=True)
        finally:
            self._say_capturable(False)  # a plain step would warn of it

    def _record(self, batch: torch.Tensor) -> None:
        self.batch = batch.clone()
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        with torch.cuda.graph(graph, stream=self.stream):
            self.step(self.batch)  # recorded, not run
        self.graph = graph

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
