"""Fetch a study's new runs, check them, test the contrasts, and write the report.

    python -m analysis.report gtsrb_short              (runs/gtsrb_short, or its committed tables)
    python -m analysis.report runs/mine --sweep mine.yaml --out results/mine
    python -m analysis.report entity/project/sweep_id
    python -m analysis.report entity/project --filter '{"config.algo": "ppo"}' --study mine.yaml

An incomplete study is not tested: if a run is missing, duplicate, unfinished, too short or has
another recipe, the command lists all problems, draws the available runs (incomplete/), writes
fill_in_<study>.yaml, a sweep of the missing runs, and exits with 1. Otherwise it writes
results.json, report.md, report.html (self-contained), tables.tex and figures/ next to the tables.
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
from analysis.runs import declared, missing
from analysis.runs.collect import collect
from analysis.runs.data import StudyData
from analysis.runs.load import load_data
from analysis.runs.sources import resolve
from analysis.runs.waivable import CHECKS
from analysis.statistics import results as study_results
from lib.spec.errors import UserError, command
from lib.spec.study import Study

REMEDY = """
What to do:
- missing, unfinished or short runs: run the sweep again with the local agent, then this command (to
  rerun a run that the agent skips as finished, delete its folder runs/<study>/<run id>); on a W&B
  server, create a sweep from the fill-in YAML, run an agent on it, and pass both sweeps as sources
- duplicate runs, or runs that match no variant: remove the wrong run from its source (the folder
  wandb/offline-run-*-<run id>, or the run on the server) and add --prune; after changing a sweep,
  start the agent with another --out
- seeds that can no longer be run: --allow seeds compares the complete pairs; the report says so
- variants with different seeds and different numbers of runs: `seed: {repeat: true}` and `free:
  [seed]` in the declaration, with --allow seeds, compare them as unpaired samples
- a combination of factors that was never planned: declare the others as `arms:`, not `factors:`
- runs that were stopped early by a rule that is part of the recipe: --allow epochs
- settings that cannot affect the score, such as folders or names: list them in the declaration,
  `free: [output_dir]`
- fractions in some runs and percentages in others: log one of them (W&B's API can change the
  summary of a finished run; then add --fresh, which reads finished runs again)
- other runs of a project: select the study's runs with --filter, such as '{"sweep": "SWEEP_ID"}' or
  '{"config.task": "circle"}', and add --prune if the others are in the tables already
- runs with another recipe, data or code, or identical runs: rerun them, or waive the check with
  --allow NAME"""

INCOMPLETE = "incomplete"  # folder next to the tables with the figures of an incomplete study

STALE = "\nThe existing report in this folder is from an earlier fetch and was not changed."


class IncompleteError(UserError):
    """The study has missing or faulty runs; the message lists them."""


def report(study: Study, folder: Path, allow: Sequence[str] = (), draw: bool = True) -> dict:
    """Write the report of the tables in ``folder``; return the content of results.json.

    ``allow``: names of checks to waive; ``draw``: False does not redraw the figures.

    Raises:
        IncompleteError: listing all problems that prevent a comparison.
        UserError: when a table or declaration cannot be used.
    """
    data = load_data(study, folder, "seeds" in allow, "epochs" in allow)
    require_complete(data, allow)
    declared.record(study, folder, data.included)
    results = study_results.analyze(data)
    pictures = catalogue.pictures(data, results)
    shutil.rmtree(folder / INCOMPLETE, ignore_errors=True)
    render.write(data, results, pictures, draw)
    return results


def require_complete(data: StudyData, allow: Sequence[str]) -> None:
    """Raise an IncompleteError if the study is incomplete or a failed check is not in ``allow``.

    Always writes the fill-in sweeps of missing runs and removes those of earlier calls. Draws the
    available runs before raising.
    """
    failed_checks = [
        f"{message}; use --allow {name} to report anyway; the report will say so"
        for name, message in data.completeness.waivable.items()
        if name not in allow
    ]
    fill_ins = missing.write(data)
    if not data.completeness.problems and not failed_checks:
        return
    folder = data.folder / INCOMPLETE
    shutil.rmtree(folder, ignore_errors=True)
    for picture in catalogue.of_incomplete(data):
        render.save(folder, picture, {"study": data.study.name, "complete": False})
    lines = "\n  ".join(data.completeness.problems + failed_checks)
    text = f"{data.study.name} is incomplete, so it was not tested or reported:\n  {lines}"
    if fill_ins:
        text += f"\nSweep of the missing runs: {', '.join(map(str, fill_ins))}"
    if more := missing.more_repeats(data):
        text += f"\nRuns to add, started in the same way as the others: {more}"
    text += f"\nFigures of the available runs: {folder}{REMEDY}"
    raise IncompleteError(text + (STALE if (data.folder / "report.md").exists() else ""))


def allowed_before(folder: Path) -> list[str]:
    """Return the checks waived by the report in ``folder``; empty if there is no report."""
    try:
        waived = json.loads((folder / "results.json").read_text())["allowed"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in waived or [] if name in CHECKS]


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Fetch a study's new runs, check them, test the contrasts, and write the report."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    fetch.add_source_arguments(parser)
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        choices=list(CHECKS),
        help="report even if this check fails (may be repeated): "
        + "; ".join(f"{name}: {meaning}" for name, meaning in CHECKS.items()),
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="rewrite the report from its tables, waiving the same checks as before",
    )
    arguments = parser.parse_args(argv)
    asked = fetch.request(arguments)
    is_tables = (Path(asked.sources[0]) / "runs.csv").exists()
    if arguments.again and not is_tables:
        parser.error("--again rewrites a report from its tables; pass their folder as source")
    study, sources, folder = resolve(asked)
    if sources:
        step = study.declaration.step
        fresh = asked.fresh
        print(collect(sources, folder, study, asked.prune, asked.filters, step, fresh=fresh))
    allow = [*arguments.allow, *(allowed_before(folder) if arguments.again else [])]
    results: dict[str, Any] = report(study, folder, allow)
    page = (folder / "report.html").resolve()
    print(f"report: {page}")
    for row in results["contrasts"]:
        print(f"[{row['grade'].replace('_', ' ')}] {row['sentence']}")
        print(*(f"  - {note}\n" for note in row["notes"]), sep="", end="")
    print(results["declaration"])


if __name__ == "__main__":
    main()
