r"""Collect a study's runs into tables: runs.csv, history.csv and test_images.csv.

    python -m analysis.fetch gtsrb_short
    python -m analysis.fetch entity/project/sweep_id
    python -m analysis.fetch entity/project --filter '{"config.algo": "ppo"}' --study mine.yaml

runs.csv has one row per run, history.csv one row per run and epoch, and test_images.csv one row per
test item and a column per run. A source is one of:

- a study's name (its runs are in runs/<name>) or a folder of offline runs;
- a sweep or project on a W&B server, as a path or as its URL; --filter or --group selects runs;
- CSV exports of the W&B app: the runs table, and charts for curves.

Several sources, such as a sweep and its fill-in sweep, are read as one study. Without --sweep or a
local YAML of the same name, a sweep's configuration is read from the server. For runs without a
sweep, the levels of the declared factors are collected from the runs' configurations and written to
sweep.yaml next to the tables. Runs that are finished in the existing tables are not read again,
except with --fresh. Output files of runs (.npz) are copied to files/ next to the tables.

`python -m analysis.report` runs the same steps before it writes a report.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.runs.collect import collect
from analysis.runs.record import FetchError
from analysis.runs.sources import Request, resolve
from lib.spec.errors import command


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Collect a study's runs into runs.csv, history.csv and test_images.csv."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    add_source_arguments(parser)
    asked = request(parser.parse_args(argv))
    study, sources, out = resolve(asked)
    if sources:
        step = study.declaration.step
        print(collect(sources, out, study, asked.prune, asked.filters, step, fresh=asked.fresh))


def request(arguments: argparse.Namespace) -> Request:
    """Return the parsed arguments as a ``Request``.

    Raises:
        FetchError: when --filter is not a JSON object.
    """
    filters: Any = {}
    if arguments.filter:
        try:
            filters = json.loads(arguments.filter)
        except ValueError as error:
            filters = error
        if not isinstance(filters, dict):
            raise FetchError(
                f"--filter must be a JSON object in the syntax of W&B's API, such as "
                f'{{"config.algo": "ppo"}}, got {arguments.filter!r}'
            )
    if arguments.group:
        filters = filters | {"group": arguments.group}
    return Request(
        arguments.sources,
        arguments.sweep,
        arguments.declaration,
        arguments.out,
        filters,
        arguments.prune,
        arguments.fresh,
    )


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that fetch and report share: sources, filters and paths."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="source",
        help="a study's name, a folder of offline runs, entity/project/sweep_id, entity/project, "
        "the URL of either, or CSV exports of the W&B app; several sources are read as one study",
    )
    parser.add_argument(
        "--filter", help="select runs of a project or folder, as JSON in W&B's syntax"
    )
    parser.add_argument("--group", help="select the runs of this W&B group (not in exports)")
    parser.add_argument(
        "--sweep",
        type=Path,
        help="the sweep's YAML (default: sweeps/<name of the source>.yaml; else the server's, or "
        "what the runs have of the declared factors)",
    )
    parser.add_argument(
        "--study",
        dest="declaration",
        type=Path,
        help="the YAML of the declaration (default: analysis/studies/<name>.yaml)",
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="remove finished runs from the tables if they are no longer in any source",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="read finished runs again, for example after correcting their config on the server",
    )
    parser.add_argument(
        "--out", type=Path, help="folder for tables and report (default: analysis/results/<name>)"
    )


if __name__ == "__main__":
    main()
