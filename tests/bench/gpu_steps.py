"""Draw ten training steps on a GPU: when it computes, and when it waits for the next kernel.

    python -m tests.bench.gpu_steps data/GTSRB docs/gpu_steps.png

The steps are those of train_gtsrb.py, once plain and once recorded as a CUDA graph. The profiler
slows the plain steps, which launch more than a hundred kernels each.
"""

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch.profiler import ProfilerActivity, profile

import train_gtsrb
from lib.data import gtsrb
from lib.training import hardware, seeding

STEPS = 10
BATCH = 128
WARM_UP = 50  # steps before the profiler starts: kernels are chosen and the graph is recorded
ON_GPU = {"kernel", "gpu_memcpy", "gpu_memset"}


def record(root: Path, path: Path, recorded: bool) -> None:
    """Write the profiler's trace of ten steps to ``path``."""
    device = torch.device("cuda")
    cfg = train_gtsrb.Config()
    part = gtsrb.load(root).train.to(device)
    model, optimizer, _ = train_gtsrb.build(cfg, 10_000, device)
    generator = seeding.torch_generator(0, "augmentation", device)
    sums = torch.zeros(2, device=device)
    batches = torch.randint(len(part.labels), (64, BATCH)).to(device)
    step = functools.partial(train_gtsrb.train_step, model, optimizer, part, generator, cfg, sums)
    if recorded:
        known = (model, optimizer, generator, sums)
        step = hardware.maybe_cuda_graph(step, BATCH, 10_000, *known)

    def train(steps: int, step: Callable[[torch.Tensor], None]) -> None:
        for i in range(steps):
            step(batches[i % len(batches)])
        torch.cuda.synchronize()

    train(WARM_UP, step)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        train(STEPS, step)
    profiler.export_chrome_trace(str(path))


def busy_times(trace: dict[str, Any]) -> list[tuple[float, float]]:
    """Return start and duration, in ms, of everything that ran on the GPU; the first starts at 0.

    ``trace``: as the profiler exports it, with times in µs.
    """
    events = [event for event in trace["traceEvents"] if event.get("cat") in ON_GPU]
    start = min(event["ts"] for event in events)
    return sorted(((e["ts"] - start) / 1e3, e["dur"] / 1e3) for e in events)


def busy_share(times: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the time from first to last event in ms, and the share of it with any of them."""
    busy = end = 0.0
    for start, duration in times:
        busy += max(0.0, start + duration - max(start, end))
        end = max(end, start + duration)
    return end, busy / end


def draw(traces: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw a panel per trace, on one scale of time."""
    figure, axes = plt.subplots(len(traces), sharex=True, figsize=(7, 2.2), layout="constrained")
    for axis, (name, trace) in zip(axes, traces.items(), strict=True):
        times = busy_times(trace)
        span, share = busy_share(times)
        axis.broken_barh(times, (0, 1), color="#0072B2", linewidth=0)
        axis.set(yticks=[], ylim=(0, 1))
        axis.set_title(
            f"{name}: {span:.1f} ms for {STEPS} steps, {len(times) / STEPS:.0f} kernels and copies "
            f"a step, GPU busy {100 * share:.0f} %",
            fontsize=9,
            loc="left",
        )
    axes[-1].set_xlim(left=0)
    axes[-1].set_xlabel("time (ms); blue: the GPU computes or copies")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Profile ten steps, plain and recorded, and draw when the GPU computes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("root", type=Path, help="folder of traffic signs")
    parser.add_argument("figure", type=Path, help="PNG to write")
    parser.add_argument("--traces", type=Path, default=Path("runs/traces"), help="their folder")
    args = parser.parse_args()
    hardware.prepare()
    args.traces.mkdir(parents=True, exist_ok=True)
    paths = {name: args.traces / f"{name}.json" for name in ("plain", "recorded")}
    for name, path in paths.items():
        record(args.root, path, recorded=name == "recorded")
    draw({name: json.loads(path.read_text()) for name, path in paths.items()}, args.figure)


if __name__ == "__main__":
    main()
