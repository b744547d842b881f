"""Reports on one recipe next to published scores: contrasts, words, table of runs, figures."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, wilcoxon

from analysis import calibrate
from analysis.figures import misclassified
from analysis.runs import per_item
from analysis.runs.tables import TableError, read_tables, write_tables
from analysis.statistics import contrasts, grades, sentences, testing
from analysis.statistics.pilot import contrast_deviation, read_pilot
from lib.spec.declaration import StudyError
from tests import factories

SWEEP = """\
program: train_gtsrb_challenge.py
method: grid
metric: {name: train/error, goal: minimize}
parameters:
  seed: {values: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}
  epochs: {value: 2}
"""
DECLARED = {
    "smallest_effect": 0.001,
    "published_scores": {"people": 0.05, "the best network": 0.0211},
    "labels": {"recipe": "our network"},
    "cumulative_steps": {"test/error_one_view": "one view", "test/error": "two views"},
    "data_source": "Drawn.",
}
IMAGES, WRONG = 1000, [20, 21, 22, 19, 18, 20, 23, 17, 25, 16]  # mistakes by seed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give the folder of a finished study of ten runs that differ in their seed."""
    (tmp_path / "recipe.yaml").write_text(SWEEP)
    folder = tmp_path / "results"
    labels = np.arange(IMAGES) % 5
    names = [f"{i:05d}.ppm" for i in range(IMAGES)]
    widths, known = 25 + np.arange(IMAGES) % 100, np.arange(IMAGES) >= IMAGES - 4
    runs, history = [], []
    for seed, wrong in enumerate(WRONG):
        predicted = np.where(np.arange(IMAGES) < wrong, (labels + 1) % 5, labels)
        summary = {"test/error": wrong / IMAGES, "test/error_one_view": (wrong + 2) / IMAGES}
        config = {"seed": seed, "epochs": 2}
        runs.append(factories.run_row(f"r{seed}", config, summary | {"diverged": False}))
        history += [
            {"run_id": f"r{seed}", "epoch": e, "train/error": 0.1 / e + seed / 1e6, "seconds": 30}
            for e in (1, 2)
        ]
        (folder / per_item.FILES / f"r{seed}").mkdir(parents=True)
        np.savez(
            folder / per_item.FILES / f"r{seed}" / per_item.SCORES,
            names=names,
            labels=labels,
            predicted=predicted,
            widths=widths,
            in_training=known,
            mistakes=np.arange(wrong),
            mistaken_images=np.zeros((wrong, 3, 32, 32), dtype=np.uint8),
        )
    factories.write_study(folder, factories.runs_table(runs), pd.DataFrame(history))
    assert not per_item.write(folder, [run["run_id"] for run in runs])
    return folder


def sweep_of(folder: Path) -> Path:
    return folder.parent / "recipe.yaml"


def report(folder: Path, draw: bool = False, **declared: object) -> dict:
    return factories.report(folder, sweep_of(folder), draw=draw, **DECLARED | declared)


def refusal(folder: Path, **declared: object) -> str:
    return factories.refusal(folder, sweep_of(folder), **DECLARED | declared)


def compared(folder: Path, published: float, scores: list[float], metric: str) -> tuple:
    """Return study and tested contrast of ``scores`` with one published score."""
    declared = {"metric": metric, "published_scores": {"them": published}}
    plan = factories.study(sweep_of(folder), smallest_effect=0.001, **declared)
    (contrast,) = contrasts.build(plan, np.array([scores]))
    (tested,) = testing.run_tests([contrast], 0.05, paired=True)
    return plan, tested


def test_each_published_score_is_a_contrast_with_an_exact_test(folder: Path) -> None:
    results = report(folder)
    people, best = results["contrasts"]
    errors = np.array(WRONG) / IMAGES
    assert people["p"] == pytest.approx(wilcoxon(errors - 0.05, method="exact").pvalue)
    assert people["p_holm"] == pytest.approx(2 * people["p"])
    assert people["difference"] == pytest.approx(-0.03, abs=5e-4)
    assert people["grade"] == "meaningful"
    assert (
        "Our network has a lower (better) test error than the published 5.00 %"
        in people["sentence"]
    )
    assert people["label"] == "Our network against people"
    assert best["grade"] == "inconclusive"
    assert people["both_low"] < people["items_low"] < people["difference"]
    assert people["difference"] < people["items_high"] < people["both_high"] < -0.001
    (note,) = [note for note in people["notes"] if "seeds and test items" in note]
    assert note.startswith("Interval over seeds and test items together: [−")
    page = (folder / "report.md").read_text()
    assert "single number" in page
    low, high = (results["published_scores"]["people"][end] for end in ("low", "high"))
    assert (low, high) == pytest.approx(tuple(binomtest(50, IMAGES).proportion_ci()))
    assert f"| people | 5.00 | {100 * low:.2f} to {100 * high:.2f} |" in re.sub(" +", " ", page)


def test_test_items_may_take_a_claim_away(folder: Path) -> None:
    """2.0 % of 1,000 images against 2.6 %: clear over seeds, not on other images."""
    (row,) = report(folder, published_scores={"them": 0.026}, smallest_effect=0.0001)["contrasts"]
    assert row["p_holm"] < 0.01
    assert row["p_beyond"] < 0.01
    assert row["both_high"] > 0
    assert row["grade"] == "inconclusive"
    assert "does not allow the grade from seeds alone: meaningful" in row["notes"][0]
    for path in (folder / per_item.FILES).rglob("*.npz"):
        path.unlink()
    (folder / per_item.NAME).unlink()
    (row,) = report(folder)["contrasts"][:1]
    assert (row["p_holm"] < 0.01, row["grade"]) == (True, "inconclusive")
    assert "no interval over both is known here, so no claim is made" in row["notes"][0]


def test_clusters_of_items_widen_the_interval_over_items(folder: Path) -> None:
    """Ten runs of mistakes on the first images: as clusters of 20 they are one mistake."""
    apart = report(folder)["contrasts"][0]
    for seed in range(10):
        path = folder / per_item.FILES / f"r{seed}" / per_item.SCORES
        arrays = dict(np.load(path))
        np.savez(path, **arrays, cluster=[f"patient {i // 20}" for i in range(IMAGES)])
    per_item.write(folder, [f"r{i}" for i in range(10)])
    found = report(folder)
    together = found["contrasts"][0]
    assert together["items_high"] - together["items_low"] > 3 * (
        apart["items_high"] - apart["items_low"]
    )
    assert "one cluster" in found["about_test_items"]
    for seed in range(10):
        path = folder / per_item.FILES / f"r{seed}" / per_item.SCORES
        np.savez(path, **dict(np.load(path)) | {"cluster": [str(i % 3) for i in range(IMAGES)]})
    (folder / per_item.NAME).unlink()
    per_item.write(folder, [f"r{i}" for i in range(10)])
    few = report(folder)
    assert few["test_items"] is None
    assert "fewer than 20 clusters" in few["about_test_items"]


def test_every_run_is_listed_with_its_mistakes(folder: Path) -> None:
    """The last four images are twins, which no run mistakes: without them errors are higher."""
    results = report(folder)
    assert [row["mistakes"] for row in results["by_seed"]] == WRONG
    assert results["duplicates"] == 4
    for row, wrong in zip(results["by_seed"], WRONG, strict=True):
        assert row["without_duplicates"] == pytest.approx(wrong / (IMAGES - 4))
        assert row["others"] == {"test/error_one_view": pytest.approx((wrong + 2) / IMAGES)}
    (step,) = results["steps"]
    assert (step["before"], step["step"]) == ("one view", "two views")
    assert step["difference"] == pytest.approx(-0.002)
    assert (step["lower"], step["higher"]) == (10, 0)
    page = (folder / "report.md").read_text()
    assert re.search(r"\| 4 +\| +98.20 \| +18 \| +98.19 \| +98.00 \| +1.0 \| r4 ", page)
    assert "4 test items are identical to training items" in page


@pytest.mark.slow
def test_the_figures_show_the_median_runs_mistakes(folder: Path) -> None:
    captions = report(folder, draw=True) and results_of(folder)["captions"]
    assert {"fig3_final_scores", "fig14_mistakes", "fig15_widths"} <= set(captions)
    assert "20 of 1,000 test images" in captions["fig14_mistakes"]
    assert captions["fig14_mistakes"].endswith("Drawn. Run: r5.")
    assert "the worse of the middle two" in captions["fig14_mistakes"]
    assert "their median, 98" in captions["fig3_final_scores"]
    assert not {"fig5_interaction", "fig8_improvement", "fig10_epochs_until"} & set(captions)
    drawn = (folder / "figures" / "fig14_mistakes.png").read_bytes()
    for path in (folder / per_item.FILES).rglob("*.npz"):
        path.unlink()
    report(folder, draw=True)  # the table of items is enough
    assert (folder / "figures" / "fig14_mistakes.png").read_bytes() == drawn


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize(("metric", "run"), [("test/error", "r0"), ("test/accuracy", "r2")])
def test_the_median_run_of_an_even_number_is_the_worse(folder: Path, metric: str, run: str) -> None:
    text = SWEEP.replace("[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]", "[0, 1, 2, 3]")
    (folder.parent / "four.yaml").write_text(text.replace("train/error", "train/loss"))
    plan = factories.study(folder.parent / "four.yaml", metric=metric)
    runs, history = factories.scored(
        folder.parent / "four.yaml", {(): [0.3, 0.1, 0.2, 0.4]}, metric
    )
    runs["run_id"] = history["run_id"] = [f"r{i}" for i in range(4)]
    assert misclassified.median_run(factories.data(plan, runs, history)) == run


def test_scores_that_round_to_the_published_one_are_equal(folder: Path) -> None:
    """68 of 12,630 images are 99.46 %, and so is 0.0054; 67 are 99.47 %."""
    scores = [68 / 12630] * 9 + [67 / 12630]
    differences = compared(folder, 0.0054, scores, "test/error")[1].contrast.differences
    assert (differences[:9] == 0).all()
    assert differences[9] == pytest.approx(67 / 12630 - 0.0054)
    plan, tested = compared(folder, 0.0054, [68 / 12630] * 10, "test/error")
    words = sentences.sentence(grades.grade(tested, plan), tested, plan)
    assert words == "Recipe against them: every run has the published score, in all digits shown."


def test_a_pilot_of_one_variant_says_how_much_a_run_varies(folder: Path) -> None:
    plan = factories.study(sweep_of(folder), **DECLARED)
    pilot = read_pilot(folder, plan)
    assert pilot.deviation == pytest.approx(np.std(np.array(WRONG) / IMAGES, ddof=1))
    assert contrast_deviation(plan, pilot.deviation) == pilot.deviation


def test_runs_without_a_declared_step_are_refused(folder: Path) -> None:
    runs, history = read_tables(folder)
    write_tables(folder, runs.drop(columns="summary.test/error_one_view"), history)
    assert "no numbers under test/error_one_view" in refusal(folder)


def test_runs_that_disagree_on_a_width_are_refused(folder: Path) -> None:
    path = folder / per_item.FILES / "r3" / per_item.SCORES
    arrays = dict(np.load(path))
    arrays["widths"][7] += 1
    np.savez(path, **arrays)
    with pytest.raises(TableError, match=r"'00007.*': runs have different values of width"):
        per_item.write(folder, [f"r{i}" for i in range(10)])


def test_a_validation_score_is_called_one(folder: Path) -> None:
    plan, tested = compared(folder, 0.03, [wrong / IMAGES for wrong in WRONG], "val/error")
    words = sentences.sentence("preliminary_support", tested, plan)
    assert "lower (better) validation error than the published 3.00 %" in words


def test_a_published_score_in_percent_is_refused(folder: Path) -> None:
    with pytest.raises(StudyError, match=r"published_scores.them = 99.46 is outside the bounds"):
        compared(folder, 99.46, [], "test/error")


def test_a_run_that_diverged_took_images_for_no_class(folder: Path) -> None:
    path = folder / per_item.FILES / "r0" / per_item.SCORES
    arrays = dict(np.load(path))
    predicted = np.where(np.arange(IMAGES) < 600, -1, arrays["labels"])
    np.savez(path, **arrays | {"predicted": predicted})
    per_item.write(folder, [f"r{i}" for i in range(10)])
    runs, history = read_tables(folder)
    # r0 is the worse of the middle two.
    runs["summary.test/error"] = [0.6, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.8, 0.9, 1.0]
    plan = factories.study(sweep_of(folder), **DECLARED)
    data = factories.data(plan, runs, history, per_item.read(folder), folder)
    figure = misclassified.pictures(data)
    assert figure.axes[0].get_title() == "class 0\n→ no class\n25 px"


def test_published_scores_need_a_sweep_that_varies_the_seed_only(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "there is nothing to compare" in refusal(
        folder, published_scores={}, cumulative_steps={}
    )
    plan = factories.study(sweep_of(folder), **DECLARED)
    path = plan.places.declaration("recipe")
    words = ["calibrate", str(sweep_of(folder)), "--study", str(path)]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit, match="requires a study with at least one factor"):
        calibrate.main()
    sweep = factories.write_sweep(tmp_path / "made_up.yaml")
    with pytest.raises(StudyError, match="also varies batch_norm, optimizer"):
        factories.study(sweep, published_scores={"them": 0.03})


def test_an_npz_of_another_kind_is_refused(folder: Path) -> None:
    path = folder / per_item.FILES / "r3" / per_item.SCORES
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(TableError, match=r"must contain `items` .*; got weights"):
        per_item.write(folder, [f"r{i}" for i in range(10)])


def test_a_published_score_is_paired_with_every_repeat(tmp_path: Path) -> None:
    """Its copies are not independent runs: five runs cannot show any difference."""
    (tmp_path / "recipe.yaml").write_text(SWEEP.replace("seed: {values", "trial: {values"))
    plan = factories.study(
        tmp_path / "recipe.yaml", published_scores={"people": 0.02}, seed="trial"
    )
    scores = np.array([[0.011, 0.012, 0.013, 0.014, 0.015]])
    (tested,) = testing.run_tests(contrasts.build(plan, scores), 0.05, paired=False)
    assert tested.paired
    assert tested.test.p == pytest.approx(wilcoxon(scores[0] - 0.02, method="exact").pvalue)
    assert grades.grade(tested, plan) == "not_testable"


def test_steps_leave_out_failed_runs(folder: Path) -> None:
    runs, history = read_tables(folder)
    runs.loc[runs["run_id"].isin(["r3", "r5"]), "summary.diverged"] = True
    runs.loc[runs["run_id"] == "r3", "summary.test/error_one_view"] = 1.0
    write_tables(folder, runs, history)
    found = factories.report(folder, sweep_of(folder), **DECLARED)
    (step,) = found["steps"]
    assert (step["lower"], step["higher"]) == (8, 0)
    assert step["ci_high"] < 0
    assert [row["score"] for row in found["by_seed"] if row["run"] == "r5"] == [1.0]
