"""Read a sweep's runs from a W&B server, with W&B's own public API."""

import functools
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from tqdm import tqdm

from analysis.runs import per_item
from analysis.runs.record import Fetched, FetchError, build_record

PART = re.compile(r"[\w.-]+")
ACCOUNT = (
    "Expected entity/project/sweep_id as `wandb sweep` prints it, or entity/project, and an "
    "account (`wandb login`) that may read it."
)
TRIES = 4  # of a run, before fetching stops


@dataclass(frozen=True)
class Address:
    """Where runs are on a server: a sweep, or those of a project that a filter names."""

    entity: str
    project: str
    sweep: str = ""

    @property
    def path(self) -> str:
        """The path as W&B's API takes it."""
        return "/".join(part for part in (self.entity, self.project, self.sweep) if part)


FORMS = "entity/project/sweep_id, entity/project, or the address of either in the browser"


def address(source: str) -> Address:
    """Return where a source's runs are.

    Raises:
        FetchError: when it has another form; says which are accepted.
    """
    path = urlparse(source).path if source.startswith(("http://", "https://")) else source
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if len(parts) == 4 and parts[2] == "sweeps":
        del parts[2]
    if len(parts) == 4 and parts[2] in ("runs", "groups", "reports", "artifacts"):
        raise FetchError(
            f"{source!r} is the address of one of a project's {parts[2]}; give {FORMS}"
        )
    if len(parts) == 3 and parts[2] in ("sweeps", "runs", "workspace", "table", "overview"):
        del parts[2]
    if len(parts) not in (2, 3) or not all(PART.fullmatch(part) for part in parts):
        hint = f"; is it entity/project/{source}?" if len(parts) == 1 else ""
        raise FetchError(
            f"{source!r} is neither a study's name, nor a folder of offline runs, nor {FORMS}{hint}"
        )
    return Address(*parts)


def sweep_config(where: Address) -> dict[str, Any]:
    """Return a sweep's configuration as the server has it.

    Raises:
        FetchError: when the server or the sweep cannot be reached.
    """
    import wandb

    try:
        return dict(wandb.Api(timeout=120).sweep(where.path).config)
    except Exception as error:  # W&B's client raises many kinds, some of them plain
        raise FetchError(f"cannot read the sweep {where.path}: {error}. {ACCOUNT}") from error


def fetch_runs(
    where: Address,
    known: dict[str, str],
    files: Path,
    filters: dict[str, Any] | None = None,
) -> tuple[set[str], Iterator[Fetched]]:
    """Return the ids that need no reading, and an iterator over the other runs there.

    What a run saved is downloaded to ``files``/<run id>. ``filters``: in W&B's own syntax.

    Raises:
        FetchError: when the server or the sweep cannot be reached, also while iterating.
    """
    # Four retries, half a minute: with W&B's default of many the process hangs at its exit.
    os.environ.setdefault("WANDB_X_GRAPHQL_RETRY_MAX", "4")
    os.environ.setdefault("WANDB_X_FILE_TRANSFER_RETRY_MAX", "3")  # else minutes for each file
    import wandb  # takes a second; reading a folder does not need it

    what = "sweep" if where.sweep else "project"
    filters = dict(filters or {}) | ({"sweep": where.sweep} if where.sweep else {})
    try:
        api = wandb.Api(timeout=120)
        if where.sweep and set(filters) == {"sweep"}:
            runs = list(api.sweep(where.path).runs)
        else:
            runs = list(api.runs(f"{where.entity}/{where.project}", filters=filters))
    except Exception as error:  # W&B's client raises many kinds, some of them plain
        raise FetchError(f"cannot read the {what} {where.path}: {error}. {ACCOUNT}") from error
    if not runs:
        with_filter = f" with the filter {json.dumps(filters)}" if filters else ""
        raise FetchError(f"the {what} {where.path} has no runs{with_filter}")
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
        run.id,
        run.state,
        exit_code,
        source,
        run.config,
        run.summary_metrics,  # `summary` hides mappings in a class of its own
        rows,
        run.url,
        str(run.created_at or ""),
    )
    for file in run.files([per_item.SCORES, per_item.OVERLAYS]):
        try:
            file.download(root=str(files / run.id), replace=True).close()
        except Exception as error:  # W&B has tried it several times
            raise FetchError(
                f"failed to download {file.name} of {source}: {error}. Runs read so far are saved; "
                "run the command again to continue."
            ) from error
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
