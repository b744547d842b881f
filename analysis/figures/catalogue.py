"""Which figures a report has, and the runs behind each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures import (
    classification,
    effects,
    misclassified,
    networks,
    scores,
    segmentation,
    tuning,
)
from analysis.grid import Study, Sweep
from analysis.runs import completeness, histories, per_item
from analysis.runs.completeness import Ledger
from analysis.statistics import jsrt_benchmark, published


@dataclass(frozen=True)
class Drawn:
    """A figure with its caption and the ids of the runs that it shows.

    ``figure`` is None where it takes files that are not here (radiographs are not for git).
    ``provenance``: of its runs where they are not the study's. ``explained``: for a newcomer.
    """

    figure: Figure | None
    caption: str
    runs: list[str]
    provenance: dict[str, Any] | None = None
    explained: str = ""


def draw(
    sweep: Sweep,
    study: Study,
    ledger: Ledger,
    runs: pd.DataFrame,
    history: pd.DataFrame,
    rows: list[dict[str, Any]],
    table: pd.DataFrame | None,
    of_folds: dict[str, Any] | None,
    folder: Path,
    sweep_path: Path,
) -> dict[str, Drawn]:
    """Return the report's figures by file name.

    ``rows``: the contrasts as results.json has them; ``table``: the runs' per-image test outputs;
    ``of_folds``: what analysis.folds says of the two-fold sweep.
    """
    values = completeness.scores(sweep, ledger, runs, study.score_column())
    everyone = ledger.counting
    name = histories.column(study, history)
    paired = not ledger.unpaired
    final_scores = published.final_scores if study.references else scores.final_scores
    pairs = {
        "fig1_learning_curves": scores.learning_curves(sweep, study, ledger, history, name)
        if name
        else None,
        "fig2_difference_curves": effects.difference_curves(sweep, study, ledger, history, name)
        if name and paired and sweep.factors
        else None,
        "fig3_final_scores": final_scores(sweep, study, ledger, values),
        "fig4_contrasts": effects.forest(study, rows, ledger, sweep),
        "fig5_interaction": effects.interactions(sweep, study, ledger, values),
        "fig7_integrity": scores.integrity(sweep, study, ledger),
        "fig8_improvement": effects.improvement(sweep, study, ledger, values)
        if len(sweep.cells) > 1
        else None,
        "fig10_epochs_until": scores.epochs_until(sweep, study, ledger, history, name)
        if name and sweep.factors
        else None,
    }
    drawn = {key: Drawn(*pair, everyone) for key, pair in pairs.items() if pair is not None}
    drawn |= _of_images(sweep, study, ledger, values, table, of_folds, folder)
    drawn |= _of_networks(sweep, study, folder)
    if chosen := tuning.draw(study, folder, sweep_path):
        drawn["fig13_tuning"] = Drawn(*chosen, provenance={"studies": study.tuning})
    return drawn


def _of_networks(sweep: Sweep, study: Study, folder: Path) -> dict[str, Drawn]:
    """Return the figures of trained networks, where lib.fields has looked into some."""
    found, arrays = networks.read(folder)
    if not found:
        return {}
    origins = {"networks": {one["run"]: one["origin"] for one in found}}
    fields = networks.receptive_fields(found, arrays, sweep, study)
    drawn = {"fig11_receptive_fields": Drawn(*fields, origins, networks.OF_FIELDS)}
    if any("/flat/" in key for key in arrays):
        flat = networks.checkerboards(found, arrays, sweep, study)
        drawn["fig12_flat_image"] = Drawn(*flat, origins, networks.OF_FLAT)
    else:
        inside = networks.filters_and_maps(found, arrays, sweep, study)
        drawn["fig12_filters_and_maps"] = Drawn(*inside, origins, networks.OF_FILTERS)
    return drawn


def _of_images(
    sweep: Sweep,
    study: Study,
    ledger: Ledger,
    values: dict[tuple, list[float]],
    table: pd.DataFrame | None,
    of_folds: dict[str, Any] | None,
    folder: Path,
) -> dict[str, Drawn]:
    """Return the figures that take the runs' outputs on single test images."""
    everyone = ledger.counting
    if table is None or not set(everyone) <= set(table):
        return {}
    if "label" in table:
        drawn = {
            "fig9_class_errors": Drawn(
                *classification.class_errors(sweep, study, ledger, table), everyone
            ),
            "fig9_confusion": Drawn(*classification.confusion(sweep, study, ledger, table, values)),
        }
        if study.references and study.score_rule == "last" and "width" in table:
            files = folder / per_item.FILES
            shown = misclassified.pictures(study, ledger, table, (), values[()], files)
            drawn["fig14_mistakes"] = Drawn(*shown)
            widths = misclassified.by_width(sweep, ledger, table)
            drawn["fig15_widths"] = Drawn(*widths, everyone)
        return drawn
    files = folder / per_item.FILES
    drawn = {
        "fig9_dice_ecdf": Drawn(*segmentation.dice_ecdf(sweep, study, ledger, table), everyone),
        "fig9_overlays": Drawn(*segmentation.overlays(sweep, study, ledger, table, files)),
    }
    if of_folds and "missing" not in of_folds:
        place = folder.parent / study.folds
        worst = segmentation.worst_images(
            study, per_item.read(place), jsrt_benchmark.WORST, place / per_item.FILES
        )
        drawn["fig9_worst_images"] = Drawn(
            *worst, provenance={"study": study.folds, **of_folds["provenance"]}
        )
    return drawn
