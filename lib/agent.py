"""Run a W&B grid sweep on this machine: no server, no account, no network.

    python -m lib.agent gtsrb_short [--workers 2] [--out runs/gtsrb_short]
    python -m lib.agent sweeps/gtsrb_short.yaml

Every run is a process of its own that is given what W&B's agent gives it (the sweep's command line,
sweep id, run id, a file with the variant's parameters) and writes offline W&B files below the
study's folder. A run's id derives from its parameters, so the same command again runs only what is
missing or unfinished. Scripts that use lib.tracking resume from checkpoints, and are first run
dry, so that a misspelt setting or missing data fails once; any other script that calls
wandb.init() can be run too: it has finished when its exit code is 0, and an unfinished run starts
again. `wandb sync` can send the runs to a server later.
"""

import argparse
import contextlib
import hashlib
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
import yaml
from tqdm import tqdm

from lib.spec.command import check_command, command_line
from lib.spec.declaration import read_declaration
from lib.spec.defaults import config_defaults, uses_tracking
from lib.spec.errors import command
from lib.spec.files import FINISHED, lock_of, write_json
from lib.spec.machine import cores, gpus
from lib.spec.metric import count
from lib.spec.study import NUISANCE_FIELDS, Places
from lib.spec.sweep import Sweep, SweepError, read_sweep, same_value
from lib.tracking import finished, offline_file, run_names

REFUSED = set("/\\#?%:")  # letters that W&B's project names cannot have
JSON_FILE = "sweep_parameters.json"  # in a run's folder, for ${args_json_file}
STOP_SECONDS = 30  # a stopped run may take so long to close its files
LOG_LINES = 12  # of a failed run's log are shown
LOG_BYTES, LOG_LETTERS = 65_536, 500  # its end, and the end of each line


def load_sweeps(source: str) -> list[Sweep]:
    """Return the sweeps of a study's name, several where it pools some, or the one of a YAML file.

    Raises:
        SweepError: when this agent cannot run one of them.
    """
    if source.endswith((".yaml", ".yml")):
        return [load_sweep(Path(source))]
    places = Places()
    declaration = places.declaration(source)
    pooled = read_declaration(declaration).sweeps if declaration.exists() else None
    return [load_sweep(places.sweep(name)) for name in pooled or [source]]


def load_sweep(path: Path) -> Sweep:
    """Return the sweep of a YAML file, if this agent can run it.

    Raises:
        SweepError: when it is no grid, its program or command cannot be run, or it needs W&B's
            server.
    """
    sweep = read_sweep(path)
    sweep.require_grid("the local agent")
    sweep.require_clear()
    check_command(sweep)
    if sweep.program and not Path(sweep.program).is_file():
        raise SweepError(f"{path}: program {sweep.program!r} not found in {Path.cwd()}")
    project = sweep.raw.get("project") or sweep.name
    if not isinstance(project, str) or len(project) > 128 or REFUSED & set(project):
        raise SweepError(
            f"{path}: W&B refuses the project name {project!r}: at most 128 letters, none of "
            f"{' '.join(sorted(REFUSED))}. Write another `project:` into the sweep."
        )
    if ignored := [key for key in ("early_terminate", "run_cap") if key in sweep.raw]:
        raise SweepError(f"{path}: the local agent runs the whole grid, without {ignored[0]}")
    return sweep


def run_id(sweep: Sweep, cell: dict[str, Any]) -> str:
    """Return the eight hexadecimal digits that stand for a cell of this program's grid."""
    text = json.dumps([sweep.program, cell], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def environment(
    sweep: Sweep, cell: dict[str, Any], out: Path, slot: int, workers: int, devices: list[str]
) -> dict[str, str]:
    """Return the environment of one run: W&B's sweep variables, its share of cores, its GPU."""
    folder = out / run_id(sweep, cell)
    folder.mkdir(parents=True, exist_ok=True)
    parameters = {name: {"value": value} for name, value in sweep.nested(cell).items()}
    sweep_file = folder / "sweep_parameters.yaml"
    sweep_file.write_text(yaml.safe_dump({"wandb_version": 1, **parameters}))
    name, group, job_type = run_names.names(sweep.varied, cell, sweep.name)
    threads = max(1, cores() // workers)
    values = {
        "WANDB_MODE": "offline",
        "WANDB_SWEEP_ID": hashlib.sha256(sweep.name.encode()).hexdigest()[:8],
        "WANDB_RUN_ID": run_id(sweep, cell),
        "WANDB_SWEEP_PARAM_PATH": str(sweep_file.resolve()),
        "WANDB_PROJECT": sweep.raw.get("project") or sweep.name,
        "WANDB_DIR": str(out.resolve()),
        "WANDB_JOB_TYPE": job_type,
        "WANDB_RUN_GROUP": group,
        "WANDB_NAME": name,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
        # So that a command's plain `python` is this one, with its packages.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    if devices:
        values["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return os.environ | values


def require_same_recipe(sweep: Sweep, out: Path) -> None:
    """Raise a SweepError when finished runs in ``out`` used other defaults than the script has.

    A run's configuration is what the sweep sets and the script's defaults; a default that has
    changed since makes it another run.
    """
    defaults = config_defaults(Path(sweep.program))
    for cell in sweep.grid():
        identifier = run_id(sweep, cell)
        done = finished.read(out / identifier)
        if done is None:
            continue
        planned = defaults | cell
        known = done["config"]
        differ = [
            f"{key} was {known[key]!r}, is {value!r}" if key in known else f"{key} is new"
            for key, value in planned.items()
            if known and key not in NUISANCE_FIELDS
            if key not in known or not same_value(known[key], value)
        ]
        if differ:
            raise SweepError(
                f"run {identifier} in {out} finished with another recipe than {sweep.program} has "
                f"now: {'; '.join(differ)}. Finished runs are kept. To run the new recipe, give "
                f"another folder with --out; to complete the old one, set its values in "
                f"{sweep.where}."
            )


def run_all(sweep: Sweep, out: Path, workers: int, devices: list[str]) -> list[str]:
    """Run every cell that has not finished, ``workers`` at a time; return the failed runs' ids.

    A failed run is reported with the end of its log and does not stop the others. On Ctrl-C or
    SIGTERM the runs in progress are stopped, which keeps their checkpoints, and waited for.
    """
    grid = sweep.grid()
    files = finished.offline_files(out)
    todo = [cell for cell in grid if not is_finished(out / run_id(sweep, cell), files)]
    if todo and uses_tracking(Path(sweep.program)):
        dry_run(sweep, todo, out)
    elif again := [i for c in todo if (out / (i := run_id(sweep, c)) / "log.txt").exists()]:
        print(
            f"{count(len(again), 'run')} did not finish and {sweep.program} keeps no checkpoints "
            f"that the agent knows of: starting again: {', '.join(again)}"
        )
    cells = {run_id(sweep, cell): cell for cell in todo}
    running: dict[int, tuple[subprocess.Popen, str]] = {}
    failed = []
    with tqdm(
        total=len(grid),
        initial=len(grid) - len(todo),
        desc=sweep.name,
        unit="run",
        dynamic_ncols=True,
    ) as bar:
        try:
            while todo or running:
                for slot in set(range(workers)) - set(running):
                    if todo:
                        cell = todo.pop(0)
                        values = environment(sweep, cell, out, slot, workers, devices)
                        process = _launch(sweep, cell, values, out)
                        running[slot] = (process, values["WANDB_RUN_ID"])
                for slot, (process, identifier) in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[slot]
                    code, lacks = process.returncode, ""
                    if code == 0:
                        lacks = mark_done(out / identifier, cells[identifier])
                    if code == 0 and not lacks:
                        bar.update()
                    else:
                        failed.append(identifier)
                        log = out / identifier / "log.txt"
                        bar.write(_failure(log, code, lacks))
                time.sleep(0.05)
        except BaseException:
            bar.write(
                f"stopping: waiting up to {STOP_SECONDS} s for {count(len(running), 'run')} "
                "to keep what they have"
            )
            _stop([process for process, _ in running.values()])
            raise
    return failed


def dry_run(sweep: Sweep, cells: list[dict[str, Any]], out: Path) -> None:
    """Let the script read every cell's settings and the first one's data, without training.

    Raises:
        SweepError: with the script's own words, when it refuses them.
    """
    values = environment(sweep, cells[0], out, 0, 1, [])
    folder = out / values["WANDB_RUN_ID"]
    listed = folder / "cells.json"
    listed.write_text(json.dumps(cells))
    words = command_line(sweep, cells[0], folder / JSON_FILE)
    done = subprocess.run(
        words,
        env=values | {"DRY_RUN": str(listed.resolve())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    listed.unlink()
    if done.returncode:
        lines = "\n".join(f"    {line}" for line in done.stdout.splitlines()[-LOG_LINES:])
        raise SweepError(f"{sweep.where}: no run was started, since {sweep.program} says:\n{lines}")


def mark_done(folder: Path, cell: dict[str, Any]) -> str:
    """Mark a run that ended with exit code 0 as finished, unless its script did so itself.

    Returns what its W&B file lacks, in words, or nothing: without a whole file there is nothing to
    analyze, whatever the exit code says.
    """
    file = offline_file.file_of(folder.parent, folder.name)
    if file is None:
        return "left no W&B file; does the script call wandb.init()?"
    if not offline_file.is_whole(file, patience=offline_file.PATIENCE_S):
        return f"left an incomplete W&B file, {file}; is the disk full?"
    if finished.read(folder) is None:
        finished.write(folder, {}, cell, file)
    return ""


def is_finished(folder: Path, files: finished.Files) -> bool:
    """Say whether a run ended well and its W&B file is there as it was; else it is run again.

    A run of ours then resumes from its last checkpoint, which takes moments.
    """
    if folder.name in files and finished.is_kept(folder, files):
        return True
    (folder / FINISHED).unlink(missing_ok=True)
    return False


def _launch(
    sweep: Sweep, cell: dict[str, Any], values: dict[str, str], out: Path
) -> subprocess.Popen:
    """Start one run in a session of its own: Ctrl-C reaches it through ``_stop`` alone, once."""
    folder = out / values["WANDB_RUN_ID"]
    write_json(folder / JSON_FILE, sweep.nested(cell))
    with open(folder / "log.txt", "ab") as log:
        return subprocess.Popen(
            command_line(sweep, cell, (folder / JSON_FILE).resolve()),
            env=values,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _stop(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        process.terminate()  # not SIGINT, which a shell's background jobs ignore
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _failure(log: Path, code: int, lacks: str) -> str:
    if code == 0:
        return f"run {log.parent.name} ended with exit code 0 but {lacks} Its output is in {log}"
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_BYTES))
        lines = file.read().decode(errors="replace").splitlines()[-LOG_LINES:]
    lines = [line[-LOG_LETTERS:] for line in lines]
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
    lock = lock_of(out / "agent.lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout as error:
        raise SweepError(
            f"another agent works on {out} (it holds {lock.lock_file}); wait for it, stop it, or "
            "give another folder with --out"
        ) from error
    try:
        yield
    finally:
        lock.release()


@command
def main() -> None:
    """Run a W&B grid sweep on this machine, offline; run again to complete what is missing."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("sweep", help="a study's name, or a sweep YAML with method: grid")
    parser.add_argument(
        "--workers", type=int, help="runs at a time (default: one per GPU, else per core up to 4)"
    )
    parser.add_argument(
        "--out", type=Path, help="the study's folder (default: runs/<sweep's name>)"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    sweeps, devices = load_sweeps(arguments.sweep), gpus()
    if arguments.out and len(sweeps) > 1:
        parser.error(f"--out: {arguments.sweep} has {len(sweeps)} sweeps, each with its own folder")
    workers = arguments.workers
    if workers is None:
        workers = len(devices) or min(cores(), 4)
    if workers < 1:
        parser.error(f"--workers {workers}: must be at least 1")
    failed = []
    for sweep in sweeps:
        out = arguments.out or Path("runs") / sweep.name
        try:
            with study_lock(out):
                require_same_recipe(sweep, out)
                lost = run_all(sweep, out, workers, devices)
        except KeyboardInterrupt:
            raise SystemExit(f"stopped; run the same command again to continue {out}") from None
        total = len(sweep.grid())
        print(f"{total - len(lost)} of {count(total, 'run')} finished in {out}")
        failed += lost
    if failed:
        raise SystemExit(
            f"{count(len(failed), 'run')} failed: {', '.join(failed)}; run the same command again "
            "to retry"
        )
    if not arguments.sweep.endswith((".yaml", ".yml")):
        print(f"next: python -m analysis.report {arguments.sweep}")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
