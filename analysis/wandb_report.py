"""Put a study's sentences, tables and curves into a W&B Report, next to its runs in the web app.

    pip install wandb-workspaces
    python -m analysis.wandb_report entity/project/sweep_id gtsrb

After `analysis.fetch` and `analysis.report`: words and numbers are those of the folder's
results.json. The curves are W&B's own, of the sweep's runs, a line per variant.
"""

import argparse
from pathlib import Path
from typing import Any

from analysis.readme import all_tables, read_results, sentences
from analysis.runs.tables import read_tables
from lib.spec.errors import UserError, command
from lib.spec.study import Study, load_study

CLOCK = ("seconds", "images_per_second")  # history columns that are no curves to look at


class ReportError(UserError):
    """The report cannot be made or saved; says why and what to do."""


def build(path: str, results: dict[str, Any], study: Study, curves: list[str]) -> Any:
    """Return the Report, not yet saved, for the sweep ``path`` (entity/project/sweep_id).

    Raises:
        ReportError: when the path is none, or wandb-workspaces is not installed.
    """
    if path.count("/") != 2:
        raise ReportError(f"{path!r} is not entity/project/sweep_id")
    try:
        import wandb_workspaces.reports.v2 as wr
    except ImportError as error:
        raise ReportError(f"{error}; it comes with: pip install wandb-workspaces") from error
    entity, project, sweep_id = path.split("/")
    runs = wr.Runset(
        entity=entity,
        project=project,
        name=results["study"],
        filters=f"Sweep = '{sweep_id}'",
        groupby=["group"],
    )
    panels = [wr.LinePlot(x="epoch", y=[name], title=name) for name in curves]
    text = f"{study.declaration.question}\n\n{sentences(results)}\n\n{all_tables(results, study)}"
    return wr.Report(
        entity=entity,
        project=project,
        title=f"{results['study']}: what the runs say",
        blocks=[wr.MarkdownBlock(text=text), wr.PanelGrid(runsets=[runs], panels=panels)],
    )


@command
def main() -> None:
    """Make a W&B Report of a study and save it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("path", help="entity/project/sweep_id, as `wandb sweep` prints it")
    parser.add_argument("study", help="a study's name, or the folder of its report")
    parser.add_argument("--sweep", type=Path, help="the sweep's YAML (default: by the name)")
    arguments = parser.parse_args()
    folder = Path(arguments.study)
    study = load_study(folder.name, sweep=arguments.sweep)
    folder = folder if folder.is_dir() else study.places.tables(study.name)
    results = read_results(folder)
    history = read_tables(folder)[1]
    curves = [name for name in history if name not in ("run_id", "epoch", *CLOCK)]
    report = build(arguments.path, results, study, curves)
    try:
        report.save()
    except Exception as error:  # W&B's client raises many kinds
        raise ReportError(f"W&B did not take the report: {error}") from error
    print(f"saved: {report.url}")


if __name__ == "__main__":
    main()
