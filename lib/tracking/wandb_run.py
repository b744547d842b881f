"""Start, log, resume and finish a run in W&B; all training scripts use W&B through this module."""

import contextlib
import dataclasses
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import wandb
import yaml
from tqdm import tqdm

from lib.spec.errors import UserError
from lib.spec.files import RUN_ID, locked, remove_leftovers, write_atomically
from lib.spec.load import hashes_of
from lib.spec.sweep import read_sweep
from lib.spec.words import count
from lib.tracking import finished, offline_file, run_names
from lib.tracking.processes import DRY_RUN
from lib.training import config

T = TypeVar("T")


DECLARED = "declared.txt"  # in a run's folder: hashes of its studies' declarations at first start
INTERRUPTED = 255  # exit code that W&B uses for runs ended by Ctrl-C
STOPPING = [name for name in ("SIGTERM", "SIGHUP", "SIGALRM") if hasattr(signal, name)]
# A closed terminal sends SIGHUP, which is handled like SIGTERM.
PREEMPTING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
# Whether SIGHUP was ignored when the process started, as by nohup; it is then ignored by runs too.
NOHUP = hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
SECOND_SIGTERM_S = 2  # a SIGTERM within this many seconds of the first is ignored as a repetition
GRACE_S = 20  # seconds that an epoch may take to finish after SIGTERM, to write a checkpoint


@dataclasses.dataclass
class Run:
    """A run in progress; ``folder`` has its checkpoints, scores and log."""

    id: str
    folder: Path
    wandb_run: Any
    last_logged: int = 0  # last epoch that the server already has; 0 for a new run
    stopped_at: float = 0.0  # time.monotonic() of the first SIGTERM; 0 if there was none
    logged: int = 0  # history rows logged by this process
    dry: bool = False  # dry run: read settings and data, do not train or log

    def resume(self, rows: list[dict[str, float]]) -> None:
        """Log the epochs of a checkpoint, except those that the server already has.

        Without a checkpoint the run restarts and logs all epochs. If the server then has two rows
        of an epoch, the analysis uses the last one.
        """
        if self.last_logged and not rows:
            print(
                f"restarting run {self.id} from epoch 1: the server has "
                f"{count(self.last_logged, 'epoch')} but no checkpoint was found in {self.folder}",
                flush=True,
            )
            self.last_logged = 0
        self.log_epochs([row for row in rows if row["epoch"] > self.last_logged])

    def log_epochs(self, rows: list[dict[str, float]]) -> None:
        """Log history rows; their ``epoch`` counts from 1."""
        for row in rows:
            self.wandb_run.log(row)
            self.logged += 1

    @property
    def stop_requested(self) -> bool:
        """Whether SIGTERM was received, so that the run must save its state and end."""
        return self.stopped_at > 0

    def exit_if_preempted(self) -> None:
        """Raise KeyboardInterrupt, which ends the run, if SIGTERM was received."""
        if self.stop_requested:
            raise KeyboardInterrupt

    def save_arrays(self, file: str, **arrays: Any) -> None:
        """Write named arrays, such as per-image test outputs, to a .npz file and save it to W&B.

        ``arrays``: lists, NumPy arrays, or tensors on any device.
        """
        path = self.folder / file
        arrays = {k: v.cpu() if hasattr(v, "cpu") else v for k, v in arrays.items()}
        write_atomically(path, lambda stream: np.savez_compressed(stream, **arrays))
        # Without glob=False W&B takes the path for a pattern.
        self.wandb_run.save(str(path), base_path=str(self.folder), policy="now", glob=False)

    def summarize(self, summary: Mapping[str, Any]) -> None:
        """Update the run's summary."""
        self.wandb_run.summary.update(dict(summary))

    def log_media(self, images: dict[str, Any]) -> None:
        """Log images (lib/tracking/media.py), by name, as a row of their own."""
        if images:
            self.wandb_run.log(images)


@contextlib.contextmanager
def start(flags: T) -> Iterator[tuple[T, Run]]:
    """Start a W&B run; yield its validated configuration and the Run; finish it after the block.

    ``flags`` is the script's dataclass from the command line. Values that a sweep sets replace
    those of flags; a line is printed for each flag that was given and replaced. Files are written
    to $WANDB_DIR (default runs/), those of this run to its subfolder <run id>. If another process
    runs the same run id, this one waits; a finished run is skipped.

    If DRY_RUN in the environment names a file with the configurations of a sweep's runs, all of
    them are validated and a dry Run is yielded; the script then reads its data and returns.

    Raises:
        SystemExit: with instructions, on every error that the user can fix (a sweep that sets
            invalid values, bad data, no W&B account and no WANDB_MODE=offline), and after Ctrl-C or
            SIGTERM.
    """
    root = Path(os.environ.get("WANDB_DIR") or "runs")
    if root.resolve() == Path.cwd():  # W&B's agent sets it to this folder by default
        root = Path("runs")
    started: list[Run] = []
    _stop_on_sigterm(started)
    run_id = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
    folder = root / run_id
    try:
        if not RUN_ID.fullmatch(run_id):
            raise UserError(
                "WANDB_RUN_ID must be 1 to 128 letters, digits, - or _, because it names a folder, "
                f"got {run_id!r}"
            )
        if cells := os.environ.get(DRY_RUN):
            yield _first_of(flags, Path(cells)), Run(run_id, folder, None, dry=True)
            return
        with locked(folder / "lock", f"waiting: another process is running {run_id}"):
            remove_leftovers(folder)
            if finished.is_kept(folder, finished.offline_files(root)):
                print(f"run {run_id} already finished ({folder}), skipping")
                raise SystemExit(0)
            wandb_run = _init(run_id, root, dataclasses.asdict(flags))
            run = Run(run_id, folder, wandb_run, int(wandb_run.summary.get("epoch", 0)))
            started.append(run)
            try:
                cfg = config.parse(type(flags), dict(wandb_run.config))
                for line in config.overridden(flags, cfg, sys.argv[1:]):
                    print(line, flush=True)
                wandb_run.define_metric("epoch")
                wandb_run.define_metric("*", step_metric="epoch")
                run.summarize(_declared(folder, dataclasses.asdict(cfg)))
                yield cfg, run
                _ignore_signals()
            except KeyboardInterrupt:
                _ignore_signals()
                if run.stopped_at > 0:
                    wandb_run.mark_preempting()  # makes W&B requeue the run
                wandb_run.finish(exit_code=INTERRUPTED)
                message = f"stopped; to resume, run the same command with WANDB_RUN_ID={run_id}"
                raise SystemExit(message) from None
            except BaseException:
                _ignore_signals()
                wandb_run.finish(exit_code=1)
                raise
            summary = wandb_run.summary  # has keys() and [], but not items()
            public = {key: summary[key] for key in summary.keys() if key[0] != "_"}  # noqa: SIM118
            public = {key: v for key, v in public.items() if isinstance(v, str | int | float)}
            file = Path(wandb_run.dir).with_name(f"run-{run_id}.wandb")
            file = file if wandb_run.offline else None
            wandb_run.finish()
            if wandb_run.disabled:
                print(
                    f"run {run_id} ended; W&B is disabled, so its history is not kept; checkpoints "
                    f"are in {folder}",
                    flush=True,
                )
                return
            _require_whole(file, run)
            finished.write(folder, public, dataclasses.asdict(cfg), file)
            tests = [f"{key} {value:.4f}" for key, value in public.items() if key[:5] == "test/"]
            print(f"run {run_id} finished: {', '.join(tests)}; files in {folder}", flush=True)
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
    except ConnectionError as error:  # wandb-core, W&B's background process, was killed
        print(
            f"error: W&B's background process ended ({error!r}). To resume from the last "
            f"checkpoint, run the same command with WANDB_RUN_ID={run_id}",
            file=sys.stderr,
        )
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # W&B's exit handlers would raise the same error
    except KeyboardInterrupt:  # while waiting, inside wandb.init, or while W&B closes its files
        raise SystemExit(
            f"stopped; to start or resume, run the same command with WANDB_RUN_ID={run_id}"
        ) from None


def _require_whole(file: Path | None, run: Run) -> None:
    """Raise a UserError if W&B's offline file is incomplete: on a full disk W&B only logs that."""
    if file is not None and not offline_file.is_whole(file, run.logged, offline_file.PATIENCE_S):
        kept = offline_file.count_records(file)[offline_file.HISTORY]
        raise UserError(
            f"W&B's file {file} is incomplete ({kept} of {count(run.logged, 'history row')}), "
            "or its exit record is missing. Is the disk full? Free some space, then run the same "
            f"command with WANDB_RUN_ID={run.id} to write it again from the checkpoint"
        )


def _first_of(flags: T, cells: Path) -> T:
    """Validate the configurations of all runs in the JSON file ``cells``; return the first.

    Raises:
        ConfigError: listing the problems of all configurations, each once.
    """
    valid, problems = [], {}
    for cell in json.loads(cells.read_text()):
        try:
            valid.append(config.parse(type(flags), dataclasses.asdict(flags) | cell))
        except config.ConfigError as error:
            problems[str(error)] = error
    if problems:
        raise config.ConfigError("\n".join(problems))
    return valid[0]


def _declared(folder: Path, values: dict[str, Any]) -> dict[str, str]:
    """Return a summary entry: hashes of the run's studies as declared when it first started."""
    path = folder / DECLARED
    if not path.exists():
        write_atomically(path, hashes_of(sys.argv[0], values).encode())
    text = path.read_text()
    return {"study_sha256": text} if text else {}


def progress_bar(total: int, done: int) -> tqdm:
    """Return a progress bar over the steps of a run; disabled if stderr is not a terminal."""
    return tqdm(total=total, initial=done, unit="step", dynamic_ncols=True, disable=None)


def show_epoch(bar: tqdm, row: Mapping[str, float], epochs: int, metric: str) -> None:
    """Show epoch and ``metric`` on the bar, or print them if the bar is disabled."""
    text = f"epoch {row['epoch']}/{epochs}, {metric} {row[metric]:.4f}"
    if bar.disable:
        print(
            f"{text}, {row['seconds']:.1f} s, {row['images_per_second']:.0f} images/s", flush=True
        )
    else:
        bar.set_postfix_str(text)


def _init(run_id: str, root: Path, values: dict[str, Any]) -> Any:
    root.mkdir(parents=True, exist_ok=True)
    try:
        if not os.environ.get("WANDB_RUN_ID"):
            os.environ.pop("WANDB_RUN_ID", None)  # W&B refuses an empty one
        given = None if "WANDB_RUN_ID" in os.environ else run_id  # W&B reads the variable itself
        return wandb.init(id=given, dir=str(root), config=values, resume="allow", **_names())
    except wandb.errors.Error as error:
        raise SystemExit(
            f"W&B: {error}\nWithout an account or a network, set WANDB_MODE=offline. All data is "
            f"then written to {root}/ and can be uploaded later with `wandb sync`."
        ) from error


def _names() -> dict[str, str]:
    """Return name, group and job type of a run of `wandb agent`; empty for other runs.

    The sweep is read from the server, because only it knows which parameters vary. The local agent
    sets the names in the environment.
    """
    sweep_id, file = (os.environ.get(f"WANDB_SWEEP_{name}") for name in ("ID", "PARAM_PATH"))
    if sweep_id is None or file is None or "WANDB_RUN_GROUP" in os.environ:
        return {}
    parents = [os.environ.get(f"WANDB_{name}") for name in ("ENTITY", "PROJECT")]
    path = "/".join([part for part in parents if part] + [sweep_id])
    try:
        cell = yaml.safe_load(Path(file).read_text())
        cell = {key: item["value"] for key, item in cell.items() if isinstance(item, dict)}
        config = wandb.Api(timeout=GRACE_S).sweep(path).config
        sweep = read_sweep(config, config.get("name", sweep_id))
        names = run_names.names(sweep.varied, cell, sweep.name)
    except Exception as error:  # a run must not fail because of its name
        print(f"cannot read the sweep {path} ({error!r}); W&B chooses the run's name", flush=True)
        return {}
    return dict(zip(("name", "group", "job_type"), names, strict=True))


def _stop_on_sigterm(started: list[Run]) -> None:
    """Make SIGTERM end the run in ``started`` after its epoch, but at most GRACE_S seconds later.

    Before the run has started, SIGTERM acts like Ctrl-C. A second SIGTERM ends the run immediately,
    unless it comes within SECOND_SIGTERM_S: schedulers and agents often both send the signal.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not started or number not in PREEMPTING:
            raise KeyboardInterrupt
        if started[0].stopped_at == 0:
            started[0].stopped_at = now
            if hasattr(signal, "alarm"):  # not on Windows, where the epoch always finishes
                signal.alarm(GRACE_S)
        elif now > started[0].stopped_at + SECOND_SIGTERM_S:
            raise KeyboardInterrupt

    for name in STOPPING:
        if name != "SIGHUP" or not NOHUP:
            signal.signal(getattr(signal, name), stop)


def _ignore_signals() -> None:
    """Ignore the signals in STOPPING while a run ends, because W&B is closing its files."""
    for name in STOPPING:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
