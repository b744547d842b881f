"""Use what this machine has: its cores, its number formats, its GPU without waiting for it."""

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from lib.spec.errors import UserError
from lib.spec.machine import cores

Precision = Literal["float32", "bfloat16"]

# glibc gives large blocks back at once and faults them in again at the next step; kept, a run
# spends a tenth of that time in the kernel, with the same numbers. In bytes; keys as in malloc.h:
# M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD.
MALLOPT = {-1: 1 << 30, -2: 1 << 26, -3: 1 << 30}
GRAPH_FROM = 200  # steps; a CUDA graph takes some tenths of a second to record
SAME_LOSS = {"rtol": 0.02, "atol": 0.001}  # of a recorded and a plain step: kernels and sums vary
SAME_UPDATE = 0.25  # how far recorded weights may be from plain ones, as a share of the update
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
def explain_out_of_memory(batch_size: int) -> Iterator[None]:
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

    ``step`` takes a batch's indices (n,), changes ``model`` and ``optimizer``, adds the batch's
    loss to the first element of ``sums``, and returns nothing; it must not read a value back. What
    it computes is inside the graph, dropout too; what its loop does after it is not (the schedule,
    a moving average of the weights). The first steps, and batches of another size (an epoch's
    last), are run plainly: the numbers are those of the plain step. The learning rate becomes a
    float32 tensor, which a scheduler fills.

    Before it is used, two recorded steps are compared with two plain ones from the same state:
    their losses, and the weights that they leave. Where recording fails or these differ, one line
    says so, and every step is run plainly. Either way the state and the random numbers are as if
    nothing had been tried.
    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture
    """

    def __init__(
        self,
        step: Callable[[torch.Tensor], None],
        size: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        sums: torch.Tensor,
    ) -> None:
        self.step, self.size, self.sums = step, size, sums
        self.model, self.optimizer, self.generator = model, optimizer, generator
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
            self._run_plainly(batch)
        else:
            self._replay(batch)

    def _run_plainly(self, batch: torch.Tensor) -> None:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.step(batch)
        torch.cuda.current_stream().wait_stream(self.stream)

    def _replay(self, batch: torch.Tensor) -> None:
        self.batch.copy_(batch)
        self.graph.replay()

    def _try_to_record(self, batch: torch.Tensor) -> None:
        """Record the step, once, and compare it with the plain one; leave the state as it was."""
        before = self._state()
        generators = self._generators()
        unused = [generator.clone_state() for generator in generators]
        try:
            start = self._weights()
            plain = self._losses(self._run_plainly, batch)
            updated = self._weights()
            self._restore(before)
            self._say_capturable(True)
            self._record(batch)
            self._restore(before)
            recorded = self._losses(self._replay, batch)
            if not torch.allclose(plain, recorded, **SAME_LOSS, equal_nan=True):
                raise ArithmeticError(
                    f"two recorded steps gave the losses {recorded.tolist()}, two plain ones "
                    f"{plain.tolist()}"
                )
            update, gap = (updated - start).norm(), (self._weights() - updated).norm()
            if gap > SAME_UPDATE * update:
                raise ArithmeticError(
                    f"two recorded steps left weights {gap:.3g} away from those of two plain ones, "
                    f"which changed them by {update:.3g}"
                )
        except Exception as error:  # drivers, libraries and steps fail in ways of their own
            self.graph, self.refused = None, True
            for generator, state in zip(generators, unused, strict=True):
                if generator.device.type == "cuda":  # else it waits for the recording's end, always
                    generator.graphsafe_set_state(state)
            if isinstance(error, torch.cuda.OutOfMemoryError):  # a graph needs more than the steps
                torch.cuda.empty_cache()
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            print(
                f"no CUDA graph, every step is run plainly, which is slower: {reason}", flush=True
            )
        finally:
            self._say_capturable(False)  # a plain step would warn of it
            self._restore(before)

    def _weights(self) -> torch.Tensor:
        """Return a copy of all weights, in one row."""
        return torch.cat([weight.detach().flatten() for weight in self.model.parameters()])

    def _losses(self, run: Callable[[torch.Tensor], None], batch: torch.Tensor) -> torch.Tensor:
        """Return the losses (2,) of two steps on ``batch``; the second is after an update."""
        found = []
        for _ in range(2):
            self.sums.zero_()
            run(batch)
            found.append(self.sums.flatten()[0].clone())
        return torch.stack(found)

    def _record(self, batch: torch.Tensor) -> None:
        self.batch = batch.clone()
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        with torch.cuda.graph(graph, stream=self.stream):
            self.step(self.batch)  # recorded, not run
        self.graph = graph

    def _tensors(self) -> list[torch.Tensor]:
        """Return what a step changes: weights, statistics, the optimizer's memory, the sums."""
        memory = [value for one in self.optimizer.state.values() for value in one.values()]
        tensors = [value for value in memory if isinstance(value, torch.Tensor)]
        return [*self.model.state_dict().values(), *tensors, self.sums]

    def _generators(self) -> tuple[torch.Generator, torch.Generator]:
        """Return what a step draws from; dropout draws from the device's default."""
        return self.generator, default_generator(self.generator.device)

    def _state(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return copies of what a step changes, and of its generators' states."""
        tensors = [value.detach().clone() for value in self._tensors()]
        return tensors, [generator.get_state() for generator in self._generators()]

    def _restore(self, state: tuple[list[torch.Tensor], list[torch.Tensor]]) -> None:
        """Write ``state`` back, in place: the graph knows the tensors by their addresses."""
        tensors, drawn = state
        with torch.no_grad():
            for value, old in zip(self._tensors(), tensors, strict=True):
                value.copy_(old)
        for generator, old in zip(self._generators(), drawn, strict=True):
            generator.set_state(old)

    def _say_capturable(self, value: bool) -> None:
        """Let Adam be recorded, or not; its fused step is the same either way."""
        for group in self.optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = value


def maybe_cuda_graph(
    step: Callable[[torch.Tensor], None],
    size: int,
    steps: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    sums: torch.Tensor,
) -> Callable[[torch.Tensor], None]:
    """Return ``step`` for batches of ``size``, on a GPU as a graph if ``steps`` are enough for it.

    ``generator`` is what the step draws from in addition to the default generator; the rest as in
    GraphedStep. CUDA_GRAPH=0 in the environment: never a graph.
    """
    if generator.device.type != "cuda" or steps < GRAPH_FROM:
        return step
    if os.environ.get("CUDA_GRAPH") == "0":
        return step
    return GraphedStep(step, size, model, optimizer, generator, sums)
