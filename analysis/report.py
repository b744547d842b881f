"""Write a study's report from its tables: no network, no torch, no W&B.

    python -m analysis.report analysis/results/gtsrb_short --sweep sweeps/gtsrb_short.yaml

Completeness comes first: with a run missing, repeated, unfinished or shorter than planned it lists
what is wrong, draws it (incomplete/), writes fill_in.yaml, a sweep of the runs to make, and exits
with 1. Else it writes results.json, report.md, report.html (self-contained), tables.tex and
figures/ beside the tables.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures import catalogue
from analysis.figures import scores as score_figures
from analysis.figures.catalogue import Drawn
from analysis.grid import GridError, Study, Sweep, load_study, load_sweep
from analysis.pages import methods_text, render
from analysis.runs import histories, missing, per_item, provenance
from analysis.runs.completeness import CHECKS, PAIR_HASHES, Ledger, check, scores
from analysis.runs.tables import TableError, read_tables
from analysis.statistics import contrasts, grades, jsrt_benchmark, published, rank_tests, robustness

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

INCOMPLETE = "incomplete"  # folder beside the tables with figures of a study that is not complete

STALE = "\nThe report that stands in this folder is of an earlier fetch and stays as it is."


class IncompleteError(RuntimeError):
    """The study lacks runs or has faulty ones; its text is the list."""


def analyse(
    sweep: Sweep,
    study: Study,
    ledger: Ledger,
    runs: pd.DataFrame,
    table: pd.DataFrame | None,
) -> dict[str, Any]:
    """Return everything that results.json holds but for the folds and the figures' captions.

    ``table``: the runs' per-image test outputs, where they are kept.
    """
    runs = runs[runs["run_id"].isin(ledger.counting)]  # not those in whose place another counts
    values = scores(sweep, ledger, runs, study.score_column())
    rows, smallest_p = _primary(sweep, study, ledger, runs, values)
    secondary = contrasts.simple_effects(sweep, values, study.alpha)
    for effect in secondary:
        effect["runs"] = [run for cell in effect["cells"] for run in ledger.runs(tuple(cell))]
    for row in rows:
        row["sentence"] += grades.qualification(row, rows, secondary, study)
        if row["scale_robust"] is False:
            row["sentence"] += grades.other_scale(robustness.log_scale_name(study))
    hashes = [h for h in PAIR_HASHES if h in runs and runs[h].notna().all()]
    paired = [row["paired"] for row in rows]
    intervals, about_images = robustness.over_test_set(sweep, study, ledger, table, paired)
    known_twins = table is not None and "in_training" in table
    for row, interval in zip(rows, intervals or [None] * len(rows), strict=True):
        row["test_set_low"], row["test_set_high"] = interval or (None, None)
    return {
        "study": sweep.name,
        "question": study.question,
        "declared": study.declared,
        "metric": study.metric,
        "direction": study.direction,
        "score_rule": study.score_rule,
        "alpha": study.alpha,
        "smallest_effect": study.smallest_effect,
        "n_seeds": len(sweep.seeds),
        "seeds": sweep.seeds,
        "epochs": ledger.epochs,
        "factors": sweep.factors,
        "fixed": sweep.fixed,
        "smallest_p": smallest_p,
        "unpaired": ledger.unpaired,
        "pairing": methods_text.pairing(sweep, ledger.unpaired, hashes, rows),
        "tests": methods_text.tests(rows),
        "allowed": ledger.doubts,
        "repeated": ledger.repeated,
        "diverged": [e.runs[0] for e in ledger.entries if e.state == "diverged"],
        "collapsed": robustness.collapsed(ledger, table),
        "test_images": len(table) if intervals else None,
        "about_test_images": about_images,
        "variants": [_variant(sweep, ledger, runs, cell, values[cell]) for cell in sweep.cells],
        "contrasts": rows,
        "secondary": secondary,
        "log_scale": robustness.log_scale_name(study),
        "exploratory": robustness.exploratory(sweep, study, ledger, runs),
        "references": study.references,
        "by_seed": published.by_seed(study, ledger, runs, table),
        "steps": published.steps(sweep, study, ledger, runs),
        "twins": int(table["in_training"].sum()) if known_twins else None,
        "runs": provenance.of_runs(sweep, study, ledger, runs),
        "provenance": provenance.of_study(sweep, study, ledger, runs),
    }


def _primary(
    sweep: Sweep, study: Study, ledger: Ledger, runs: pd.DataFrame, values: dict[tuple, list[float]]
) -> tuple[list[dict[str, Any]], float]:
    """Return the primary contrasts as results.json has them, and the least p they could have."""
    paired = not ledger.unpaired
    tested = contrasts.test(contrasts.build(sweep, study, values), study.alpha, paired)
    other = robustness.other_rules(sweep, study, ledger, runs)
    # Told of interactions only, which a sweep without factors does not have.
    log_scale = robustness.on_log_scale(sweep, study, values, paired) if sweep.factors else tested
    rows = []
    for i, (one, on_log) in enumerate(zip(tested, log_scale, strict=True)):
        under = {rule: of_rule[i] for rule, of_rule in other.items()}
        rows.append(_row(one, under, on_log, len(tested), study, ledger))
    return rows, min(one.smallest_p for one in tested)


def _variant(
    sweep: Sweep, ledger: Ledger, runs: pd.DataFrame, cell: tuple, values: list[float]
) -> dict[str, Any]:
    """Return what results.json says of a variant: its scores by seed, and its networks' size."""
    own = runs[runs["run_id"].isin(ledger.runs(cell))]
    sizes = pd.to_numeric(own.get("parameters", pd.Series(dtype=float)), errors="coerce")
    return {
        "name": sweep.label(cell),
        "median": float(np.median(values)),
        "min": float(min(values)),
        "max": float(max(values)),
        "scores": values,
        "runs": ledger.runs(cell),
        "parameters": sorted(int(n) for n in sizes.dropna().unique()),  # one, if all is well
    }


def _row(
    tested: contrasts.Tested,
    other: dict[str, contrasts.Tested],
    on_log: contrasts.Tested,
    family: int,
    study: Study,
    ledger: Ledger,
) -> dict[str, Any]:
    """Return what results.json says of a contrast; ``other``: the same under other score rules.

    ``on_log``: the same on the log scale, which is told of interactions; ``family``: how many
    contrasts are tested.
    """
    test, interval = tested.test, tested.interval
    differences = np.round(tested.contrast.differences, rank_tests.DECIMALS)
    own = robustness.conclusion(tested, study)
    rules = {
        rule: {
            "difference": t.interval.estimate,
            "p_holm": t.p_holm,
            "agrees": robustness.conclusion(t, study) == own,
        }
        for rule, t in other.items()
    }
    agree = all(said["agrees"] for said in rules.values())
    interaction = len(tested.contrast.parts) == 2
    state = grades.decide(tested, family, study, agree)
    return {
        "name": tested.contrast.name,
        "label": grades.subject(tested.contrast, study),
        "n": tested.n,
        "paired": tested.paired,
        "exact": tested.exact,
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
        "sentence": grades.sentence(state, tested, family, study, ledger.epochs, agree),
        "per_seed": [float(d) for d in tested.contrast.differences],
        "other_rules": rules,
        "survives_all_rules": agree if rules else None,
        "p_holm_log_scale": on_log.p_holm if interaction else None,
        "scale_robust": robustness.conclusion(on_log, study) == own if interaction else None,
        "parts": [list(part) for part in tested.contrast.parts],
        "runs": ledger.counting,
    }


def _draw_incomplete(
    folder: Path, sweep: Sweep, study: Study, ledger: Ledger, history: pd.DataFrame
) -> None:
    """Draw what there is of an incomplete study, apart from any report that stands here."""
    everyone = ledger.counting
    shutil.rmtree(folder / INCOMPLETE, ignore_errors=True)
    drawn = {"fig7_integrity": Drawn(*score_figures.integrity(sweep, study, ledger), everyone)}
    if (name := histories.column(study, history)) and not ledger.doubts:
        pair = score_figures.learning_curves(sweep, study, ledger, history, name)
        drawn["fig1_learning_curves"] = Drawn(*pair, everyone)
    for key, figure in drawn.items():
        render.save(folder / INCOMPLETE, key, figure, {"study": sweep.name, "complete": False})


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
        to_run = missing.write(arguments.folder, arguments.sweep, sweep, ledger)
        if ledger.problems or refused:
            _draw_incomplete(arguments.folder, sweep, study, ledger, history)
            raise IncompleteError(
                f"{sweep.name} is not complete; no test was made and no report written:\n  "
                + "\n  ".join(ledger.problems + refused)
                + (f"\nA sweep of what lacks a run: {', '.join(map(str, to_run))}" * bool(to_run))
                + f"\nWhat there is, drawn: {arguments.folder / INCOMPLETE}"
                + REMEDY
                + (STALE if (arguments.folder / "report.md").exists() else "")
            )
        table = per_item.read(arguments.folder)
        results = analyse(sweep, study, ledger, runs, table)
        two_folds = jsrt_benchmark.load(study, arguments.sweep, arguments.folder)
        results["folds"] = two_folds
        drawn = catalogue.draw(
            sweep,
            study,
            ledger,
            runs,
            history,
            results["contrasts"],
            table,
            two_folds,
            arguments.folder,
            arguments.sweep,
        )
        shutil.rmtree(arguments.folder / INCOMPLETE, ignore_errors=True)
        render.write(arguments.folder, results, drawn, study, sweep)
    except (GridError, TableError, IncompleteError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    for row in results["contrasts"]:
        print(f"[{row['state']}] {row['sentence']}")
    print(f"report: {(arguments.folder / 'report.html').resolve()}")


if __name__ == "__main__":
    main()
