r"""Put a study's sentences, tables and curves into a W&B Report, beside its runs in the web app.

    pip install wandb-workspaces
    python -m analysis.wandb_report entity/project/sweep_id analysis/results/gtsrb \
        --sweep sweeps/gtsrb.yaml

After `analysis.fetch` and `analysis.report`: words and numbers are those of the folder's
results.json. The curves are W&B's own, of the sweep's runs, a line per variant.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from analysis.grid import GridError, Study, Sweep, load_study, load_sweep
from analysis.readme import sentences, tables
from analysis.runs.tables import TableError, read_tables

CURVES = ("train/loss", "val/loss", "train/error", "val/error", "val/jaccard", "val/dice", "lr")


class ReportError(RuntimeError):
    """The report cannot be made or saved; says why and what to do."""


def build(path: str, results: dict[str, Any], sweep: Sweep, study: Study, curves: list[str]) -> Any:
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
    text = f"{study.question}\n\n{sentences(results)}\n\n{tables(results, sweep, study)}"
    return wr.Report(
        entity=entity,
        project=project,
        title=f"{results['study']}: what the runs say",
        blocks=[wr.MarkdownBlock(text=text), wr.PanelGrid(runsets=[runs], panels=panels)],
    )


def main() -> None:
    """Make a W&B Report of a study and save it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("path", help="entity/project/sweep_id, as `wandb sweep` prints it")
    parser.add_argument("folder", type=Path, help="analysis/results/<study>, with its report")
    parser.add_argument("--sweep", type=Path, required=True, help="the sweep's YAML")
    arguments = parser.parse_args()
    try:
        sweep = load_sweep(arguments.sweep)
        results = json.loads((arguments.folder / "results.json").read_text())
        history = read_tables(arguments.folder)[1]
        curves = [name for name in CURVES if name in history]
        report = build(arguments.path, results, sweep, load_study(sweep), curves)
        try:
            report.save()
        except Exception as error:  # W&B's client raises many kinds
            raise ReportError(f"W&B did not take the report: {error}") from error
    except (GridError, TableError, ReportError, OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"saved: {report.url}")


if __name__ == "__main__":
    main()
