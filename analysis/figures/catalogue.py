"""List the figures of a report with their captions and runs; each is drawn only on request."""

import re
from functools import partial
from typing import Any

from analysis.figures import (
    classification,
    contrasts,
    curves,
    misclassified,
    networks,
    overview,
    scores,
    segmentation,
    tuning,
)
from analysis.figures.picture import Picture
from analysis.runs import histories, per_item
from analysis.runs.data import StudyData
from analysis.runs.load import sibling
from analysis.statistics import jsrt_benchmark


def pictures(data: StudyData, results: dict[str, Any]) -> list[Picture]:
    """Return the report's figures in order; ``results``: the contents of results.json.

    Raises:
        StudyError: if the tuning sweeps do not fit the study.
        TableError: if the files on trained networks are damaged.
    """
    metric, rows = histories.curve_metric(data), results["contrasts"]
    found = []
    if overview.has_overview(data, rows):
        found.append(_picture("overview", data, overview.overview, rows))
    if metric:
        found.append(_picture("fig1_learning_curves", data, curves.learning_curves, metric))
    if metric and data.paired and data.study.factors:
        found.append(_picture("fig2_difference_curves", data, curves.difference_curves, metric))
    if data.study.declaration.published_scores:
        found.append(_picture("fig3_final_scores", data, scores.published_scores))
    else:
        found.append(_picture("fig3_final_scores", data, scores.final_scores))
    found.append(_picture("fig4_contrasts", data, contrasts.forest, rows))
    if scores.has_interactions(data):
        found.append(_picture("fig5_interaction", data, scores.interactions))
    found.append(_picture("fig7_integrity", data, scores.integrity))
    if len(data.study.variants) > 1:
        found.append(_picture("fig8_improvement", data, scores.improvement))
    if metric and data.study.factors and curves.has_target(data, metric):
        found.append(_picture("fig10_epochs_until", data, curves.epochs_until, metric))
    for factor in contrasts.many_levels(data):
        number = "" if len(contrasts.many_levels(data)) == 1 else f"_{factor}"
        name = re.sub(r"[^A-Za-z0-9_]+", "_", f"fig16_levels{number}")
        found.append(_picture(name, data, contrasts.levels, rows, factor))
    return found + _of_items(data, results) + _of_networks(data) + _of_tuning(data)


def of_incomplete(data: StudyData) -> list[Picture]:
    """Return the figures of an incomplete study: run overview and, if possible, learning curves."""
    found = [_picture("fig7_integrity", data, scores.integrity)]
    metric = histories.curve_metric(data)
    if metric and not data.completeness.waivable:
        found.append(_picture("fig1_learning_curves", data, curves.learning_curves, metric))
    return found


CAPTIONS = {
    overview.overview: overview.overview_caption,
    curves.learning_curves: curves.learning_curves_caption,
    curves.difference_curves: curves.difference_curves_caption,
    curves.epochs_until: curves.epochs_until_caption,
    scores.final_scores: scores.final_scores_caption,
    scores.published_scores: scores.published_scores_caption,
    scores.interactions: scores.interactions_caption,
    scores.integrity: scores.integrity_caption,
    scores.improvement: scores.improvement_caption,
    contrasts.forest: contrasts.forest_caption,
    contrasts.levels: contrasts.levels_caption,
    classification.class_errors: classification.class_errors_caption,
    classification.confusion: classification.confusion_caption,
    misclassified.pictures: misclassified.pictures_caption,
    misclassified.by_width: misclassified.by_width_caption,
    segmentation.dice_ecdf: segmentation.dice_ecdf_caption,
    segmentation.overlays: segmentation.overlays_caption,
}


def _picture(
    name: str, data: StudyData, draw: Any, *arguments: Any, runs: list[str] | None = None
) -> Picture:
    """Return the picture that ``draw`` makes from the study's data, with its caption."""
    caption = CAPTIONS[draw](data, *arguments)
    runs = data.run_ids if runs is None else runs
    return Picture(name, caption, partial(draw, data, *arguments), runs)


def _of_items(data: StudyData, results: dict[str, Any]) -> list[Picture]:
    """Return the figures that need the runs' outputs per test item."""
    table, run_ids, found = data.per_item, data.run_ids, []
    if per_item.of_runs(table, "predicted", run_ids) is not None:
        best = data.runs_of(classification.best_variant(data))
        found.append(_picture("fig9_class_errors", data, classification.class_errors))
        found.append(_picture("fig9_confusion", data, classification.confusion, runs=best))
        alone = len(data.study.variants) == 1 and data.study.rule == "last"
        if alone and "width" in table:
            shown = [misclassified.median_run(data)]
            found.append(_picture("fig14_mistakes", data, misclassified.pictures, runs=shown))
            found.append(_picture("fig15_widths", data, misclassified.by_width))
    if per_item.of_runs(table, "jaccard", run_ids) is not None:
        shown = segmentation.overlays_runs(data)
        found.append(_picture("fig9_dice_ecdf", data, segmentation.dice_ecdf))
        if shown:
            found.append(_picture("fig9_overlays", data, segmentation.overlays, runs=shown))
    folds = results["cross_validation"]
    if folds and "missing" not in folds:
        other = sibling(data.study, folds["sweep"])
        number, source = jsrt_benchmark.WORST, data.study.declaration.data_source
        found.append(
            Picture(
                "fig9_worst_images",
                segmentation.worst_images_caption(other, number, source),
                partial(segmentation.worst_images, other, number),
                segmentation.worst_images_runs(other, number),
                {"study": other.study.name, **folds["provenance"]},
            )
        )
    return found


def _of_networks(data: StudyData) -> list[Picture]:
    """Return the figures of trained networks if lib.fields has written their files, else none."""
    found, arrays = networks.read(data.folder)
    if not found:
        return []
    study, ids = data.study, networks.run_ids(found)
    origins = {"networks": {one["run"]: one["origin"] for one in found}}
    fields = Picture(
        "fig11_receptive_fields",
        networks.receptive_fields_caption(found),
        partial(networks.receptive_fields, found, arrays, study),
        ids,
        origins,
        networks.OF_FIELDS,
    )
    if any("/flat/" in key for key in arrays):
        inside = Picture(
            "fig12_flat_image",
            networks.checkerboards_caption(found, arrays),
            partial(networks.checkerboards, found, arrays, study),
            ids,
            origins,
            networks.OF_FLAT,
        )
    else:
        inside = Picture(
            "fig12_filters_and_maps",
            networks.filters_and_maps_caption(found, arrays, study),
            partial(networks.filters_and_maps, found, arrays),
            ids[-1:],
            origins,
            networks.OF_FILTERS,
        )
    return [fields, inside]


def _of_tuning(data: StudyData) -> list[Picture]:
    """Return the figure of the study's tuning sweeps; without tables, say so and skip it."""
    study = data.study
    if not study.declaration.tuning:
        return []
    if lacking := tuning.lacking(study):
        where = ", ".join(str(study.places.tables(name)) for name in lacking)
        print(f"fig13_tuning skipped: no tables in {where}; fetch the tuning sweeps")
        return []
    tunings = tuning.load(data)
    runs = [run for one in tunings for run in one.data.run_ids]
    origin = {"studies": study.declaration.tuning}
    caption = tuning.caption(study, tunings)
    return [Picture("fig13_tuning", caption, partial(tuning.draw, study, tunings), runs, origin)]
