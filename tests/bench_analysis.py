"""Measure the way from tables to report: seconds and peak memory, against reading the tables alone.

    python -m tests.bench_analysis

Prints a JSON line per study size. Nothing is asserted: a clock is no test.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from analysis.grid import load_sweep
from analysis.tables import write_tables

ROOT = Path(__file__).parent.parent  # not conftest's: torch would make this process a large one
EPOCHS = 400
SHAPES = {  # levels of each factor -> seeds
    "2 x 2 x 2 seeds": ([2, 2], 2),
    "2 x 2 x 25 seeds": ([2, 2], 25),
    "2 x 2 x 250 seeds": ([2, 2], 250),
    "5 x 5 x 2 x 2 x 10 seeds": ([5, 5, 2, 2], 10),
}
READ = "import sys, pandas; [pandas.read_csv(path) for path in sys.argv[1:]]"


def write_study(folder: Path, levels: list[int], seeds: int) -> Path:
    """Write a sweep YAML and the tables of its finished runs; return the YAML's path."""
    factors = "".join(
        f"  {'abcd'[i]}: {{values: {list(range(k))}}}\n" for i, k in enumerate(levels)
    )
    (folder / "bench.yaml").write_text(
        "method: grid\nmetric: {name: val/error, goal: minimize}\nparameters:\n" + factors + ""
        f"  seed: {{values: {list(range(seeds))}}}\n  epochs: {{value: {EPOCHS}}}\n"
    )
    sweep = load_sweep(folder / "bench.yaml")
    rng, epochs = np.random.default_rng(0), np.arange(1, EPOCHS + 1)
    runs, history = [], []
    for i, cell in enumerate(sweep.cells):
        for seed in sweep.seeds:
            run, error = f"r{i:03d}s{seed:03d}", 0.1 - 0.002 * cell[0] + rng.normal(0, 0.003)
            curve = error + 0.5 * np.exp(-epochs / 30) + rng.normal(0, 0.002, EPOCHS)
            ends = {"state": "finished", "exit_code": 0, "source": run, "diverged": False}
            scores = {"test/error": error, "test/error_at_best_val": error + 1e-4}
            hashes = {"split_sha256": f"s{seed}", "order_sha256": f"o{seed}", "data_sha256": "d"}
            levels_of = dict(zip(sweep.factors, cell, strict=True))
            row = {"run_id": run, "seed": seed, "epochs": EPOCHS}
            runs.append(row | ends | scores | hashes | levels_of | {"git_commit": "c"})
            columns = {"epoch": epochs, "train/loss": 3 * curve, "train/error": 0.9 * curve}
            columns |= {"val/loss": 3.3 * curve, "val/error": curve, "lr": 0.01, "seconds": 9.5}
            history.append(pd.DataFrame({"run_id": run, **columns, "images_per_second": 3700.0}))
    write_tables(folder / "study", pd.DataFrame(runs), pd.concat(history), list(sweep.factors))
    return folder / "bench.yaml"


def measure(command: list[str]) -> tuple[float, float]:
    """Run a Python command; return its seconds and the most memory it held, in MiB.

    Linux counts what this process held when it started the other: keep it the smaller one.

    Raises:
        RuntimeError: when it fails.
    """
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} ended with exit code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss: bytes there, KiB on Linux
    return time.perf_counter() - start, usage.ru_maxrss * unit / 2**20


def main() -> None:
    """Print seconds, memory and the ratio to reading the tables for each study size."""
    for name, (levels, seeds) in tqdm(SHAPES.items(), unit="study", disable=None):
        with tempfile.TemporaryDirectory() as made:
            with ProcessPoolExecutor(1, get_context("spawn")) as apart:  # its memory is not ours
                sweep = apart.submit(write_study, Path(made), levels, seeds).result()
            study = sweep.with_name("study")
            tables = [str(study / name) for name in ("runs.csv", "history.csv")]
            read, _ = measure(["-c", READ, *tables])
            seconds, peak = measure(["-m", "analysis.report", str(study), "--sweep", str(sweep)])
        line = {"bench": "report", "study": name, "runs": int(np.prod(levels)) * seeds}
        line |= {"epochs": EPOCHS, "seconds": round(seconds, 1), "peak_mib": round(peak)}
        print(json.dumps(line | {"times_reading": round(seconds / read, 1)}), flush=True)


if __name__ == "__main__":
    main()
