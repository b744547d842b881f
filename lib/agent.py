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
import itertools
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import filelock

from lib.spec.command import check_command, literal_flags
from lib.spec.declaration import read_declaration
from lib.spec.defaults import config_defaults, uses_tracking
from lib.spec.errors import command
from lib.spec.files import lock_of
from lib.spec.load import not_found
from lib.spec.machine import cores, gpus
from lib.spec.study import NUISANCE_FIELDS, Places
from lib.spec.sweep import Sweep, SweepError, read_sweep, same_value
from lib.spec.words import count
from lib.tracking import finished
from lib.tracking.processes import run_all, run_id

FORBIDDEN = set("/\\#?%:")  # characters that W&B does not allow in project names


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
    paths = [places.sweep(name) for name in pooled or [source]]
    if missing := [str(path) for path in paths if not path.exists()]:
        raise SweepError(not_found(missing, source, places))
    return [load_sweep(path) for path in paths]


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
    words = sweep.raw.get("command") or []
    as_module = any(pair == ("-m", "${program}") for pair in itertools.pairwise(map(str, words)))
    if sweep.program and not as_module and not Path(sweep.program).is_file():
        raise SweepError(
            f"{path}: program {sweep.program!r} not found in {Path.cwd()}. Write the path of a "
            "script relative to the folder in which you start the agent, or an absolute path"
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


def require_same_recipe(sweep: Sweep, out: Path) -> None:
    """Raise a SweepError if finished runs in ``out`` used other defaults than the script has now.

    A run's configuration is the sweep's parameters plus the script's defaults, so a changed default
    makes it a different run. Of scripts that do not use lib.tracking only the parameters are known.
    """
    if not uses_tracking(Path(sweep.program)):
        return
    defaults = config_defaults(Path(sweep.program))
    # Other flags in the command are those of a launcher, such as torchrun's.
    defaults |= {k: v for k, v in literal_flags(sweep).items() if k in defaults}
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
            if key not in used or not (same_value(used[key], value) or str(used[key]) == value)
        ]
        if differ:
            raise SweepError(
                f"run {identifier} in {out} finished with a different recipe than {sweep.program} "
                f"has now: {'; '.join(differ)}. Finished runs are kept. To run the new recipe, "
                f"choose another folder with --out; to complete the old one, set its values in "
                f"{sweep.where}."
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
        soft = isinstance(lock, filelock.SoftFileLock)
        raise SweepError(
            f"another agent is running in {out} (it holds {lock.lock_file}). Wait for it, stop it, "
            "or choose another folder with --out"
            + f". If there is no such agent, remove {lock.lock_file}"
            * soft
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
    for name in ("SIGTERM", "SIGHUP"):  # the second one when a terminal closes
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, _interrupt)
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
    for sweep in sweeps:
        seeded = any("seed" in name.lower() for name in sweep.parameters)
        if not seeded and not Places().declaration(sweep.name).exists():
            print(
                f"{sweep.name} has no parameter with “seed” in its name; without repeated runs, "
                f"differences cannot be tested. See python -m analysis.plan "
                f"{shlex.quote(sweep.where)}"
            )
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
