"""Read a sweep's runs from a W&B server, with W&B's own public API."""

import functools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from analysis.runs import per_item
from analysis.runs.record import Fetched, FetchError, build_record

TRIES = 4  # of a run, before fetching stops


def fetch_sweep(
    sweep_path: str, known: dict[str, str], files: Path
) -> tuple[set[str], Iterator[Fetched]]:
    """Return the ids that need no reading, and an iterator over the sweep's other runs.

    What a run saved is downloaded to ``files``/<run id>.

    Raises:
        FetchError: when the server or the sweep cannot be reached, also while iterating.
    """
    # Four retries, half a minute: with W&B's default of many the process hangs at its exit.
    os.environ.setdefault("WANDB_X_GRAPHQL_RETRY_MAX", "4")
    import wandb  # takes a second; reading a folder does not need it

    try:
        runs = list(wandb.Api(timeout=120).sweep(sweep_path).runs)
    except Exception as error:  # W&B's client raises many kinds, some of them plain
        raise FetchError(
            f"cannot read the sweep {sweep_path}: {error}. Expected entity/project/sweep_id as "
            "`wandb sweep` prints it, and an account (`wandb login`) that may read it."
        ) from error
    kept = {run.id for run in runs if known.get(run.id) == "/".join(run.path)}
    new = [run for run in runs if run.id not in kept]

    def read() -> Iterator[Fetched]:
        for run in tqdm(new, desc="reading runs", unit="run", disable=None):
            yield _with_retries(functools.partial(_read_run, run, files), run.path)

    return kept, read()


def _read_run(run: Any, files: Path) -> Fetched:
    """Read one run of W&B's public API, with what it saved; its state is read again first."""
    run.load_full_data(force=True)
    rows = [dict(row) for row in run.scan_history() if row]
    exit_code = 0 if run.state == "finished" else None
    source = "/".join(run.path)
    fetched = build_record(
        run.id, run.state, exit_code, source, run.config, dict(run.summary), rows, run.url
    )
    for file in run.files([per_item.SCORES, per_item.OVERLAYS]):
        file.download(root=str(files / run.id), replace=True).close()
    return fetched


def _with_retries(read: Callable[[], Fetched], path: list[str]) -> Fetched:
    """Call ``read`` until it succeeds, after a second, two, four, ... at most TRIES times.

    Raises:
        FetchError: naming the run when the last try fails.
    """
    for again in range(TRIES):
        try:
            return read()
        except FetchError:  # refused: trying again does not help
            raise
        except Exception as error:  # W&B's client raises many kinds, some of them plain
            failure = error
            if again < TRIES - 1:
                time.sleep(2**again)
    raise FetchError(
        f"failed to read {'/'.join(path)} after {TRIES} attempts: {failure}. Runs read so far are "
        "saved; run the command again to continue."
    ) from failure
