"""Publish a study's sentences, tables and curves as a W&B Report, next to its runs in the app.

    pip install wandb-workspaces
    python -m analysis.wandb_report entity/project/sweep_id gtsrb

Run `analysis.report` first: text and numbers are taken from results.json in the study's folder. The
curves are W&B line plots of the sweep's runs, one line per variant.
"""

import argparse
from pathlib import Path
from typing import Any

from analysis.readme import all_tables, read_results, sentences
from analysis.runs.sources import SWEEP
from analysis.runs.tables import read_tables
from analysis.runs.waivable import is_clock
from lib.spec.errors import UserError, command
from lib.spec.load import load_study
from lib.spec.study import Places, Study


class ReportError(UserError):
    """The report cannot be created or saved; the message says why and what to do."""


def build(
    path: str, results: dict[str, Any], study: Study, curves: list[str], axis: str = "epoch"
) -> Any:
    """Return the unsaved Report for the sweep ``path`` (entity/project/sweep_id).

    ``curves``: the metrics to plot over ``axis``, a line per W&B group.

    Raises:
        ReportError: when the path has another form, or wandb-workspaces is not installed.
    """
    if path.count("/") != 2:
        raise ReportError(f"path must be entity/project/sweep_id, got {path!r}")
    try:
        import wandb_workspaces.reports.v2 as wr
    except ImportError as error:
        raise ReportError(f"{error}; install it with: pip install wandb-workspaces") from error
    entity, project, sweep_id = path.split("/")
    runs = wr.Runset(
        entity=entity,
        project=project,
        name=results["study"],
        filters=f"Sweep = '{sweep_id}'",
        groupby=["group"],
    )
    panels = [wr.LinePlot(x=axis, y=[name], title=name) for name in curves]
    text = f"{study.declaration.question}\n\n{sentences(results)}\n\n{all_tables(results, study)}"
    return wr.Report(
        entity=entity,
        project=project,
        title=f"{results['study']}: results",
        blocks=[wr.MarkdownBlock(text=text), wr.PanelGrid(runsets=[runs], panels=panels)],
    )


@command
def main() -> None:
    """Create a W&B Report of a study and save it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("path", help="entity/project/sweep_id, as `wandb sweep` prints it")
    parser.add_argument("study", help="a study's name, or the folder of its report")
    parser.add_argument("--sweep", type=Path, help="the sweep's YAML (default: found by name)")
    parser.add_argument(
        "--study",
        dest="declaration",
        type=Path,
        help="the YAML of the declaration (default: analysis/studies/<name>.yaml)",
    )
    arguments = parser.parse_args()
    folder = Path(arguments.study)
    if not folder.is_dir():
        folder = Places().tables(arguments.study)
    results, history = read_results(folder), read_tables(folder)[1]
    sweep = arguments.sweep or (folder / SWEEP if (folder / SWEEP).exists() else None)
    study = load_study(results["study"], sweep=sweep, declaration=arguments.declaration)
    curves = [name for name in history if name not in ("run_id", "epoch") and not is_clock(name)]
    report = build(arguments.path, results, study, curves, history.attrs["axis"])
    try:
        report.save()
    except Exception as error:  # W&B's client raises many types
        raise ReportError(f"failed to save the report on the W&B server: {error}") from error
    print(f"saved: {report.url}")


if __name__ == "__main__":
    main()
