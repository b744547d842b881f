"""Measure training: the assignment's template pipeline against ours, side by side.

    python -m tests.bench.training [--data data/GTSRB] [--repeats 3]

A JSON line per measurement. What is compared takes turns, each time in a process of its own, whose
peak memory is measured from outside; a line holds medians over the turns, and ratios are of those.
Where there are no real signs, drawn ones are used. Nothing is asserted: a clock is no test.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tests.bench.measuring import measure, processor, say

PRECISIONS = ("float32", "bfloat16")
EPOCH = 39_209  # images of the official training set
SETTLE = 15  # seconds that runs side by side get to load, before all start the clock
FIRST_STEP = """
import os, torch, train_gtsrb as script
step = script.train_step
wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
script.train_step = lambda *arguments: (step(*arguments), wait(), os._exit(0))
script.main()
"""


def case(name: str, data: Path, *options: str, **environment: str) -> dict[str, Any]:
    """Run one case of tests.bench.cases; return what it printed and its ``peak_mib``."""
    command = ["-m", "tests.bench.cases", name, str(data), *options]
    _, peak, output = measure(command, environment)
    return json.loads(output.splitlines()[-1]) | {"peak_mib": peak}


def pipelines(data: Path, repeats: int, cores: int) -> None:
    """Compare the ways to train, turn by turn."""
    counts = sorted({0, 2, 4, cores})
    template = {f"template, {n} workers": ["template", "--workers", str(n)] for n in counts}
    ours = {f"ours, {precision}": ["ours", "--precision", precision] for precision in PRECISIONS}
    turns = {name: [] for name in template | ours}
    jobs = [*(template | ours).items()] * repeats
    for name, (kind, *options) in tqdm(jobs, desc="pipelines", unit="case", disable=None):
        turns[name].append(case(kind, data, *options))
    found = {
        name: {key: statistics.median(turn[key] for turn in taken) for key in taken[0]}
        for name, taken in turns.items()
    }
    best = max(found[name]["images_per_second"] for name in template)
    for name, values in found.items():
        ratio = values["images_per_second"] / best
        say("training", pipeline=name, **values, times_best_template=ratio)


def script(data: Path, repeats: int, on_gpu: bool) -> None:
    """Measure the real script: until its first step, and the memory of a whole run.

    An epoch of a tenth of the images, on a GPU of nine: it wants steps enough for a graph.
    """
    with tempfile.TemporaryDirectory() as folder:
        offline = {"WANDB_MODE": "offline", "WANDB_DIR": folder}
        flags = ["--data", str(data), "--epochs", "1"]
        flags += ["--val-fraction", "0.1" if on_gpu else "0.9"]
        starts = [measure(["-c", FIRST_STEP, *flags], offline)[0] for _ in range(repeats)]
        say("start", seconds=statistics.median(starts))
        for precision in PRECISIONS:
            command = ["train_gtsrb.py", *flags, "--precision", precision]
            say("whole run", precision=precision, peak_mib=measure(command, offline)[1])


def side_by_side(data: Path, on_gpu: bool, cores: int) -> None:
    """Train several runs at a time: on a GPU, or each with its share of the cores."""
    for k in (1, 2, 4, 8) if on_gpu else [k for k in (1, 2, 4) if k <= cores]:
        options = ["--precision", "bfloat16", "--start-at", str(time.time() + SETTLE)]
        threads = str(max(1, cores // k))
        with ThreadPoolExecutor(k) as pool:
            runs = [
                pool.submit(case, "ours", data, *options, OMP_NUM_THREADS=threads) for _ in range(k)
            ]
            rate = sum(run.result()["images_per_second"] for run in runs)
        say("side by side", k=k, images_per_second=rate, epochs_per_hour=3600 * rate / EPOCH)


def main() -> None:
    """Print what was measured, a JSON line each."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/GTSRB"), help="signs")
    parser.add_argument("--repeats", type=int, default=3, help="turns of what is compared")
    arguments = parser.parse_args()
    data, shown = arguments.data.resolve(), str(arguments.data)
    with tempfile.TemporaryDirectory() as drawn:
        if not data.exists():
            print(f"{data} is not there: drawn signs instead", file=sys.stderr)
            data, shown = Path(drawn) / "signs", "drawn signs"
            measure(["-m", "lib.synthetic", str(data)])
        machine = case("machine", data)
        cores, on_gpu = machine["cores"], machine["device"] != "cpu"
        say("machine", processor=processor(), **machine, data=shown)
        pipelines(data, arguments.repeats, cores)
        script(data, arguments.repeats, on_gpu)
        say("other parts", **case("rest", data))
        side_by_side(data, on_gpu, cores)


if __name__ == "__main__":
    main()
