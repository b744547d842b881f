"""Run a W&B grid sweep on this machine: no server, no account, no network.

    python -m lib.agent sweeps/gtsrb_short.yaml [--workers 2] [--out runs/gtsrb_short]

Every run is a process of its own that is given what W&B's agent gives it (sweep id, run id, a
file with the cell's parameters) and writes offline W&B files below the study's folder. A run's id
derives from its cell, so the same command again runs only what is missing or unfinished and
continues from checkpoints. `wandb sync` can send the runs to a server later.
"""

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import filelock
import torch
import yaml
from tqdm import tqdm

from lib.spec.errors import UserError
from lib.tracking import run_names
from lib.tracking.wandb_run import FINISHED
from lib.training.hardware import cores

MACROS = {"${env}", "${interpreter}", "${program}", "python"}
STOP_SECONDS = 30  # a stopped run may take so long to close its files
LOG_LINES = 12  # of a failed run's log are shown


class SweepError(UserError):
    """The sweep YAML is not one that this agent can run; says why and what to do."""


def read_sweep(path: Path) -> dict[str, Any]:
    """Return the parsed sweep YAML.

    Raises:
        SweepError: when it is no grid over listed values, or its program does not exist.
    """
    try:
        sweep = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise SweepError(f"cannot read the sweep {path}: {error}") from error
    if not isinstance(sweep, dict) or not isinstance(sweep.get("parameters"), dict):
        raise SweepError(f"{path} has no `parameters`; see sweeps/gtsrb.yaml for an example")
    if sweep.get("method") != "grid":
        raise SweepError(
            f"{path}: method {sweep.get('method')!r} needs a server to choose the next run; the "
            f"local agent runs `grid` only. Use `wandb sweep {path}` and `wandb agent`."
        )
    if not Path(sweep.get("program", "")).is_file():
        raise SweepError(f"{path}: program {sweep.get('program')!r} not found in {Path.cwd()}")
    if extra := set(map(str, sweep.get("command", []))) - MACROS:
        raise SweepError(
            f"{path}: command holds {', '.join(sorted(extra))}; the local agent runs the program "
            "plainly. Write such settings as parameters with `value:`."
        )
    if ignored := [key for key in ("early_terminate", "run_cap") if key in sweep]:
        raise SweepError(f"{path}: the local agent runs the whole grid, without {ignored[0]}")
    for name, parameter in sweep["parameters"].items():
        if not isinstance(parameter, dict) or not {"value", "values"} & set(parameter):
            raise SweepError(f"{path}: {name} needs `value:` or a list `values:` in a grid")
        values = parameter.get("values", [parameter.get("value")])
        if not isinstance(values, list) or not values:
            raise SweepError(f"{path}: {name} needs a list with a value in it, not {values!r}")
        if not all(isinstance(value, str | int | float) for value in values):
            raise SweepError(f"{path}: {name} may hold text, numbers, true, false; not {values!r}")
    return sweep


def cells(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every combination in W&B's grid order: names sorted, the first varying slowest."""
    parameters = sorted(sweep["parameters"].items())
    levels = [p["values"] if "values" in p else [p["value"]] for _, p in parameters]
    names = [name for name, _ in parameters]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*levels)]


def run_id(sweep: dict[str, Any], cell: dict[str, Any]) -> str:
    """Return the eight hexadecimal digits that stand for a cell of this program."""
    text = json.dumps([sweep["program"], cell], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def environment(
    sweep: dict[str, Any], cell: dict[str, Any], study: str, out: Path, slot: int, workers: int
) -> dict[str, str]:
    """Return the environment of one run: W&B's sweep variables, its share of cores, its GPU."""
    folder = out / run_id(sweep, cell)
    folder.mkdir(parents=True, exist_ok=True)
    parameters = {name: {"value": value} for name, value in cell.items()}
    sweep_file = folder / "sweep_parameters.yaml"
    sweep_file.write_text(yaml.safe_dump({"wandb_version": 1, **parameters}))
    name, group, job_type = run_names.names(sweep["parameters"], cell, study)
    threads = max(1, cores() // workers)
    values = {
        "WANDB_MODE": "offline",
        "WANDB_SWEEP_ID": hashlib.sha256(study.encode()).hexdigest()[:8],
        "WANDB_RUN_ID": run_id(sweep, cell),
        "WANDB_SWEEP_PARAM_PATH": str(sweep_file.resolve()),
        "WANDB_PROJECT": sweep.get("project", study),
        "WANDB_DIR": str(out.resolve()),
        "WANDB_JOB_TYPE": job_type,
        "WANDB_RUN_GROUP": group,
        "WANDB_NAME": name,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
    }
    if devices := gpus():
        values["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return os.environ | values


def gpus() -> list[str]:
    """Return the ids of the GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    ids = [str(i) for i in range(torch.cuda.device_count())]
    return visible.split(",")[: len(ids)] if visible and ids else ids


def run_all(sweep: dict[str, Any], study: str, out: Path, workers: int) -> list[str]:
    """Run every cell that has not finished, ``workers`` at a time; return the failed runs' ids.

    A failed run is reported with the end of its log and does not stop the others. On Ctrl-C or
    SIGTERM the runs in progress are stopped, which keeps their checkpoints, and waited for.
    """
    grid = cells(sweep)
    todo = [cell for cell in grid if not is_finished(out, run_id(sweep, cell))]
    running: dict[int, tuple[subprocess.Popen, str]] = {}
    failed = []
    with tqdm(
        total=len(grid), initial=len(grid) - len(todo), desc=study, unit="run", dynamic_ncols=True
    ) as bar:
        try:
            while todo or running:
                for slot in set(range(workers)) - set(running):
                    if todo:
                        cell = todo.pop(0)
                        values = environment(sweep, cell, study, out, slot, workers)
                        process = _launch(sweep["program"], values, out)
                        running[slot] = (process, values["WANDB_RUN_ID"])
                for slot, (process, identifier) in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[slot]
                    if process.returncode == 0 and (out / identifier / FINISHED).exists():
                        bar.update()
                    else:
                        failed.append(identifier)
                        bar.write(_failure(out / identifier / "log.txt", process.returncode))
                time.sleep(0.1)
        except BaseException:
            bar.write("stopping: the runs in progress keep their checkpoints")
            _stop([process for process, _ in running.values()])
            raise
    return failed


def is_finished(out: Path, identifier: str) -> bool:
    """Say whether a run ended well and its W&B file is there; without the file it is run again."""
    marker = out / identifier / FINISHED
    if marker.exists() and not any(out.glob(f"wandb/offline-run-*-{identifier}/*.wandb")):
        marker.unlink()  # it continues from its last checkpoint: moments
    return marker.exists()


def _launch(program: str, values: dict[str, str], out: Path) -> subprocess.Popen:
    """Start one run in a session of its own: Ctrl-C reaches it through ``_stop`` alone, once."""
    with open(out / values["WANDB_RUN_ID"] / "log.txt", "ab") as log:
        return subprocess.Popen(
            [sys.executable, program],
            env=values,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _stop(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        process.terminate()  # not SIGINT, which a shell's background jobs are deaf to
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def _failure(log: Path, code: int) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
    return f"run {log.parent.name} FAILED (exit code {code}); the end of {log}:\n" + "\n".join(
        f"    {line}" for line in lines
    )


@contextlib.contextmanager
def study_lock(out: Path) -> Iterator[None]:
    """Hold the study's folder for this agent.

    Raises:
        SweepError: when another agent works on it.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(out / "agent.lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout as error:
        raise SweepError(
            f"another agent works on {out}; wait for it, stop it, or give another folder with --out"
        ) from error
    try:
        yield
    finally:
        lock.release()


def main() -> None:
    """Run a W&B grid sweep on this machine, offline; again: continue what is missing."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("sweep", type=Path, help="sweep YAML with method: grid")
    parser.add_argument(
        "--workers", type=int, help="runs at a time (default: one per GPU, else per core up to 4)"
    )
    parser.add_argument(
        "--out", type=Path, help="the study's folder (default: runs/<sweep's name>)"
    )
    arguments = parser.parse_args()
    study = arguments.sweep.stem
    out = arguments.out or Path("runs") / study
    workers = arguments.workers
    if workers is None:
        workers = len(gpus()) or min(cores(), 4)
    if workers < 1:
        parser.error(f"--workers {workers}: at least 1")
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        sweep = read_sweep(arguments.sweep)
        with study_lock(out):
            failed = run_all(sweep, study, out, workers)
    except (SweepError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit(f"stopped; the same command continues {out}") from None
    total = len(cells(sweep))
    print(f"{total - len(failed)} of {total} runs finished in {out}")
    if failed:
        raise SystemExit(f"{len(failed)} failed: {', '.join(failed)}; the same command tries again")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
