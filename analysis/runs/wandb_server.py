"""Read the runs of a sweep or project from a W&B server, with W&B's public API."""

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

PART = re.compile(r"[^/\\#?%:]+")  # all that W&B allows in names
ACCOUNT = (
    "Pass entity/project/sweep_id, as printed by `wandb sweep`, or entity/project, and log in "
    "(`wandb login`) with an account that can read it."
)
TRIES = 4  # attempts to read a run before fetching stops


@dataclass(frozen=True)
class Address:
    """The address of a sweep or project on a W&B server."""

    entity: str
    project: str
    sweep: str = ""

    @property
    def path(self) -> str:
        """The path for W&B's API: entity/project or entity/project/sweep_id."""
        return "/".join(part for part in (self.entity, self.project, self.sweep) if part)


FORMS = "entity/project/sweep_id, entity/project, or the URL of either"


def address(source: str) -> Address:
    """Return the address of a source: a path or URL of a sweep or project.

    Raises:
        FetchError: when it has another form; the message lists the accepted forms.
    """
    url = f"https://{source}" if re.match(r"(?:[\w-]+\.)*wandb\.ai/", source) else source
    path = urlparse(url).path if url.startswith(("http://", "https://")) else source
    if path == source and (source[:1] in "/.~" or Path(source.partition("/")[0]).is_dir()):
        raise FetchError(f"folder {source} not found; for a W&B project of that name, pass its URL")
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if len(parts) == 5 and parts[2] == "sweeps":
        parts.pop()  # a tab of the sweep's page
    if len(parts) == 4 and parts[2] == "sweeps":
        del parts[2]
    if len(parts) in (4, 5) and parts[2] in ("runs", "groups", "reports", "artifacts"):
        raise FetchError(f"{source!r} is the URL of a project's {parts[2]}; pass {FORMS}")
    if len(parts) == 3 and parts[2] in ("sweeps", "runs", "workspace", "table", "overview"):
        del parts[2]
    if len(parts) not in (2, 3) or not all(PART.fullmatch(part) for part in parts):
        alone = len(parts) == 1 and "://" not in source
        hint = f". Did you mean entity/project/{source}?" if alone else ""
        raise FetchError(
            f"source must be a study's name, a folder of offline runs, {FORMS}, got "
            f"{source!r}{hint}"
        )
    return Address(*parts)


def sweep_config(where: Address) -> dict[str, Any]:
    """Return a sweep's configuration, read from the server.

    Raises:
        FetchError: when the server or the sweep cannot be reached.
    """
    import wandb

    try:
        return dict(wandb.Api(timeout=120).sweep(where.path).config)
    except Exception as error:  # W&B's client also raises plain exceptions
        raise FetchError(f"cannot read the sweep {where.path}: {error}. {ACCOUNT}") from error


def fetch_runs(
    where: Address,
    known: dict[str, str],
    files: Path,
    filters: dict[str, Any] | None = None,
) -> tuple[set[str], Iterator[Fetched]]:
    """Return the ids of runs already in the tables, and an iterator over the other runs.

    ``known``: the source of each run in the tables, by run id. ``filters``: in W&B's syntax. Output
    files of runs are downloaded to ``files``/<run id>.

    Raises:
        FetchError: when the server, sweep or a run cannot be read, also while iterating.
    """
    # Four retries take half a minute; with W&B's default, the process would hang when it exits.
    os.environ.setdefault("WANDB_X_GRAPHQL_RETRY_MAX", "4")
    os.environ.setdefault("WANDB_X_FILE_TRANSFER_RETRY_MAX", "3")  # default: minutes per file
    import wandb  # takes a second, and folders can be read without it

    what = "sweep" if where.sweep else "project"
    filters = dict(filters or {}) | ({"sweep": where.sweep} if where.sweep else {})
    try:
        api = wandb.Api(timeout=120)
        if where.sweep and set(filters) == {"sweep"}:
            runs = list(api.sweep(where.path).runs)
        else:
            runs = list(api.runs(f"{where.entity}/{where.project}", filters=filters))
        searches = _searches(runs)
    except Exception as error:  # W&B's client also raises plain exceptions
        raise FetchError(f"cannot read the {what} {where.path}: {error}. {ACCOUNT}") from error
    if not runs:
        others = {key: value for key, value in filters.items() if key != "sweep"}
        with_filter = f" with the filter {json.dumps(others)}" if others else ""
        raise FetchError(f"no runs in the {what} {where.path}{with_filter}")
    if searches:
        _refuse_searches(where, searches, filters)
    kept = {r.id for r in runs if known.get(r.id) == "/".join(r.path) and r.state == "finished"}
    new = [run for run in runs if run.id not in kept]

    def read() -> Iterator[Fetched]:
        for run in tqdm(new, desc="reading runs", unit="run", disable=None):
            yield _with_retries(functools.partial(_read_run, run, files), run.path)

    return kept, read()


def _searches(runs: list[Any]) -> dict[str, str]:
    """Return the runs' sweeps in which earlier scores choose or stop the runs: id -> setting."""
    found, one_of_each = {}, {run.sweep_name: run for run in runs if run.sweep_name}
    for name, run in one_of_each.items():
        config = run.sweep.config if run.sweep else {}
        if config.get("method") in ("bayes", "custom"):
            found[name] = f"method: {config['method']}"
        elif "early_terminate" in config:
            found[name] = "early_terminate"
    return found


def _refuse_searches(where: Address, searches: dict[str, str], filters: dict[str, Any]) -> None:
    """Raise a FetchError about sweeps whose runs depend on earlier scores, if it must be raised.

    A grid of its own with ``early_terminate`` is refused where its configuration is read, so a
    sweep's YAML without it can take its place.
    """
    if where.sweep and "early_terminate" in searches.values():
        return
    shown = ", ".join(f"{name} (`{setting}`)" for name, setting in sorted(searches.items()))
    if where.sweep:
        advice = "To compare the settings that it found, run a grid of them with seeds"
    else:
        own = filters.get("sweep", {})
        own = own if isinstance(own, dict) else {"$in": [own]}
        without = json.dumps(filters | {"sweep": own | {"$nin": sorted(searches)}})
        advice = f"Leave them out with --filter '{without}', or pass the path of one sweep"
    raise FetchError(
        f"{where.path}: earlier scores decide which runs of a sweep exist or how long they are, so "
        f"they cannot be compared: {shown}. {advice}"
    )


def _read_run(run: Any, files: Path) -> Fetched:
    """Read a run, with its output files, after refreshing its state from the server."""
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
        run.summary_metrics,  # `summary` wraps mappings in another class
        rows,
        run.url,
        str(run.created_at or ""),
        run.group,
        run.job_type,
    )
    for file in run.files([per_item.SCORES, per_item.OVERLAYS]):
        try:
            file.download(root=str(files / run.id), replace=True).close()
        except Exception as error:  # raised after W&B's own retries
            raise FetchError(
                f"failed to download {file.name} of {source}: {error}. Runs read so far are saved; "
                "run the command again to continue."
            ) from error
    return fetched


def _with_retries(read: Callable[[], Fetched], path: list[str]) -> Fetched:
    """Call ``read`` up to TRIES times, with waits of 1, 2, 4, ... seconds after failures.

    Raises:
        FetchError: when the last attempt fails, or at once if ``read`` raises it.
    """
    for attempt in range(TRIES):
        try:
            return read()
        except FetchError:  # invalid content: retrying does not help
            raise
        except Exception as error:  # W&B's client also raises plain exceptions
            failure = error
            if attempt < TRIES - 1:
                time.sleep(2**attempt)
    raise FetchError(
        f"failed to read {'/'.join(path)} after {TRIES} attempts: {failure}. Runs read so far are "
        "saved; run the command again to continue."
    ) from failure
