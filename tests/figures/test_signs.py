"""Reports on signs: errors and confusions per class, intervals over images, collapsed runs."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import report
from analysis.figures import classification
from analysis.grid import load_study, load_sweep
from analysis.runs import completeness, per_item
from analysis.statistics import contrasts, robustness
from tests import factories

CLASSES, EACH = 5, 40


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """Give a 2×2 sweep with seven seeds."""
    return factories.write_sweep(tmp_path / "made_up.yaml")


def write_study(folder: Path, sweep_path: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Write a study whose runs take class 0 for class 1 in a share of the images, by variant."""
    runs, history = factories.tables(sweep_path)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), EACH)
    table = {"label": labels}
    for i, run in runs.iterrows():
        wrong = (rng.uniform(size=len(labels)) < 4 * run["test/error"]) & (labels == 0)
        table[run["run_id"]] = np.where(wrong, 1, labels)
        runs.loc[i, "test/error"] = wrong.mean()
    table = pd.DataFrame(table, index=pd.Index(np.arange(len(labels)).astype(str), name="image"))
    factories.write_study(folder, sweep_path, runs, history)
    table.to_csv(folder / per_item.NAME)
    return runs, history, table


def load(sweep_path: Path, runs: pd.DataFrame, history: pd.DataFrame) -> tuple:
    sweep = load_sweep(sweep_path)
    study = load_study(sweep)
    return sweep, study, completeness.check(sweep, study, runs, history)


def test_errors_per_class_are_those_of_the_images(sweep_path: Path, tmp_path: Path) -> None:
    runs, history, table = write_study(tmp_path / "s", sweep_path)
    sweep, study, book = load(sweep_path, runs, history)
    figure, caption = classification.class_errors(sweep, study, book, table)
    dots = figure.axes[0].collections[1].get_offsets()  # lines, then marks, a pair a variant
    own = table[table["label"] == 0][book.runs(sweep.cells[0])]
    assert dots[0][0] == pytest.approx(100 * np.median((own != 0).mean()))
    assert dots[1:, 0].max() == 0
    assert f"the {CLASSES} of {CLASSES} classes" in caption
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert ticks[0] == f"class 0 ({EACH})"
    named = study.model_copy(update={"class_names": "gtsrb"})
    assert classification.class_name(named, 14) == "14 stop"
    assert len(classification.GTSRB) == 43


def test_confusions_are_means_over_the_best_variants_runs(sweep_path: Path, tmp_path: Path) -> None:
    runs, history, table = write_study(tmp_path / "s", sweep_path)
    sweep, study, book = load(sweep_path, runs, history)
    best = [r for r in table.columns if r.startswith("bnsgd")]
    table[best[0]] = table[best[0]].mask(table["label"] == 3, -1)  # as a diverged run has it
    values = completeness.scores(sweep, book, runs, "test/error")
    figure, caption, shown = classification.confusion(sweep, study, book, table, values)
    assert shown == best
    mean = np.mean([((table["label"] == 0) & (table[r] == 1)).sum() for r in best])
    picture = figure.axes[0].images[0].get_array()
    assert picture[0, 1] == pytest.approx(mean)
    assert f"class 0 taken for class 1: {mean:.1f}" in caption
    assert np.ma.masked_invalid(picture).count() == 1


def test_the_interval_over_images_stands_beside_the_one_over_seeds(
    sweep_path: Path, tmp_path: Path
) -> None:
    _, _, table = write_study(tmp_path / "s", sweep_path)
    report.main([str(tmp_path / "s"), "--sweep", str(sweep_path)])
    results = json.loads((tmp_path / "s" / "results.json").read_text())
    assert {"fig9_class_errors", "fig9_confusion"} <= set(results["captions"])
    assert results["test_images"] == len(table)
    for row in results["contrasts"]:
        assert row["test_set_low"] <= row["difference"] <= row["test_set_high"]
    text = (tmp_path / "s" / "report.md").read_text()
    assert "Interval over seeds: what other seeds would give on these test images." in text
    assert re.search(r"Interval over images: what other images of the same kind would give", text)
    assert robustness.SEVERAL_OF_ONE_SIGN in text
    assert results["collapsed"] == []


def test_runs_that_see_one_class_everywhere_are_named(sweep_path: Path, tmp_path: Path) -> None:
    _, _, table = write_study(tmp_path / "s", sweep_path)
    table["nosgd01"] = 2
    table.to_csv(tmp_path / "s" / per_item.NAME)
    results = factories.report(tmp_path / "s", sweep_path)
    assert results["collapsed"] == ["nosgd01"]
    assert "1 run(s) take every test image for one class" in (
        (tmp_path / "s" / "report.md").read_text()
    )


def test_the_interval_over_images_covers_what_other_images_give(tmp_path: Path) -> None:
    sweep = load_sweep(factories.write_sweep(tmp_path / "made_up.yaml", seeds=5))
    study = load_study(sweep)
    rng, covered = np.random.default_rng(0), []
    for _ in range(60):
        hard = rng.uniform(0, 0.4, 300)[:, None]  # images differ; all runs see the same ones
        lower = {cell: 0.3 * (cell[0] is True) for cell in sweep.cells}
        per_image = {
            cell: (rng.uniform(size=(300, 5)) < hard * (1 - lower[cell])).astype(float)
            for cell in sweep.cells
        }
        intervals = contrasts.over_images(sweep, study, per_image, [True] * 3, resamples=300)
        covered.append(intervals[0][0] <= -0.3 * 0.2 <= intervals[0][1])
    assert 0.85 < np.mean(covered) <= 1.0
    one = contrasts.over_images(sweep, study, per_image, [True] * 3, resamples=300)
    assert one == contrasts.over_images(sweep, study, per_image, [True] * 3, resamples=300)
