"""Write a study's report from its tables: no network, no torch, no W&B.

    python -m analysis.report analysis/results/gtsrb_short --sweep sweeps/gtsrb_short.yaml

Completeness comes first: with a run missing, repeated, unfinished or shorter than planned it lists
what is wrong, writes fill_in.yaml, a sweep of the runs to make, and exits with 1. Else it writes
results.json, report.md, report.html (self-contained) and figures/ beside the tables.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import (
    contrasts,
    figures,
    fill_in,
    folds,
    images,
    pages,
    segmentation,
    statement,
    stats,
)
from analysis.grid import GridError, Study, Sweep, load_study, load_sweep
from analysis.ledger import CHECKS, Ledger, check, scores
from analysis.tables import TableError, read_tables

REMEDY = """
What to do:
- missing, unfinished or shorter: with the local agent run the sweep again, then fetch again (a run
  that it counts as finished is repeated when you delete its folder runs/<study>/<run id>); on a W&B
  server `wandb sweep` the fill_in.yaml, run an agent on it, and fetch both sweeps together
- more than one, or none of this sweep's: take the wrong run out of the source (its folder
  wandb/offline-run-*-<run id>, or the run on the server), then fetch again; after a change of the
  sweep let the agent write to another --out
- different data or code, or one run twice: make those runs again with the same data and code, or
  say --allow and the name of the check"""

STALE = "\nThe report that stands in this folder is of an earlier fetch and stays as it is."


class IncompleteError(RuntimeError):
    """The study lacks runs or has faulty ones; its text is the list."""


def analyse(
    sweep: Sweep,
    study: Study,
    ledger: Ledger,
    runs: pd.DataFrame,
    table: pd.DataFrame | None,
) -> tuple[dict[str, Any], list[contrasts.Tested]]:
    """Return everything that results.json holds, and the tested primary contrasts.

    ``table``: the runs' per-image test outputs, where they are kept.
    """
    values = scores(sweep, ledger, runs, study.score_column())
    paired = not ledger.unpaired
    tested = contrasts.test(contrasts.build(sweep, study, values), study.alpha, paired)
    other_rule, other = _other_rule(sweep, study, ledger, runs)
    rows = [
        _row(t, None if other is None else other[i], len(tested), study, ledger)
        for i, t in enumerate(tested)
    ]
    secondary = contrasts.simple_effects(sweep, values, study.alpha)
    states = [(t, row["state"]) for t, row in zip(tested, rows, strict=True)]
    for t, row in zip(tested, rows, strict=True):
        row["sentence"] += statement.qualification(t, states, secondary, study)
    test_set = _test_set(sweep, study, ledger, table)
    for i, row in enumerate(rows):
        row |= test_set["intervals"][i] if test_set else {"test_set_low": None}
    variants = [
        {
            "name": sweep.label(cell),
            "median": float(np.median(values[cell])),
            "min": float(min(values[cell])),
            "max": float(max(values[cell])),
            "scores": values[cell],
            "runs": ledger.runs(cell),
            "parameters": _parameters(runs, ledger.runs(cell)),
        }
        for cell in sweep.cells
    ]
    results = {
        "study": sweep.name,
        "question": study.question,
        "declared": study.declared,
        "metric": study.metric,
        "direction": study.direction,
        "score_rule": study.score_rule,
        "other_rule": other_rule,
        "alpha": study.alpha,
        "smallest_effect": study.smallest_effect,
        "n_seeds": len(sweep.seeds),
        "seeds": sweep.seeds,
        "epochs": ledger.epochs,
        "factors": sweep.factors,
        "fixed": sweep.fixed,
        "smallest_p": tested[0].smallest_p,
        "unpaired": ledger.unpaired,
        "allowed": ledger.doubts,
        "repeated": ledger.repeated,
        "diverged": [e.runs[0] for e in ledger.entries if e.state == "diverged"],
        "test_images": test_set["images"] if test_set else None,
        "variants": variants,
        "contrasts": rows,
        "secondary": secondary,
        "provenance": _provenance(runs),
    }
    return results, tested


def _row(
    tested: contrasts.Tested,
    other: contrasts.Tested | None,
    family: int,
    study: Study,
    ledger: Ledger,
) -> dict[str, Any]:
    """Return what results.json says of a contrast; ``other``: the same under the other rule."""
    test, interval = tested.test, tested.interval
    differences = np.round(tested.contrast.differences, stats.DECIMALS)
    agree = other is None or _conclusion(tested, study) == _conclusion(other, study)
    state = statement.decide(tested, family, study, agree)
    return {
        "name": tested.contrast.name,
        "label": statement.subject(tested.contrast, study),
        "n": tested.n,
        "paired": tested.paired,
        "n_zero": test.n_zero if tested.paired else None,
        "statistic": test.statistic,
        "p": test.p,
        "p_holm": tested.p_holm,
        "difference": interval.estimate,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "confidence": interval.confidence,
        "rank_biserial": tested.rank_biserial,
        "positive": int((differences > 0).sum()),
        "negative": int((differences < 0).sum()),
        **contrasts.sensitivity(tested.contrast),
        "state": state,
        "sentence": statement.sentence(state, tested, family, study, ledger.epochs, agree),
        "per_seed": [float(d) for d in tested.contrast.differences],
        "score_rules_agree": None if other is None else agree,
        "p_holm_other_rule": None if other is None else other.p_holm,
        "runs": [run for entry in ledger.entries for run in entry.runs],
    }


def _test_set(
    sweep: Sweep, study: Study, ledger: Ledger, table: pd.DataFrame | None
) -> dict[str, Any] | None:
    """Return each contrast's interval over test images, or None where it cannot be had.

    Runs save their outputs at the last epoch, so a study that scores another one has none.
    """
    everyone = [run for cell in sweep.cells for run in ledger.runs(cell)]
    per_run = None if table is None else images.scores(table, study, everyone)
    if per_run is None or study.score_rule != "last" or len(per_run) < 20:
        return None
    per_cell = {cell: per_run[ledger.runs(cell)].mean(axis=1).to_numpy() for cell in sweep.cells}
    intervals = contrasts.over_images(sweep, study, per_cell)
    rows = [
        {"test_set_mean": i.estimate, "test_set_low": i.low, "test_set_high": i.high}
        for i in intervals
    ]
    return {"images": len(per_run), "intervals": rows}


def draw(
    sweep: Sweep,
    study: Study,
    ledger: Ledger,
    runs: pd.DataFrame,
    history: pd.DataFrame,
    tested: list[contrasts.Tested],
    table: pd.DataFrame | None,
    folder: Path,
) -> dict[str, tuple[Figure | None, str]]:
    """Return the report's figures with their captions, by file name.

    A figure is None where it takes files that are not here (radiographs are not for git).
    """
    values = scores(sweep, ledger, runs, study.score_column())
    drawn = {
        "fig1_learning_curves": figures.learning_curves(sweep, study, ledger, history),
        "fig3_final_scores": figures.final_scores(sweep, study, ledger, values),
        "fig4_contrasts": figures.forest(study, tested, ledger, sweep),
        "fig5_interaction": figures.interactions(sweep, study, ledger, values),
        "fig7_integrity": figures.integrity(sweep, study, ledger),
    }
    if table is not None and study.metric.endswith(("jaccard", "dice")):
        drawn["fig9_dice_ecdf"] = segmentation.dice_ecdf(sweep, study, ledger, table)
        files = folder / images.FILES
        drawn["fig9_overlays"] = segmentation.overlays(sweep, study, ledger, table, files)
        place = folder.parent / str(study.folds)
        if study.folds and (of_folds := images.read(place)) is not None:
            files = place / images.FILES
            drawn["fig9_worst_images"] = segmentation.worst_images(
                study, of_folds, folds.WORST, files
            )
    return {name: pair for name, pair in drawn.items() if pair is not None}


def _parameters(runs: pd.DataFrame, run_ids: list[str]) -> list[int]:
    """Return the numbers of trainable values of a variant's networks: one, if all is well."""
    if "parameters" not in runs:
        return []
    own = runs["parameters"][runs["run_id"].isin(run_ids)].dropna()
    return sorted(int(count) for count in own.unique())


def _other_rule(
    sweep: Sweep, study: Study, ledger: Ledger, runs: pd.DataFrame
) -> tuple[str, list[contrasts.Tested] | None]:
    """Test the same contrasts under the score rule that was not declared, if the runs have it."""
    rule = "best_on_validation" if study.score_rule == "last" else "last"
    column = study.score_column(rule)
    if column not in runs or runs[column].isna().any():
        return rule, None
    values = scores(sweep, ledger, runs, column)
    built = contrasts.build(sweep, study, values)
    return rule, contrasts.test(built, study.alpha, not ledger.unpaired)


def _conclusion(tested: contrasts.Tested, study: Study) -> int:
    """Return -1 or 1, the direction of a significant difference, or 0."""
    significant = tested.p_holm < study.alpha
    return int(np.sign(tested.interval.estimate)) if significant else 0


def _provenance(runs: pd.DataFrame) -> dict[str, list[str]]:
    names = ("git_commit", "data_sha256", "device", "torch_version")
    return {name: sorted(runs[name].astype(str).unique()) for name in names if name in runs}


def main(argv: Sequence[str] | None = None) -> None:
    """Check a study for completeness, test its contrasts, and write its report."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "folder", type=Path, help="analysis/results/<study>, made by analysis.fetch"
    )
    parser.add_argument("--sweep", type=Path, required=True, help="the sweep's YAML")
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        choices=list(CHECKS),
        help="report although this check failed: "
        + "; ".join(f"{name}: {meaning}" for name, meaning in CHECKS.items()),
    )
    arguments = parser.parse_args(argv)
    try:
        sweep = load_sweep(arguments.sweep)
        study = load_study(sweep)
        runs, history = read_tables(arguments.folder)
        ledger = check(sweep, study, runs, history)
        refused = [
            f"{told}; --allow {name} reports nevertheless, and says so"
            for name, told in ledger.doubts.items()
            if name not in arguments.allow
        ]
        to_run = fill_in.write(arguments.folder, arguments.sweep, sweep, ledger)
        if ledger.problems or refused:
            raise IncompleteError(
                f"{sweep.name} is not complete; no test was made and no report written:\n  "
                + "\n  ".join(ledger.problems + refused)
                + (f"\nA sweep of what lacks a run: {', '.join(map(str, to_run))}" * bool(to_run))
                + REMEDY
                + (STALE if (arguments.folder / "report.md").exists() else "")
            )
        table = images.read(arguments.folder)
        results, tested = analyse(sweep, study, ledger, runs, table)
        results["folds"] = folds.load(study, arguments.sweep, arguments.folder)
        drawn = draw(sweep, study, ledger, runs, history, tested, table, arguments.folder)
        pages.write(arguments.folder, results, drawn, study, sweep)
    except (GridError, TableError, IncompleteError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    for row in results["contrasts"]:
        print(f"[{row['state']}] {row['sentence']}")
    print(f"report: {(arguments.folder / 'report.html').resolve()}")


if __name__ == "__main__":
    main()
