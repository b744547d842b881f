"""Reports of segmentation studies: higher is better, per-image figures, the published table."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.figures import catalogue, segmentation
from analysis.pages import formats, run_tables
from analysis.runs import per_item
from analysis.runs.data import StudyData
from analysis.runs.load import load_data
from analysis.runs.tables import TableError
from analysis.statistics import jsrt_benchmark
from analysis.statistics import results as study_results
from lib.spec.declaration import StudyError
from lib.spec.load import load_study
from tests import factories

SWEEP = """\
program: train_unet.py
method: grid
metric: {{name: val/jaccard, goal: maximize}}
parameters:
  upsampling: {{values: [transposed, nearest]}}
  activation: {{values: [relu, elu]}}
  seed: {{values: {seeds}}}
  epochs: {{value: 3}}
"""
FOLDS = """\
program: train_unet.py
method: grid
metric: {name: val/jaccard, goal: maximize}
parameters:
  fold: {values: [odd, even]}
  seed: {values: [0, 1, 2]}
  image_size: {value: 256}
  width: {value: 8}
  epochs: {value: 2}
"""
COUNT = 30
NAMES = [f"JPCLN{n:03d}" for n in range(1, 155)] + [f"JPCNN{n:03d}" for n in range(1, 94)]


def write_study(folder: Path, sweep_path: Path, gain: float) -> pd.DataFrame:
    """Write a finished study in which nearest has a higher Jaccard by ``gain``, and its files."""
    plan = factories.study(sweep_path)
    rng = np.random.default_rng(0)
    names, difficulty = np.array(NAMES[:COUNT]), rng.normal(0, 0.02, COUNT)
    disc = np.hypot(*np.meshgrid(*[np.linspace(-1, 1, 32)] * 2)) < 0.6
    runs, history = [], []
    for up, act in plan.variants:
        for seed in plan.seeds:
            run_id = f"{up[0]}{act[0]}{seed:02d}"
            jaccard = 0.9 + difficulty + gain * (up == "nearest") + rng.normal(0, 0.001, COUNT)
            (folder / "files" / run_id).mkdir(parents=True)
            path = folder / "files" / run_id
            dice = 2 * jaccard / (1 + jaccard)
            np.savez(path / per_item.SCORES, names=names, jaccard=jaccard, dice=dice)
            pictures = rng.integers(0, 255, (COUNT, 1, 32, 32), dtype=np.uint8)
            masks = np.broadcast_to(disc, (COUNT, 1, 32, 32))
            np.savez(
                path / per_item.OVERLAYS, names=names, images=pictures, truth=masks, predicted=masks
            )
            config = {"upsampling": up, "activation": act, "seed": seed, "epochs": 3}
            score = float(jaccard.mean())
            summary = {"test/jaccard": score, "diverged": False, "test_item": "radiograph"}
            runs.append(factories.run_row(run_id, config, summary))
            history += [
                {"run_id": run_id, "epoch": e, "val/jaccard": score - 0.3**e} for e in (1, 2, 3)
            ]
    runs = factories.runs_table(runs)
    factories.write_study(folder, runs, pd.DataFrame(history))
    return runs


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, Path]:
    """Give sweep and tables of a study with seven seeds in which nearest is better by 0.02."""
    sweep_path = tmp_path / "lungs.yaml"
    sweep_path.write_text(SWEEP.format(seeds=list(range(7))))
    folder = tmp_path / "results" / "lungs"
    runs = write_study(folder, sweep_path, 0.02)
    assert per_item.write(folder, runs["run_id"].tolist()) == []
    return sweep_path, folder


def test_higher_is_better_in_words_and_figures(study: tuple[Path, Path]) -> None:
    sweep_path, folder = study
    factories.report(folder, sweep_path, draw=True)
    results = json.loads((folder / "results.json").read_text())
    first = results["contrasts"][0]
    assert first["difference"] == pytest.approx(0.02, abs=1e-3)
    assert "gives a higher (better) test Jaccard index" in first["sentence"]
    assert results["goal"] == "maximize"
    assert {"fig9_dice_ecdf", "fig9_overlays"} <= set(results["captions"])
    caption = results["captions"]["fig9_overlays"]
    median = per_item.dice(per_item.read(folder)).median(axis=1)
    assert f"{median.idxmin()}, " in caption
    assert f" and {median.idxmax()} have" in caption
    assert results["cross_validation"] is None
    assert results["test_items"] == COUNT
    for row in results["contrasts"]:
        assert row["items_low"] < row["difference"] < row["items_high"]
    assert first["items_low"] > 0.019, "images differ in difficulty, not in what is gained"

    shutil.rmtree(folder / "files")  # as in a clone: the committed figure stays, with its runs
    page = (folder / "report.md").read_text()
    assert "do not extend to new radiographs" in page
    factories.report(folder, sweep_path, draw=True)
    assert (folder / "report.md").read_text() == page
    (folder / "figures" / "fig9_overlays.png").unlink()
    factories.report(folder, sweep_path, draw=True)
    assert "fig9_overlays" not in (folder / "report.md").read_text()


def test_the_run_shown_is_the_median_one() -> None:
    dice = pd.Series({"a": 0.9, "b": 0.5, "c": 0.7, "d": 0.6}, name="JPCLN001")
    assert segmentation._median_run(dice) == ("JPCLN001", "d", 0.6)
    assert segmentation._median_run(dice.drop("d")) == ("JPCLN001", "c", 0.7)


def test_images_of_signs_have_labels(tmp_path: Path) -> None:
    for run, predicted in (("a", [1, 2, 3]), ("b", [1, -1, 3])):
        (tmp_path / "files" / run).mkdir(parents=True)
        arrays = {"labels": [1, 2, 2], "predicted": predicted, "probability": [0.5] * 3}
        path = tmp_path / "files" / run / per_item.SCORES
        np.savez(path, names=["1.ppm", "2.ppm", "3.ppm"], **arrays)
    assert per_item.write(tmp_path, ["a", "b", "c"]) == ["c"]
    text = (tmp_path / per_item.NAME).read_text()
    assert text.splitlines() == [
        "item,label,predicted.a,predicted.b",
        "1.ppm,1,1,1",
        "2.ppm,2,2,-1",
        "3.ppm,2,3,3",
    ]
    shutil.rmtree(tmp_path / "files")
    assert per_item.write(tmp_path, ["a", "b"]) == []
    assert (tmp_path / per_item.NAME).read_text() == text, "what an earlier fetch wrote is kept"
    (tmp_path / per_item.NAME).write_text(text[:-3])
    with pytest.raises(TableError, match="is truncated"):
        per_item.read(tmp_path)


def test_damaged_files_are_reported(tmp_path: Path) -> None:
    (tmp_path / "files" / "a").mkdir(parents=True)
    (tmp_path / "files" / "a" / per_item.SCORES).write_bytes(b"PK half a file")
    with pytest.raises(TableError, match="is damaged"):
        per_item.write(tmp_path, ["a"])


@pytest.fixture
def folds(tmp_path: Path) -> StudyData:
    """Give the data of a simulated two-fold sweep, next to the lungs' tables."""
    path = tmp_path / "folds.yaml"
    path.write_text(FOLDS)
    rng, columns, runs, history = np.random.default_rng(0), {}, [], []
    for fold in ("odd", "even"):
        names = [name for name in NAMES if int(name[-1]) % 2 == (fold == "odd")]
        for seed in range(3):
            config = {"fold": fold, "seed": seed, "image_size": 256, "width": 8, "epochs": 2}
            summary = {"split_sha256": f"{fold} {seed}", "order_sha256": f"{fold} {seed}"}
            summary |= {"test/jaccard": 0.95 + seed / 1000, "diverged": False}
            runs.append(factories.run_row(f"{fold}{seed}", config, summary))
            columns[f"jaccard.{fold}{seed}"] = pd.Series(rng.uniform(0.9, 0.98, len(names)), names)
            history += [{"run_id": f"{fold}{seed}", "epoch": e, "val/jaccard": 0.9} for e in (1, 2)]
    folder = tmp_path / "results" / "folds"
    factories.write_study(folder, factories.runs_table(runs), pd.DataFrame(history))
    pd.DataFrame(columns).sort_index().to_csv(folder / per_item.NAME, index_label="item")
    return load_data(factories.study(path), folder)


def test_the_folds_are_pooled_over_all_images(folds: StudyData) -> None:
    table, jaccard = jsrt_benchmark.summarize(folds), jsrt_benchmark.overlaps(folds)
    pooled = jaccard["odd1"].fillna(0) + jaccard["even1"].fillna(0)
    assert table["seeds"][1]["mean"] == pytest.approx(np.mean(pooled), rel=1e-12)
    assert table["seeds"][1]["sd"] == pytest.approx(np.std(pooled, ddof=1), rel=1e-12)
    assert table["n_images"] == 247
    median = np.sort(np.nanmedian(jaccard, axis=1))
    assert [worst["median"] for worst in table["worst"]] == pytest.approx(median[:10].tolist())
    assert table["without_worst"] == pytest.approx(median[10:].mean())
    assert ("Human observer", 0.946, 0.018) in jsrt_benchmark.PUBLISHED


def test_other_images_are_never_compared_with_the_published_table(folds: StudyData) -> None:
    def summarize(table: pd.DataFrame) -> None:
        jsrt_benchmark.summarize(dataclasses.replace(folds, per_item=table))

    table = folds.per_item
    with pytest.raises(StudyError, match="such as case1"):
        summarize(table.rename(index={"JPCLN001": "case1"}))
    with pytest.raises(StudyError, match="246 images"):
        summarize(table.iloc[1:])
    twice = table.copy()
    twice.loc["JPCLN001", "jaccard.even2"] = 0.9
    with pytest.raises(StudyError, match="seed 2: each image must be tested exactly once"):
        summarize(twice)


def test_report_and_readme_show_the_folds(
    study: tuple[Path, Path], folds: StudyData, tmp_path: Path
) -> None:
    sweep_path, folder = study
    places = dataclasses.replace(factories.places(tmp_path), results=tmp_path / "results")
    declared = {"metric": "test/jaccard", "cross_validation": "folds"}
    chosen = dataclasses.replace(factories.study(sweep_path, **declared), places=places)
    data = load_data(chosen, folder)
    results = study_results.analyze(data)
    assert results["cross_validation"]["mean"] == jsrt_benchmark.summarize(folds)["mean"]
    text = formats.to_markdown(run_tables.cross_validation(results))
    assert re.search(r"\| Human observer \(2006\) +\| +0.946 ± 0.018 \|", text)
    names = [picture.name for picture in catalogue.pictures(data, results)]
    assert "fig9_worst_images" in names
    (folds.folder / per_item.NAME).unlink()
    assert "per item" in jsrt_benchmark.load(chosen)["missing"]
    shutil.rmtree(folds.folder)
    missing = jsrt_benchmark.load(chosen)
    assert missing == {"sweep": "folds", "missing": "its runs have not been fetched"}


def test_folds_have_no_image_that_every_variant_tested() -> None:
    """So the figure of three images by variant is left out; the committed study of folds."""
    study = load_study("unet_folds")
    data = load_data(study, study.places.tables(study.name))
    assert segmentation.overlays_runs(data) == []
    results = study_results.analyze(data)
    names = {picture.name for picture in catalogue.pictures(data, results)}
    assert "fig9_overlays" not in names
    assert "fig9_dice_ecdf" in names
