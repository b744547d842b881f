"""Measure the way from offline runs to tables and from tables to report: seconds and peak memory.

    python -m tests.bench.analysis

Prints a JSON line per step and size of study; reports against reading the tables alone. Nothing is
asserted: a clock is no test.
"""

import itertools
import json
import os
import tempfile
import zlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from analysis.runs.tables import runs_table, write_tables
from lib.spec.files import FINISHED
from lib.spec.sweep import read_sweep
from lib.tracking import processes
from tests import factories
from tests.bench.measuring import measure, say

EPOCHS = 400
SHAPES = {  # levels of each factor -> seeds
    "2 × 5 seeds = 10": ([2], 5),
    "2 × 2 × 25 seeds = 100": ([2, 2], 25),
    "2 × 2 × 250 seeds = 1,000": ([2, 2], 250),
}
ONE_RUN = """
import sys, wandb
epochs, folder = int(sys.argv[1]), sys.argv[2]
with wandb.init(mode="offline", dir=folder, project="bench", config={"a": 0, "seed": 0}) as run:
    for epoch in range(1, epochs + 1):
        names = ("train/loss", "train/error", "val/loss", "val/error", "lr", "seconds")
        run.log({"epoch": epoch} | {name: 1 / epoch for name in names})
    run.summary.update({"test/error": 0.1, "diverged": False})
"""
# Somebody's script: a nested configuration, simulator steps, keys of its own. SEED and SCORE have
# fixed widths, so that copies of its file can be given others.
SEED, SCORE = 100_000, 123.456789
FOREIGN_RUN = """
import sys, wandb
steps, folder, seed, score = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
config = {"model": {"algo": "a"}, "seed": seed, "total_timesteps": 1000 * steps}
with wandb.init(mode="offline", dir=folder, project="bench", config=config) as run:
    for step in range(1, steps + 1):
        names = ("charts/SPS", "losses/value_loss", "losses/policy_loss", "charts/episodic_return")
        run.log({"global_step": 1000 * step} | {name: step / 7 for name in names})
    run.summary["eval/return"] = score
"""
BLOCK, HEAD = 32_768, 7  # bytes of a block of W&B's file, of the file's and of each record's head
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
    study = factories.study(folder / "bench.yaml")
    rng, epochs = np.random.default_rng(0), np.arange(1, EPOCHS + 1)
    runs, history = [], []
    for i, variant in enumerate(study.variants):
        for seed in study.seeds:
            run, error = f"r{i:03d}s{seed:03d}", 0.1 - 0.002 * variant[0] + rng.normal(0, 0.003)
            curve = error + 0.5 * np.exp(-epochs / 30) + rng.normal(0, 0.002, EPOCHS)
            summary = {"test/error": error, "test/error_at_best_val": error + 1e-4}
            summary |= {"diverged": False, "data_sha256": "d", "git_commit": "c"}
            summary |= {"split_sha256": f"s{seed}", "order_sha256": f"o{seed}"}
            config = study.configs[variant] | {"seed": seed, "epochs": EPOCHS}
            runs.append(factories.run_row(run, config, summary))
            columns = {"epoch": epochs, "train/loss": 3 * curve, "train/error": 0.9 * curve}
            columns |= {"val/loss": 3.3 * curve, "val/error": curve, "lr": 0.01, "seconds": 9.5}
            history.append(pd.DataFrame({"run_id": run, **columns, "images_per_second": 3700.0}))
    write_tables(folder / "study", runs_table(runs), pd.concat(history))
    return folder / "bench.yaml"


def write_offline_runs(folder: Path, runs: int) -> None:
    """Write ``runs`` folders of offline W&B files: one real run, linked under other names."""
    for i in range(runs):
        name = f"{i:08x}"
        place = folder / "wandb" / f"offline-run-20260101_000000-{name}"
        place.mkdir(parents=True)
        os.link(next(folder.glob("one/wandb/offline-run-*/*.wandb")), place / f"run-{name}.wandb")


def patched(data: bytes, changes: dict[bytes, bytes]) -> bytes:
    """Return a W&B file with bytes replaced by as many others, and its checksums made right."""
    file, at = bytearray(data), HEAD
    while at + HEAD <= len(file):
        if (left := BLOCK - at % BLOCK) < HEAD:
            at += left
            continue
        end = at + HEAD + int.from_bytes(file[at + 4 : at + 6], "little")
        record = bytes(file[at + HEAD : end])
        for old, new in changes.items():
            record = record.replace(old, new)
        file[at + HEAD : end] = record
        file[at : at + 4] = zlib.crc32(record, zlib.crc32(file[at + 6 : at + 7])).to_bytes(
            4, "little"
        )
        at = end
    return bytes(file)


def write_foreign_project(folder: Path, seeds: int) -> None:
    """Write offline files of 2 variants × ``seeds``, its sweep and its declaration."""
    (folder / "one").mkdir()
    measure(["-c", FOREIGN_RUN, str(EPOCHS), str(folder / "one"), str(SEED), str(SCORE)])
    one = next(folder.glob("one/wandb/offline-run-*/*.wandb")).read_bytes()
    rng = np.random.default_rng(0)
    for i, (algo, seed) in enumerate(itertools.product("ab", range(SEED, SEED + seeds))):
        score = f"{SCORE + (algo == 'b') + rng.normal():.6f}"
        changes = {b'"algo":"a"': b'"algo":"%s"' % algo.encode()}
        changes |= {str(SEED).encode(): str(seed).encode(), str(SCORE).encode(): score.encode()}
        place = folder / "runs" / "wandb" / f"offline-run-20260101_000000-{i:08x}"
        place.mkdir(parents=True)
        (place / f"run-{i:08x}.wandb").write_bytes(patched(one, changes))
    (folder / "sweep.yaml").write_text(
        "method: grid\nmetric: {name: eval/return, goal: maximize}\nparameters:\n"
        "  model:\n    parameters: {algo: {values: [a, b]}}\n"
        f"  seed: {{min: {SEED}, max: {SEED + seeds - 1}}}\n"
    )


def foreign() -> None:
    """Measure the way from a foreign project's offline files to its report, and from its tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_foreign_project(folder, 500)
        words = ["--sweep", str(folder / "sweep.yaml"), "--out", str(folder / "out")]
        for source in ("runs", "out"):
            command = ["-m", "analysis.report", str(folder / source), *words]
            seconds, peak, _ = measure(command)
            what = "files" if source == "runs" else "tables"
            say("foreign", of=what, runs=1000, epochs=EPOCHS, seconds=seconds, peak_mib=peak)


def agent() -> None:
    """Measure how long the local agent takes to look over finished runs, and to start."""
    runs = 10_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sweep = folder / "s.yaml"
        sweep.write_text(
            "program: tests/fakes/stub.py\nmethod: grid\nproject: p\n"
            f"parameters: {{seed: {{min: 0, max: {runs - 1}}}}}\n"
        )
        plan = read_sweep(sweep)
        for cell in plan.grid():
            run = processes.run_id(plan, cell)
            place = folder / "out" / "wandb" / f"offline-run-20260101_000000-{run}"
            place.mkdir(parents=True)
            file = place / f"run-{run}.wandb"
            file.write_bytes(b"x")
            (folder / "out" / run).mkdir()
            marker = {"summary": {}, "config": {}, "file": f"{place.name}/run-{run}.wandb"}
            text = json.dumps(marker | {"bytes": 1, "written_ns": file.stat().st_mtime_ns})
            (folder / "out" / run / FINISHED).write_text(text)
        command = ["-m", "lib.agent", str(sweep), "--out", str(folder / "out")]
        seconds, peak, _ = measure(command)
        start, *_ = measure(["-m", "lib.agent", "--help"])
    say("agent", runs=runs, seconds=seconds, start=start, peak_mib=peak)


def fetch() -> None:
    """Measure `analysis.fetch` from a folder of offline runs."""
    for runs in (10, 100, 1000):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "one").mkdir()
            measure(["-c", ONE_RUN, str(EPOCHS), str(folder / "one")])
            write_offline_runs(folder, runs)
            (folder / "bench.yaml").write_text(
                "method: grid\nmetric: {name: val/error, goal: minimize}\n"
                "parameters:\n  a: {values: [0, 1]}\n  seed: {values: [0, 1]}\n"
            )
            out = ["--sweep", str(folder / "bench.yaml"), "--out", str(folder / "tables")]
            seconds, peak, _ = measure(["-m", "analysis.fetch", name, *out])
        say("fetch", runs=runs, epochs=EPOCHS, seconds=seconds, peak_mib=peak)


def report() -> None:
    """Measure `analysis.report` from tables."""
    for name, (levels, seeds) in tqdm(SHAPES.items(), unit="study", disable=None):
        with tempfile.TemporaryDirectory() as made:
            with ProcessPoolExecutor(1, get_context("spawn")) as apart:  # its memory is not ours
                sweep = apart.submit(write_study, Path(made), levels, seeds).result()
            study = sweep.with_name("study")
            read, *_ = measure(
                ["-c", READ, *(str(study / f"{t}.csv") for t in ("runs", "history"))]
            )
            command = ["-m", "analysis.report", str(study), "--sweep", str(sweep)]
            seconds, peak, _ = measure(command)
        values = {"runs": int(np.prod(levels)) * seeds, "epochs": EPOCHS, "seconds": seconds}
        say("report", study=name, **values, peak_mib=peak, times_reading=seconds / read)


if __name__ == "__main__":
    fetch()
    report()
    foreign()
    agent()
