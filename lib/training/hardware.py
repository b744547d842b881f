"""Set up threads, memory, precision and device, and run training steps as CUDA graphs."""

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

# By default glibc returns large blocks to the system and gets them back at the next step. Keeping
# them cuts a run's time in the kernel to a tenth, with the same results. In bytes; keys as in
# malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD.
MALLOPT = {-1: 1 << 30, -2: 1 << 26, -3: 1 << 30}
GRAPH_FROM = 200  # fewest steps for which recording a CUDA graph (some 0.1 s) is worth it
# Tolerances when a recorded step is compared with a plain one: kernels and sums may differ.
SAME_LOSS = {"rtol": 0.02, "atol": 0.001}
SAME_UPDATE = 0.25  # largest distance of the weights, as a share of the update
WARM_UP = 3  # plain steps before recording, in which libraries and optimizers allocate their state


def prepare() -> None:
    """Set up threads, memory and kernels; call it before the first computation.

    Does not override the environment variables OMP_NUM_THREADS and ATEN_CPU_CAPABILITY.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # only glibc has mallopt
        mallopt = ctypes.CDLL(None).mallopt
        for setting, value in MALLOPT.items():
            mallopt(setting, value)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cores())
    processor = Path("/proc/cpuinfo")
    if processor.exists() and "avx512f" in processor.read_text():
        # torch's expm1, and therefore ELU, is two to five times slower with AVX-512 than with AVX2
        # (EPYC, torch 2.14). Convolutions and matrix products do not use this setting.
        os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
    torch.backends.cudnn.benchmark = True  # time cuDNN's kernels: there are few shapes


def best_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def default_generator(device: torch.device) -> torch.Generator:
    """Return torch's default generator on ``device``, which dropout uses."""
    if device.type == "cuda":
        return torch.cuda.default_generators[torch.cuda.current_device()]
    return torch.default_generator


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return a context in which convolutions and matrix products are computed in ``precision``.

    Weights and batch normalization's statistics stay in float32; outputs may be bfloat16, so call
    ``.float()`` on them. On a GPU, float32 convolutions use TF32, which is torch's default.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


@contextlib.contextmanager
def explain_out_of_memory(batch_size: int) -> Iterator[None]:
    """Convert a GPU's out-of-memory error into a UserError.

    Raises:
        UserError: if the GPU runs out of memory.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        summary = str(error).split(". ")[0]
        raise UserError(
            f"the GPU is out of memory in a step with batch_size = {batch_size} ({summary}). Stop "
            "other programs on the GPU and run the command again; the run continues from its last "
            "checkpoint. Or use a smaller batch_size or precision = bfloat16 for all runs of the "
            "study, since both change the recipe"
        ) from error


class GraphedStep:
    """A training step that a GPU replays as one CUDA graph instead of about a hundred launches.

    ``step`` takes a batch's indices (n,), updates ``model`` and ``optimizer``, adds the batch's
    loss to the first element of ``sums``, and returns None; it must not copy values to the CPU.
    All its computation is in the graph, including dropout. The schedule and the moving average of
    the weights, which the training loop updates after the step, are not. The first steps and
    batches of another size (the last of an epoch) are executed without the graph ("plain"). The
    learning rate becomes a float32 tensor, which the scheduler fills.

    Before the graph is used, two replayed steps are compared with two plain ones from the same
    state, in their losses and in the resulting weights. If recording fails or they differ, a
    message is printed and all steps are plain. In both cases state and random numbers are restored.
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
        self.gave_up = False
        self.stream = torch.cuda.Stream()
        self.warmed_up = 0
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=generator.device)

    def __call__(self, batch: torch.Tensor) -> None:
        """Train on one batch."""
        warm = len(batch) == self.size and self.warmed_up >= WARM_UP
        if warm and self.graph is None and not self.gave_up:
            self._try_to_record(batch)
        if not warm or self.gave_up:
            self.warmed_up += len(batch) == self.size
            self._run_plain(batch)
        else:
            self._replay(batch)

    def _run_plain(self, batch: torch.Tensor) -> None:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.step(batch)
        torch.cuda.current_stream().wait_stream(self.stream)

    def _replay(self, batch: torch.Tensor) -> None:
        self.batch.copy_(batch)
        self.graph.replay()

    def _try_to_record(self, batch: torch.Tensor) -> None:
        """Record the step and compare it with the plain one; then restore the state."""
        before = self._state()
        generators = self._generators()
        unused = [generator.clone_state() for generator in generators]
        try:
            start = self._weights()
            plain = self._losses(self._run_plain, batch)
            updated = self._weights()
            self._restore(before)
            self._set_capturable(True)
            self._record(batch)
            self._restore(before)
            recorded = self._losses(self._replay, batch)
            if not torch.allclose(plain, recorded, **SAME_LOSS, equal_nan=True):
                raise ArithmeticError(
                    f"the losses of two recorded steps are {recorded.tolist()}, those of two plain "
                    f"steps {plain.tolist()}"
                )
            update, gap = (updated - start).norm(), (self._weights() - updated).norm()
            if gap > SAME_UPDATE * update:
                raise ArithmeticError(
                    f"after two recorded steps the weights differ by {gap:.3g} from those after "
                    f"two plain steps, whose update is {update:.3g}"
                )
        except Exception as error:  # drivers, libraries and steps raise various types
            self.graph, self.gave_up = None, True
            for generator, state in zip(generators, unused, strict=True):
                if generator.device.type == "cuda":  # else it would stay in recording mode
                    generator.graphsafe_set_state(state)
            if isinstance(error, torch.cuda.OutOfMemoryError):  # plain steps need less memory
                torch.cuda.empty_cache()
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            print(f"training without a CUDA graph, which is slower: {problem}", flush=True)
        finally:
            self._set_capturable(False)  # otherwise plain steps print a warning
            self._restore(before)

    def _weights(self) -> torch.Tensor:
        """Return a copy of all weights as one vector."""
        return torch.cat([weight.detach().flatten() for weight in self.model.parameters()])

    def _losses(self, run: Callable[[torch.Tensor], None], batch: torch.Tensor) -> torch.Tensor:
        """Return the losses (2,) of two consecutive steps on ``batch``."""
        losses = []
        for _ in range(2):
            self.sums.zero_()
            run(batch)
            losses.append(self.sums.flatten()[0].clone())
        return torch.stack(losses)

    def _record(self, batch: torch.Tensor) -> None:
        self.batch = batch.clone()
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        with torch.cuda.graph(graph, stream=self.stream):
            self.step(self.batch)  # recorded, not run
        self.graph = graph

    def _tensors(self) -> list[torch.Tensor]:
        """Return the tensors that a step changes: weights, buffers, optimizer state, sums."""
        values = [value for state in self.optimizer.state.values() for value in state.values()]
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        return [*self.model.state_dict().values(), *tensors, self.sums]

    def _generators(self) -> tuple[torch.Generator, torch.Generator]:
        """Return the generators that a step uses: its own, and the default one for dropout."""
        return self.generator, default_generator(self.generator.device)

    def _state(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return copies of the tensors that a step changes, and its generators' states."""
        tensors = [value.detach().clone() for value in self._tensors()]
        return tensors, [generator.get_state() for generator in self._generators()]

    def _restore(self, state: tuple[list[torch.Tensor], list[torch.Tensor]]) -> None:
        """Copy ``state`` back in place, because the graph refers to tensors by address."""
        tensors, generator_states = state
        with torch.no_grad():
            for value, old in zip(self._tensors(), tensors, strict=True):
                value.copy_(old)
        for generator, old in zip(self._generators(), generator_states, strict=True):
            generator.set_state(old)

    def _set_capturable(self, value: bool) -> None:
        """Set Adam's ``capturable``, which recording needs; the fused step is the same with it."""
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
    """Return ``step``, on a GPU and for at least GRAPH_FROM ``steps`` as a GraphedStep.

    ``size``: of the batches; ``generator``: used by the step in addition to the default generator.
    The environment variable CUDA_GRAPH=0 disables graphs.
    """
    if generator.device.type != "cuda" or steps < GRAPH_FROM:
        return step
    if os.environ.get("CUDA_GRAPH") == "0":
        return step
    return GraphedStep(step, size, model, optimizer, generator, sums)
