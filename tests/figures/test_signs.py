"""Reports on signs: errors and confusions per class, intervals over images, collapsed runs."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.figures import catalogue, classification
from analysis.runs import per_item
from analysis.runs.data import StudyData
from analysis.runs.data import test_scores as scores_by_item
from analysis.runs.load import load_data
from analysis.statistics import robustness
from lib.spec import gtsrb_classes
from lib.spec.metric_declaration import metric
from tests import factories

CLASSES, EACH = 5, 40


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """Give a 2×2 sweep with seven seeds."""
    return factories.write_sweep(tmp_path / "made_up.yaml")


def write_study(folder: Path, sweep_path: Path) -> StudyData:
    """Write a study whose runs take class 0 for class 1 in a share of the images, by variant."""
    runs, history = factories.tables(sweep_path)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), EACH)
    table = {"label": labels}
    for i, run in runs.iterrows():
        wrong = (rng.uniform(size=len(labels)) < 4 * run["summary.test/error"]) & (labels == 0)
        table[f"predicted.{run['run_id']}"] = np.where(wrong, 1, labels)
        runs.loc[i, "summary.test/error"] = float(wrong.mean())
    table = pd.DataFrame(table, index=pd.Index(np.arange(len(labels)).astype(str), name="item"))
    factories.write_study(folder, runs, history)
    table.to_csv(folder / per_item.NAME)
    return load(folder, sweep_path)


def load(folder: Path, sweep_path: Path, **declared: object) -> StudyData:
    return load_data(factories.study(sweep_path, **declared), folder)


def test_errors_per_class_are_those_of_the_images(sweep_path: Path, tmp_path: Path) -> None:
    data = write_study(tmp_path / "s", sweep_path)
    figure = classification.class_errors(data)
    dots = figure.axes[0].collections[1].get_offsets()  # lines, then marks, a pair per variant
    runs = data.runs_of(data.study.variants[0])
    own = per_item.of_runs(data.per_item, "predicted", runs)[data.per_item["label"] == 0]
    assert dots[0][0] == pytest.approx(100 * np.median((own != 0).mean()))
    assert len(dots) == 1, "the other classes have no errors"
    caption = classification.class_errors_caption(data)
    assert f"the 1 of {CLASSES} classes with errors" in caption
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert ticks[0] == f"class 0 ({EACH})"
    named = factories.study(sweep_path, class_names="gtsrb")
    assert classification.class_name(named, 14) == "14: stop"
    assert gtsrb_classes.CLASSES == 43


def test_confusions_are_means_over_the_best_variants_runs(sweep_path: Path, tmp_path: Path) -> None:
    table = write_study(tmp_path / "s", sweep_path).per_item
    best = [r for r in table.columns if r.startswith("predicted.bnsgd")]
    table[best[0]] = table[best[0]].mask(table["label"] == 3, -1)  # as a diverged run has it
    table.to_csv(tmp_path / "s" / per_item.NAME)
    data = load(tmp_path / "s", sweep_path)
    assert data.runs_of(classification.best_variant(data)) == [r.split(".")[1] for r in best]
    mean = np.mean([((table["label"] == 0) & (table[r] == 1)).sum() for r in best])
    picture = classification.confusion(data).axes[0].images[0].get_array()
    assert picture[0, 1] == pytest.approx(mean)
    assert f"class 0 as class 1: {mean:.1f}" in classification.confusion_caption(data)
    assert np.ma.masked_invalid(picture).count() == 1


def test_the_interval_over_items_is_next_to_the_one_over_seeds(
    sweep_path: Path, tmp_path: Path
) -> None:
    data = write_study(tmp_path / "s", sweep_path)
    results = factories.report(tmp_path / "s", sweep_path, class_names="gtsrb")
    pictures = {picture.name for picture in catalogue.pictures(data, results)}
    assert {"fig9_class_errors", "fig9_confusion"} <= pictures
    assert results["test_items"] == len(data.per_item)
    for row in results["contrasts"]:
        assert row["items_low"] <= row["difference"] <= row["items_high"]
        assert row["both_low"] <= row["difference"] <= row["both_high"]
    text = (tmp_path / "s" / "report.md").read_text()
    assert "Seeds: uncertainty from the seeds, with the test items fixed (exact, 95 %" in text
    assert "Test items: uncertainty from the test items, with the trained networks fixed" in text
    assert robustness.SEVERAL_OF_ONE_SIGN in text
    assert results["failures"] == {}


def test_runs_that_see_one_class_everywhere_are_named(sweep_path: Path, tmp_path: Path) -> None:
    table = write_study(tmp_path / "s", sweep_path).per_item
    table["predicted.nosgd01"] = 2
    table.to_csv(tmp_path / "s" / per_item.NAME)
    results = factories.report(tmp_path / "s", sweep_path)
    assert results["failures"] == {"nosgd01": "collapsed"}
    assert [row["n_trained"] for row in results["contrasts"]] == [6, 6, 6]
    text = (tmp_path / "s" / "report.md").read_text()
    assert "1 run failed: nosgd01 (collapsed)." in text


def test_items_that_a_run_did_not_test_are_no_errors() -> None:
    """As of folds: each run tests a part of the items."""
    table = pd.DataFrame({"label": [0, 0, 1, 1], "predicted.a": [0, 1, None, None]})
    table["predicted.b"] = [None, None, 1, 1]
    predicted = per_item.of_runs(table, "predicted", ["a", "b"])
    wrong = per_item.wrong(predicted, table["label"])
    assert wrong.mean().tolist() == [0.5, 0.0]
    assert not per_item.collapsed(table, "b"), "its items are of one class"
    assert not per_item.collapsed(table, "a")


def test_item_scores_are_those_that_the_runs_logged(sweep_path: Path, tmp_path: Path) -> None:
    """And none where the means differ: then they are of another metric or in another unit."""
    data = write_study(tmp_path / "s", sweep_path)
    found = scores_by_item(data)
    np.testing.assert_allclose(found.mean(), data.scores.ravel())
    assert data.resolution == 1 / len(found)
    assert data.resolution_of("mean_last_5") == 1 / (5 * len(found))
    right = per_item.scores(data.per_item, metric("test/accuracy"), data.run_ids)
    assert right.equals(1 - found)
    table = data.per_item.astype(float)
    table.iloc[3, 1] = np.nan  # neither right nor wrong: the runs did not test the same items
    assert per_item.scores(table, metric("test/accuracy"), data.run_ids) is None
    data.runs["summary.test/error"] = data.runs["summary.test/error"] + 0.01
    assert scores_by_item(dataclasses.replace(data)) is None
