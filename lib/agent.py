"""Run a W&B grid sweep on this machine: no server, no account, no network.

    python -m lib.agent gtsrb_short [--workers 2] [--out runs/gtsrb_short]
    python -m lib.agent sweeps/gtsrb_short.yaml

Each run is a separate process. It gets what W&B's agent would give it (the sweep's command line,
sweep id, run id, a file with the variant's parameters) and writes offline W&B files to the study's
folder. A run's id is a hash of its parameters, so running the command again starts only the runs
that are missing or unfinished. Scripts that use lib.tracking resume from checkpoints. They are
started once as a dry run before the sweep, so that a misspelled setting or missing data is
reported once and not by every run. Any other script that calls wandb.init() can be run too: exit
code 0 means that the run finished, and an unfinished run restarts from the beginning.
`wandb sync` can upload the runs later.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shlex
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

FORBIDDEN = set("/\\#?%:")  # characters that W&B does not allow in project names
JSON_FILE = "sweep_parameters.json"  # in a run's folder, for ${args_json_file}
STOP_SECONDS = 30  # time that a stopped run has to close its files
# How much of the end of a failed run's log is shown: lines, bytes, characters per line.
LOG_LINES, LOG_BYTES, LINE_LENGTH = 12, 65_536, 500


def load_sweeps(source: str) -> list[Sweep]:
    """Return the sweeps of a study (several if it pools sweeps) or the one sweep of a YAML file.

    Raises:
        SweepError: if this agent cannot run one of them.
    """
    if source.endswith((".yaml", ".yml")):
        return [load_sweep(Path(source))]
    places = Places()
    declaration = places.declaration(source)
    pooled = read_declaration(declaration).sweeps if declaration.exists() else None
    return [load_sweep(places.sweep(name)) for name in pooled or [source]]


def load_sweep(path: Path) -> Sweep:
    """Return the sweep of a YAML file after checking that this agent can run it.

    Raises:
        SweepError: if the method is not grid, the program or command cannot be run, or the sweep
            needs W&B's server.
    """
    sweep = read_sweep(path)
    sweep.require_grid("the local agent")
    sweep.require_clear()
    check_command(sweep)
    if sweep.program and not Path(sweep.program).is_file():
        raise SweepError(
            f"{path}: program {sweep.program!r} not found in {Path.cwd()}. Write the path of a "
            "script relative to this folder"
        )
    project = sweep.raw.get("project") or sweep.name
    if not isinstance(project, str) or len(project) > 128 or FORBIDDEN & set(project):
        raise SweepError(
            f"{path}: W&B does not accept the project name {project!r}. A project name is a string "
            f"of at most 128 characters, none of them {' '.join(sorted(FORBIDDEN))}. Set another "
            "`project:` in the sweep."
        )
    if ignored := [key for key in ("early_terminate", "run_cap") if key in sweep.raw]:
        raise SweepError(
            f"{path}: the local agent does not support {ignored[0]}: it runs the whole grid. "
            "Remove the key, or use `wandb sweep` and `wandb agent`"
        )
    return sweep


def run_id(sweep: Sweep, cell: dict[str, Any]) -> str:
    """Return a cell's run id: 8 hexadecimal digits, a hash of the program and the parameters."""
    text = json.dumps([sweep.program, cell], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def environment(
    sweep: Sweep, cell: dict[str, Any], out: Path, slot: int, workers: int, devices: list[str]
) -> dict[str, str]:
    """Return the environment variables of one run: W&B's sweep variables, threads, GPU."""
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
        # Makes `python` in a sweep's command mean this interpreter, with its packages.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    if devices:
        values["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return os.environ | values


def require_same_recipe(sweep: Sweep, out: Path) -> None:
    """Raise a SweepError if finished runs in ``out`` used other defaults than the script has now.

    A run's configuration is the sweep's parameters plus the script's defaults, so a changed default
    makes it a different run.
    """
    defaults = config_defaults(Path(sweep.program))
    for cell in sweep.grid():
        identifier = run_id(sweep, cell)
        done = finished.read(out / identifier)
        if done is None:
            continue
        planned = defaults | cell
        used = done["config"]
        differ = [
            f"{key} was {used[key]!r}, is now {value!r}" if key in used else f"{key} is new"
            for key, value in planned.items()
            if used and key not in NUISANCE_FIELDS
            if key not in used or not same_value(used[key], value)
        ]
        if differ:
            raise SweepError(
                f"run {identifier} in {out} finished with a different recipe than {sweep.program} "
                f"has now: {'; '.join(differ)}. Finished runs are kept. To run the new recipe, "
                f"choose another folder with --out; to complete the old one, set its values in "
                f"{sweep.where}."
            )


def run_all(sweep: Sweep, out: Path, workers: int, devices: list[str]) -> list[str]:
    """Run every unfinished cell, ``workers`` at a time; return the ids of the failed runs.

    A failed run is reported with the last lines of its log; the other runs continue. On Ctrl-C or
    SIGTERM the agent stops the running processes and waits for them; their checkpoints are kept.
    """
    grid = sweep.grid()
    files = finished.offline_files(out)
    todo = [cell for cell in grid if not is_finished(out / run_id(sweep, cell), files)]
    if todo and uses_tracking(Path(sweep.program)):
        dry_run(sweep, todo, out)
    elif restarted := [i for c in todo if (out / (i := run_id(sweep, c)) / "log.txt").exists()]:
        print(
            f"restarting {count(len(restarted), 'unfinished run')} from the beginning: "
            f"{', '.join(restarted)} ({sweep.program} does not use lib.tracking, so the agent "
            "knows of no checkpoints)"
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
                    code, problem = process.returncode, ""
                    if code == 0:
                        problem = mark_done(out / identifier, cells[identifier])
                    if code == 0 and not problem:
                        bar.update()
                    else:
                        failed.append(identifier)
                        log = out / identifier / "log.txt"
                        bar.write(_failure(log, code, problem))
                time.sleep(0.05)
        except BaseException:
            bar.write(
                f"stopping: waiting up to {STOP_SECONDS} s for {count(len(running), 'run')} "
                "to shut down"
            )
            _stop([process for process, _ in running.values()])
            raise
    return failed


def dry_run(sweep: Sweep, cells: list[dict[str, Any]], out: Path) -> None:
    """Start the script once to check every cell's settings and the first cell's data.

    Raises:
        SweepError: with the end of the script's output, if it fails.
    """
    values = environment(sweep, cells[0], out, 0, 1, [])
    folder = out / values["WANDB_RUN_ID"]
    listed = folder / "cells.json"
    listed.write_text(json.dumps(cells))
    done = subprocess.run(
        command_line(sweep, cells[0], folder / JSON_FILE),
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
        raise SweepError(
            f"{sweep.where}: no run was started, because the dry run of {sweep.program} failed:\n"
            f"{lines}"
        )


def mark_done(folder: Path, cell: dict[str, Any]) -> str:
    """Mark a run that exited with code 0 as finished; return the problem if its file is incomplete.

    The problem is text, empty if there is none. Without a complete W&B file there is nothing to
    analyze, whatever the exit code. A marker that the script has written itself is kept.
    """
    file = offline_file.file_of(folder.parent, folder.name)
    if file is None:
        return "wrote no W&B file. Does the script call wandb.init()?"
    if not offline_file.is_whole(file, patience=offline_file.PATIENCE_S):
        return f"wrote an incomplete W&B file, {file}. Is the disk full?"
    if finished.read(folder) is None:
        finished.write(folder, {}, cell, file)
    return ""


def is_finished(folder: Path, files: finished.Files) -> bool:
    """Return whether a run finished and its W&B file is intact; if not, remove its marker.

    Without the marker the run is started again. A script with checkpoints then resumes from the
    last one, which takes a moment.
    """
    if folder.name in files and finished.is_kept(folder, files):
        return True
    (folder / FINISHED).unlink(missing_ok=True)
    return False


def _launch(
    sweep: Sweep, cell: dict[str, Any], values: dict[str, str], out: Path
) -> subprocess.Popen:
    """Start one run in a new session, so that Ctrl-C does not reach it; ``_stop`` stops it."""
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
        process.terminate()  # not SIGINT: background jobs of a shell ignore it
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _failure(log: Path, code: int, problem: str) -> str:
    """Return the message about a failed run, with the last lines of its log."""
    if code == 0:
        return f"run {log.parent.name} exited with code 0 but {problem} Its output is in {log}"
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_BYTES))
        lines = file.read().decode(errors="replace").splitlines()[-LOG_LINES:]
    lines = [line[-LINE_LENGTH:] for line in lines]
    return f"run {log.parent.name} FAILED (exit code {code}); last lines of {log}:\n" + "\n".join(
        f"    {line}" for line in lines
    )


@contextlib.contextmanager
def study_lock(out: Path) -> Iterator[None]:
    """Lock the study's folder, so that only one agent at a time runs in it.

    Raises:
        SweepError: if another agent is running in it.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock = lock_of(out / "agent.lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout as error:
        raise SweepError(
            f"another agent is running in {out} (it holds {lock.lock_file}). Wait for it, stop it, "
            "or choose another folder with --out"
        ) from error
    try:
        yield
    finally:
        lock.release()


@command
def main() -> None:
    """Run a W&B grid sweep on this machine, offline; run the command again to resume."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("sweep", help="name of a study, or path of a sweep YAML (method: grid)")
    parser.add_argument(
        "--workers",
        type=int,
        help="number of runs at a time (default: one per GPU; without a GPU one per core, up to 4)",
    )
    parser.add_argument(
        "--out", type=Path, help="folder for the runs (default: runs/<name of the sweep>)"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    sweeps, devices = load_sweeps(arguments.sweep), gpus()
    if arguments.out and len(sweeps) > 1:
        parser.error(
            f"--out {arguments.out}: the study {arguments.sweep} has {len(sweeps)} sweeps, each "
            "with its own folder. Run it without --out"
        )
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
                failed_here = run_all(sweep, out, workers, devices)
        except KeyboardInterrupt:
            raise SystemExit(f"stopped; run the same command again to continue {out}") from None
        total = len(sweep.grid())
        print(f"{total - len(failed_here)} of {count(total, 'run')} finished in {out}")
        failed += failed_here
    if failed:
        raise SystemExit(
            f"{count(len(failed), 'run')} failed: {', '.join(failed)}; run the same command again "
            "to retry"
        )
    if not sweeps[0].name.startswith("fill_in_"):  # reported with the study that it completes
        if not Places().declaration(sweeps[0].name).exists():
            print("if the study has a declaration, add --study with its path to this command:")
        print(f"next: {report_command(arguments.sweep, sweeps[0], arguments.out)}")


def report_command(source: str, sweep: Sweep, out: Path | None) -> str:
    """Return the shell command that reports the runs of ``sweep``, for the current folder.

    ``source`` and ``out`` are what the agent was given. A report goes to analysis/results only for
    a study that was run by name into its default folder and is not a demo.
    """
    folder = out or Path("runs") / sweep.name
    if out or source.endswith((".yaml", ".yml")):
        words = [
            str(folder),
            "--sweep",
            _from_here(Path(sweep.where)),
            "--out",
            folder / "analysis",
        ]
    elif source.startswith("demo_"):
        words = [source, "--out", folder / "analysis"]
    else:
        words = [source]
    python = _from_here(Path(sys.executable))
    python = "python" if Path(python).is_absolute() else python
    return shlex.join([python, "-m", "analysis.report", *map(str, words)])


def _from_here(path: Path) -> str:
    """Return ``path`` relative to the current folder if it lies below it, else unchanged."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
