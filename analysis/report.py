"""Fetch what is new, check it, test it, and write a study's report.

    python -m analysis.report gtsrb_short              (runs/gtsrb_short, or its committed tables)
    python -m analysis.report runs/mine --sweep mine.yaml --out results/mine
    python -m analysis.report entity/project/sweep_id
    python -m analysis.report entity/project --filter '{"config.algo": "ppo"}' --study mine.yaml

Completeness comes first: with a run missing, repeated, unfinished, shorter than planned or of
another recipe, it lists what is wrong, draws it (incomplete/), writes fill_in_<study>.yaml, a sweep
of the runs to make, and exits with 1. Else it writes results.json, report.md, report.html
(self-contained), tables.tex and figures/ next to the tables.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis import fetch
from analysis.figures import catalogue
from analysis.pages import render
from analysis.runs import data as study_data
from analysis.runs import declared, missing
from analysis.runs.completeness import CHECKS
from analysis.runs.data import StudyData
from analysis.statistics import results as study_results
from lib.spec.errors import UserError, command
from lib.spec.study import Study

REMEDY = """
What to do:
- missing, unfinished or shorter: run the sweep again with the local agent, then this command (a run
  that it counts as finished is repeated when you delete its folder runs/<study>/<run id>); on a W&B
  server `wandb sweep` the fill-in's YAML, run an agent on it, and name both sweeps as sources
- more than one, or no variant of this study: take the wrong run out of the source (its folder
  wandb/offline-run-*-<run id>, or the run on the server) and add --prune; after a change of the
  sweep let the agent write to another --out
- seeds that cannot be run any more: --allow seeds compares the complete pairs; the report says so
- another recipe, data or code, or one run twice: make those runs again, or waive the check with
  --allow and its name"""

INCOMPLETE = "incomplete"  # folder next to the tables with figures of a study that is not complete

STALE = "\nThe report in this folder is of an earlier fetch and stays as it is."


class IncompleteError(UserError):
    """The study lacks runs or has faulty ones; its text is the list."""


def report(study: Study, folder: Path, allow: Sequence[str] = (), draw: bool = True) -> dict:
    """Write the report of the tables in ``folder``; return what results.json holds.

    ``allow``: names of checks to waive; ``draw``: False leaves the figures as they are.

    Raises:
        IncompleteError: listing everything that forbids a comparison.
        UserError: when a table or declaration cannot be used.
    """
    data = study_data.load(study, folder, unequal_seeds="seeds" in allow)
    require_complete(data, allow)
    declared.record(study, folder, data.included)
    results = study_results.analyze(data)
    pictures = catalogue.pictures(data, results)
    shutil.rmtree(folder / INCOMPLETE, ignore_errors=True)
    render.write(data, results, pictures, draw)
    return results


def require_complete(data: StudyData, allow: Sequence[str]) -> None:
    """Raise an IncompleteError unless the study may be compared.

    Writes the sweeps of missing runs and draws what there is; removes those of earlier calls.
    """
    refused = [
        f"{reason}; use --allow {name} to report anyway; the report will say so"
        for name, reason in data.completeness.waivable.items()
        if name not in allow
    ]
    to_run = missing.write(data)
    if not data.completeness.problems and not refused:
        return
    folder = data.folder / INCOMPLETE
    shutil.rmtree(folder, ignore_errors=True)
    for picture in catalogue.of_incomplete(data):
        render.save(folder, picture, {"study": data.study.name, "complete": False})
    lines = "\n  ".join(data.completeness.problems + refused)
    text = f"{data.study.name} is not complete; nothing was tested, no report written:\n  {lines}"
    if to_run:
        text += f"\nA sweep of the missing runs: {', '.join(map(str, to_run))}"
    if more := missing.more_repeats(data):
        text += f"\nRuns to add, started as the others were: {more}"
    text += f"\nWhat there is, drawn: {folder}{REMEDY}"
    raise IncompleteError(text + (STALE if (data.folder / "report.md").exists() else ""))


def allowed_before(folder: Path) -> list[str]:
    """Return the names of the checks that the report in ``folder`` waived; none without one."""
    try:
        found = json.loads((folder / "results.json").read_text())["allowed"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in found or [] if name in CHECKS]


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Fetch what is new, check a study for completeness, test its contrasts, write its report."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    fetch.add_source_arguments(parser)
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        choices=list(CHECKS),
        help="report although this check failed: "
        + "; ".join(f"{name}: {meaning}" for name, meaning in CHECKS.items()),
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="allow what the report in the folder allowed, to write it again from its tables",
    )
    arguments = parser.parse_args(argv)
    asked = fetch.request(arguments)
    study, sources, folder = fetch.resolve(asked)
    if sources and arguments.again:
        parser.error("--again writes a report again from its tables: name their folder as source")
    if sources:
        step = study.declaration.step
        print(fetch.collect(sources, folder, study, asked.prune, asked.filters, step))
    allow = [*arguments.allow, *(allowed_before(folder) if arguments.again else [])]
    results: dict[str, Any] = report(study, folder, allow)
    page = (folder / "report.html").resolve()
    print(f"report: {page}")
    for row in results["contrasts"]:
        print(f"[{row['grade'].replace('_', ' ')}] {row['sentence']}")


if __name__ == "__main__":
    main()
