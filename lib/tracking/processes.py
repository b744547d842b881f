"""Run the cells of a sweep's grid as processes, which get what W&B's agent would give them."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from lib.spec.command import command_line
from lib.spec.defaults import uses_tracking
from lib.spec.files import FINISHED, write_json
from lib.spec.machine import cores
from lib.spec.sweep import Sweep, SweepError
from lib.spec.words import count
from lib.tracking import finished, offline_file, run_names

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# Environment variable with the file of a dry run's configurations; see wandb_run.start.
DRY_RUN = "LIB_TRACKING_DRY_RUN"
JSON_FILE = "sweep_parameters.json"  # in a run's folder, for ${args_json_file}
STOP_SECONDS = 30  # time that a stopped run has to close its files
# How much of the end of a failed run's log is shown: lines, bytes, characters per line.
LOG_LINES, LOG_BYTES, LINE_LENGTH = 12, 65_536, 500


def run_id(sweep: Sweep, cell: dict[str, Any]) -> str:
    """Return a cell's run id: 8 hexadecimal digits, a hash of the program and the parameters."""
    text = json.dumps([sweep.program, cell], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def environment(
    sweep: Sweep, cell: dict[str, Any], out: Path, slot: int, workers: int, devices: list[str]
) -> dict[str, str]:
    """Return the environment variables of one run: W&B's sweep variables, threads, GPU.

    The cores are shared among the ``workers``, unless the caller has set a number of threads.
    """
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
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(threads),
        "MKL_NUM_THREADS": os.environ.get("MKL_NUM_THREADS") or str(threads),
        "PYTHONUNBUFFERED": "1",
        # Makes `python` in a sweep's command mean this interpreter, with its packages.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    if devices:
        values["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return {k: v for k, v in os.environ.items() if k != DRY_RUN} | values


@contextlib.contextmanager
def runs_lock(out: Path) -> Iterator[tuple[int, ...]]:
    """Wait for runs that a killed agent left in ``out``; yield file descriptors for our own runs.

    Each run inherits the lock with the descriptor and so holds it until it ends, whatever becomes
    of its agent. Where the system has no such locks, nothing is waited for and nothing yielded.
    """
    if fcntl is None:
        yield ()
        return
    path = out / "runs.lock"
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                f"runs that a killed agent started in {out} are still running. Waiting for them to "
                f"end, because two processes must not write one run (`fuser {path}` lists them)",
                flush=True,
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # the file system has no locks
            yield ()
            return
        yield (file.fileno(),)


def run_all(sweep: Sweep, out: Path, workers: int, devices: list[str]) -> list[str]:
    """Run every unfinished cell, ``workers`` at a time; return the ids of the failed runs.

    Scripts that use lib.tracking lock their run's folder themselves. The runs of other scripts are
    kept apart by ``runs_lock``.
    """
    if uses_tracking(Path(sweep.program)):
        return _run_all(sweep, out, workers, devices, ())
    with runs_lock(out) as inherited:
        return _run_all(sweep, out, workers, devices, inherited)


def _run_all(
    sweep: Sweep, out: Path, workers: int, devices: list[str], inherited: tuple[int, ...]
) -> list[str]:
    """Run every unfinished cell; the processes inherit the file descriptors ``inherited``.

    A failed run is reported with the last lines of its log; the other runs continue. On Ctrl-C or
    SIGTERM the agent stops the running processes and waits for them; their checkpoints are kept.
    """
    grid = sweep.grid()
    files = finished.offline_files(out)
    todo = [cell for cell in grid if not is_finished(out / run_id(sweep, cell), files)]
    script = _hash(Path(sweep.program))
    done = [run_id(sweep, cell) for cell in grid if cell not in todo]
    made_by = {i: (finished.read(out / i) or {}).get("program_sha256", script) for i in done}
    if changed := [i for i in done if made_by[i] != script]:
        print(
            f"{sweep.program} has changed since {count(len(changed), 'run')} finished: "
            f"{', '.join(changed)}. Finished runs are kept; to run them again, choose another "
            "folder with --out"
        )
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
                        process = _launch(sweep, cell, values, out, inherited)
                        running[slot] = (process, values["WANDB_RUN_ID"])
                for slot, (process, identifier) in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[slot]
                    code, problem = process.returncode, ""
                    if code == 0:
                        problem = mark_done(out / identifier, cells[identifier], script)
                    if code == 0 and not problem:
                        bar.update()
                    else:
                        failed.append(identifier)
                        log = out / identifier / "log.txt"
                        bar.write(_failure(log, code, problem))
                time.sleep(0.05)
        except BaseException:
            with contextlib.suppress(OSError):  # the terminal may be closed
                bar.write(
                    f"stopping: waiting up to {STOP_SECONDS} s for {count(len(running), 'run')} "
                    "to shut down"
                )
            _stop([process for process, _ in running.values()])
            raise
    return failed


def _hash(program: Path) -> str:
    """Return the SHA-256 of a script; empty if it is no file, as with `-m`."""
    return hashlib.sha256(program.read_bytes()).hexdigest() if program.is_file() else ""


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
        env=values | {DRY_RUN: str(listed.resolve())},
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


def mark_done(folder: Path, cell: dict[str, Any], program_sha256: str = "") -> str:
    """Mark a run that exited with code 0 as finished; return the problem if its file is incomplete.

    The problem is text, empty if there is none. Without a complete W&B file there is nothing to
    analyze, whatever the exit code. A marker that the script has written itself is kept.
    """
    file, marker = offline_file.file_of(folder.parent, folder.name), finished.read(folder)
    if file is None:
        file = _brought_in(folder)
    if marker and "file" in marker:
        file = folder.parent / "wandb" / marker["file"]
    if file is None:
        return (
            f"wrote no W&B file below {folder.parent}. Does the script call wandb.init(), without "
            "`dir=` and `mode=`? The agent sets both in the environment."
        )
    if not offline_file.is_whole(file, patience=offline_file.PATIENCE_S):
        return f"wrote an incomplete W&B file, {file}. Is the disk full?"
    if marker is None:
        finished.write(folder, {}, cell, file, program_sha256)
    return ""


def _brought_in(folder: Path) -> Path | None:
    """Move a run's offline files from ./wandb to the study's folder; return the newest, or None.

    Scripts write to ./wandb if they pass `dir="."` to wandb.init(), as Lightning does by default.
    """
    for place in Path.cwd().glob(f"wandb/offline-run-*-{folder.name}"):
        target = folder.parent / "wandb" / place.name
        target.parent.mkdir(exist_ok=True)
        shutil.move(place, target)
    return offline_file.file_of(folder.parent, folder.name)


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
    sweep: Sweep,
    cell: dict[str, Any],
    values: dict[str, str],
    out: Path,
    inherited: tuple[int, ...],
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
            pass_fds=inherited,
        )


def _stop(processes: list[subprocess.Popen]) -> None:
    """Stop the runs: they have STOP_SECONDS, unless Ctrl-C is pressed again."""
    for process in processes:
        process.terminate()  # not SIGINT: background jobs of a shell ignore it
    deadline = time.monotonic() + STOP_SECONDS
    try:
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        for process in processes:
            if process.poll() is None:
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
