"""The training side's one door to W&B: a run's configuration in, its history and summary out."""

import contextlib
import dataclasses
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import wandb
import yaml
from tqdm import tqdm

from lib.spec.errors import UserError
from lib.spec.files import locked, remove_leftovers, write_atomically
from lib.spec.metric import count
from lib.spec.study import hashes_of
from lib.spec.sweep import read_sweep
from lib.tracking import finished, offline_file, run_names
from lib.training import config

T = TypeVar("T")

DECLARED = "declared.txt"  # in a run's folder: hashes of its studies' declarations at its start
INTERRUPTED = 255  # exit code that W&B gives a run that Ctrl-C ended
STOPPING = [name for name in ("SIGTERM", "SIGHUP", "SIGALRM") if hasattr(signal, name)]
# A terminal that is closed sends SIGHUP; it is taken as SIGTERM.
PREEMPTING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
SECOND_SIGTERM_S = 2  # seconds after which another SIGTERM is meant
GRACE_S = 20  # seconds that an epoch may still take after SIGTERM, so that it gets its checkpoint


@dataclasses.dataclass
class Run:
    """A run in progress: its id, its folder (checkpoints, scores, log), and where results go."""

    id: str
    folder: Path
    wandb_run: Any
    last_logged: int = 0  # epoch; above 0 when the server already has this run's first epochs
    stopped_at: float = 0.0  # when SIGTERM came, of time.monotonic(); 0: it did not
    log_pictures: bool = False  # pictures of the test results go to W&B
    logged: int = 0  # history rows that were logged in this process
    dry: bool = False  # only settings and data are read, nothing is trained or logged

    def resume(self, rows: list[dict[str, float]]) -> None:
        """Log the epochs of a checkpoint, except those that the server already has.

        Without a checkpoint the run restarts, and all of it is logged: of an epoch that is there
        twice, the last row counts.
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
        """Log history rows; ``epoch`` counts from 1."""
        for row in rows:
            self.wandb_run.log(row)
            self.logged += 1

    @property
    def stop_requested(self) -> bool:
        """Whether SIGTERM came: the run is to keep its state and end."""
        return self.stopped_at > 0

    def exit_if_preempted(self) -> None:
        """End the run here, as Ctrl-C does, when SIGTERM came."""
        if self.stop_requested:
            raise KeyboardInterrupt

    def save_arrays(self, file: str, **arrays: Any) -> None:
        """Write named arrays, such as per-image test outputs, to a .npz and hand it to W&B.

        Lists, NumPy arrays, or tensors on any device.
        """
        path = self.folder / file
        arrays = {k: v.cpu() if hasattr(v, "cpu") else v for k, v in arrays.items()}
        write_atomically(path, lambda stream: np.savez_compressed(stream, **arrays))
        self.wandb_run.save(str(path), base_path=str(self.folder), policy="now")

    def summarize(self, summary: Mapping[str, Any]) -> None:
        """Set the run's summary."""
        self.wandb_run.summary.update(dict(summary))

    def log_media(self, panels: Callable[..., dict[str, Any]], *results: Any) -> None:
        """Log what ``panels`` (lib/tracking/media.py) makes of the test results, if asked for."""
        if self.log_pictures and (shown := panels(*results)):
            self.wandb_run.log(shown)


@contextlib.contextmanager
def start(flags: T) -> Iterator[tuple[T, Run]]:
    """Begin a W&B run; give its checked configuration and the Run; end it when the block ends.

    ``flags`` is the script's dataclass from the command line; values that a sweep sets replace its
    own, with a line for each that was given. Files go to $WANDB_DIR (default runs/), this run's
    own to the folder of its id in it. With $DRY_RUN, a file with the configurations of a sweep's
    runs, each of them is checked and a dry Run given: the script then reads its data and returns.
    A run with the same id in another process is waited for; one that is finished is not repeated.

    Raises:
        SystemExit: with what to do, on anything the user can mend: a sweep that sets what the
            dataclass does not allow, bad data, no W&B account while WANDB_MODE does not say
            offline; and after Ctrl-C or SIGTERM, with how to continue.
    """
    root = Path(os.environ.get("WANDB_DIR") or "runs")
    if root.resolve() == Path.cwd():  # as W&B's agent sets it when nobody did
        root = Path("runs")
    started: list[Run] = []
    _stop_on_sigterm(started)
    run_id = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
    folder = root / run_id
    try:
        if "DRY_RUN" in os.environ:
            yield _first_of(flags, Path(os.environ["DRY_RUN"])), Run(run_id, folder, None, dry=True)
            return
        with locked(folder / "lock", f"waiting: another process works on run {run_id}"):
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
                run.log_pictures = cfg.media
                run.summarize(_declared(folder, dataclasses.asdict(cfg)))
                yield cfg, run
                _ignore_signals()
            except KeyboardInterrupt:
                _ignore_signals()
                if run.stopped_at > 0:
                    wandb_run.mark_preempting()  # W&B then hands the run out again
                wandb_run.finish(exit_code=INTERRUPTED)
                message = f"stopped; WANDB_RUN_ID={run_id} and the same command continue it"
                raise SystemExit(message) from None
            except BaseException:
                _ignore_signals()
                wandb_run.finish(exit_code=1)
                raise
            summary = wandb_run.summary  # offers keys() and [], not items()
            public = {key: summary[key] for key in summary.keys() if key[0] != "_"}  # noqa: SIM118
            public = {key: v for key, v in public.items() if isinstance(v, str | int | float)}
            offline = wandb_run.offline
            wandb_run.finish()
            file = offline_file.file_of(root, run_id) if offline else None
            _require_whole(file, run)
            finished.write(folder, public, dataclasses.asdict(cfg), file)
            tests = [f"{key} {value:.4f}" for key, value in public.items() if key[:5] == "test/"]
            print(f"run {run_id} finished: {', '.join(tests)}; see {folder}", flush=True)
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
    except ConnectionError as error:  # wandb-core, W&B's own process, was killed
        print(
            f"error: W&B's process ended ({error!r}); WANDB_RUN_ID={run_id} and the same command "
            "continue the run from its last checkpoint",
            file=sys.stderr,
        )
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # W&B's own end would only raise the same again
    except KeyboardInterrupt:  # while waiting, or inside wandb.init
        raise SystemExit(f"stopped before run {run_id} began; the same command starts it") from None


def _require_whole(file: Path | None, run: Run) -> None:
    """Raise a UserError when W&B's offline file lacks rows: on a full disk W&B only logs that."""
    if file is not None and not offline_file.is_whole(file, run.logged, offline_file.PATIENCE_S):
        kept = offline_file.count_records(file)[offline_file.HISTORY]
        raise UserError(
            f"W&B's file {file} has {kept} of {count(run.logged, 'history row')}, or no end: is "
            f"the disk full? Free some space; then WANDB_RUN_ID={run.id} and the same command "
            "write it again from the checkpoint"
        )


def _first_of(flags: T, cells: Path) -> T:
    """Check the configurations of all runs in a file; return the first.

    Raises:
        ConfigError: listing the faults of all of them, each once.
    """
    checked, faults = [], {}
    for cell in json.loads(cells.read_text()):
        try:
            checked.append(config.parse(type(flags), dataclasses.asdict(flags) | cell))
        except config.ConfigError as error:
            faults[str(error)] = error
    if faults:
        raise config.ConfigError("\n".join(faults))
    return checked[0]


def _declared(folder: Path, values: dict[str, Any]) -> dict[str, str]:
    """Return the hashes of the run's studies as they were declared when it first started."""
    path = folder / DECLARED
    if not path.exists():
        write_atomically(path, hashes_of(sys.argv[0], values).encode())
    text = path.read_text()
    return {"study_sha256": text} if text else {}


def progress_bar(total: int, done: int) -> tqdm:
    """Return a bar over the steps of a run with the time left; silent when not on a terminal."""
    return tqdm(total=total, initial=done, unit="step", dynamic_ncols=True, disable=None)


def show_epoch(bar: tqdm, row: Mapping[str, float], epochs: int, metric: str) -> None:
    """Show epoch and validation metric on the bar, or as a line where there is no terminal."""
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
        given = None if "WANDB_RUN_ID" in os.environ else run_id  # W&B reads that one by itself
        return wandb.init(id=given, dir=str(root), config=values, resume="allow", **_names())
    except wandb.errors.Error as error:
        raise SystemExit(
            f"W&B: {error}\nWithout account or network set WANDB_MODE=offline: everything is then "
            f"kept in {root}/ and can be sent later with `wandb sync`."
        ) from error


def _names() -> dict[str, str]:
    """Return the W&B names of a run that `wandb agent` started; the local agent sets them itself.

    Only the server knows which of a cell's parameters vary in its sweep.
    """
    sweep_id, file = (os.environ.get(f"WANDB_SWEEP_{name}") for name in ("ID", "PARAM_PATH"))
    if sweep_id is None or file is None or "WANDB_RUN_GROUP" in os.environ:
        return {}
    place = [os.environ.get(f"WANDB_{name}") for name in ("ENTITY", "PROJECT")]
    path = "/".join([part for part in place if part] + [sweep_id])
    try:
        cell = yaml.safe_load(Path(file).read_text())
        cell = {key: item["value"] for key, item in cell.items() if isinstance(item, dict)}
        config = wandb.Api(timeout=GRACE_S).sweep(path).config
        sweep = read_sweep(config, config.get("name", sweep_id))
        names = run_names.names(sweep.varied, cell, sweep.name)
    except Exception as error:  # of many kinds; the run is worth more than its name
        print(f"cannot read the sweep {path} ({error!r}): W&B names this run", flush=True)
        return {}
    return dict(zip(("name", "group", "job_type"), names, strict=True))


def _stop_on_sigterm(started: list[Run]) -> None:
    """Let SIGTERM end the run in ``started`` after its epoch, at most GRACE_S seconds later.

    Before there is a run, it ends the process as Ctrl-C does. The same signal often comes twice at
    once (a scheduler, an agent that passes it on); one that comes later ends the run at once.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not started or number not in PREEMPTING:
            raise KeyboardInterrupt
        if started[0].stopped_at == 0:
            started[0].stopped_at = now
            if hasattr(signal, "alarm"):  # Windows has none: there an epoch may take its time
                signal.alarm(GRACE_S)
        elif now > started[0].stopped_at + SECOND_SIGTERM_S:
            raise KeyboardInterrupt

    for name in STOPPING:
        signal.signal(getattr(signal, name), stop)


def _ignore_signals() -> None:
    """Let nothing disturb the end of a run: W&B's files are being closed."""
    for name in STOPPING:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
