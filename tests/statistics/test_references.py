"""Reports on one recipe beside published scores: its contrasts, words, table of runs, figures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from analysis import calibrate, grid, report
from analysis.figures import misclassified
from analysis.plan import contrast_deviation, read_pilot
from analysis.runs import completeness, per_item
from analysis.runs.tables import TableError, read_tables, write_tables
from analysis.statistics import contrasts, grades
from tests import factories

SWEEP = """\
program: train_gtsrb_challenge.py
method: grid
metric: {name: train/error, goal: minimize}
parameters:
  seed: {values: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}
  epochs: {value: 2}
"""
STUDY = """\
metric: test/error
direction: lower
smallest_effect: 0.001
references: {people: 0.03, the best network: 0.0211}
labels: {recipe: our network}
steps: {test/error_one_view: one view, test/error: two views}
data_source: Drawn.
"""
IMAGES, WRONG = 1000, [20, 21, 22, 19, 18, 20, 23, 17, 25, 16]  # mistakes by seed


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Give the folder of a finished study of ten runs that differ in their seed, and its sweep."""
    monkeypatch.setattr(grid, "STUDIES", tmp_path / "studies")
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "recipe.yaml").write_text(STUDY)
    sweep, folder = tmp_path / "recipe.yaml", tmp_path / "results"
    sweep.write_text(SWEEP)
    labels = np.arange(IMAGES) % 5
    names = [f"{i:05d}.ppm" for i in range(IMAGES)]
    widths, twins = 25 + np.arange(IMAGES) % 100, np.arange(IMAGES) >= IMAGES - 4
    runs, history = [], []
    for seed, wrong in enumerate(WRONG):
        predicted = np.where(np.arange(IMAGES) < wrong, (labels + 1) % 5, labels)
        run = {"run_id": f"r{seed}", "state": "finished", "exit_code": 0, "seed": seed, "epochs": 2}
        run |= {"test/error": wrong / IMAGES, "test/error_one_view": (wrong + 2) / IMAGES}
        runs.append(run | {"diverged": False, "source": f"r{seed}"})
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
            in_training=twins,
            mistakes=np.arange(wrong),
            mistaken_images=np.zeros((wrong, 3, 32, 32), dtype=np.uint8),
        )
    write_tables(folder, pd.DataFrame(runs), pd.DataFrame(history), ["epochs"])
    assert not per_item.write(folder, [run["run_id"] for run in runs])
    return folder, sweep


def test_each_reference_is_a_contrast_with_an_exact_test(study: tuple[Path, Path]) -> None:
    results = factories.report(*study)
    people, best = results["contrasts"]
    errors = np.array(WRONG) / IMAGES
    assert people["p"] == pytest.approx(wilcoxon(errors - 0.03, method="exact").pvalue)
    assert people["p_holm"] == pytest.approx(2 * people["p"])
    assert people["difference"] == pytest.approx(-0.01, abs=5e-4)
    assert people["state"] == "meaningful"
    assert (
        "our network has a lower (better) test error than the published 3.00 %"
        in (people["sentence"])
    )
    assert people["label"] == "Our network against people"
    assert best["state"] == "inconclusive"
    low, high = people["test_set_low"], people["test_set_high"]
    assert low < people["difference"] < high
    assert "single number" in results["pairing"]


def test_every_run_is_listed_with_its_mistakes(study: tuple[Path, Path]) -> None:
    """The last four images are twins, which no run mistakes: without them errors are higher."""
    results = factories.report(*study)
    assert [row["mistakes"] for row in results["by_seed"]] == WRONG
    assert results["twins"] == 4
    for row, wrong in zip(results["by_seed"], WRONG, strict=True):
        assert row["without_twins"] == pytest.approx(wrong / (IMAGES - 4))
        assert row["others"] == {"test/error_one_view": pytest.approx((wrong + 2) / IMAGES)}
    (step,) = results["steps"]
    assert (step["before"], step["step"]) == ("one view", "two views")
    assert step["difference"] == pytest.approx(-0.002)
    assert (step["lower"], step["higher"]) == (10, 0)
    page = (study[0] / "report.md").read_text()
    assert "| 4 | r4 | 98.20 | 18 | 98.19 | 98.00 | 1.0 |" in page
    assert "4 of the test images are, pixel by pixel" in page


def test_the_figures_show_the_median_runs_mistakes(
    study: tuple[Path, Path], capsys: pytest.CaptureFixture
) -> None:
    folder, sweep = study
    report.main([str(folder), "--sweep", str(sweep)])
    captions = json.loads((folder / "results.json").read_text())["captions"]
    assert {"fig3_final_scores", "fig14_mistakes", "fig15_widths"} <= set(captions)
    assert "20 of 1,000 test images" in captions["fig14_mistakes"]
    assert captions["fig14_mistakes"].endswith("Drawn. Run: r5.")
    assert "the worse of the middle two" in captions["fig14_mistakes"]
    assert "their median, 98" in captions["fig3_final_scores"]
    assert not {"fig5_interaction", "fig8_improvement", "fig10_epochs_until"} & set(captions)
    drawn = (folder / "figures" / "fig14_mistakes.png").read_bytes()
    for path in (folder / per_item.FILES).rglob("*.npz"):
        path.unlink()
    report.main([str(folder), "--sweep", str(sweep)])  # the table of images is enough
    assert (folder / "figures" / "fig14_mistakes.png").read_bytes() == drawn


def test_the_median_run_of_an_even_number_is_the_worse() -> None:
    class Book:
        def runs(self, cell: tuple) -> list[str]:
            return ["a", "b", "c", "d"]

    study = grid.Study(metric="test/error", direction="lower")
    assert misclassified.median_run(study, Book(), (), [0.3, 0.1, 0.2, 0.4]) == "a"
    higher = study.model_copy(update={"direction": "higher"})
    assert misclassified.median_run(higher, Book(), (), [0.3, 0.1, 0.2, 0.4]) == "c"


def test_scores_that_round_to_the_published_one_are_equal(study: tuple[Path, Path]) -> None:
    """68 of 12,630 images are 99.46 %, and so is 0.0054; 67 are 99.47 %."""
    plan = grid.load_sweep(study[1])
    own = grid.Study(metric="test/error", direction="lower", references={"them": 0.0054})
    (contrast,) = contrasts.build(plan, own, {(): [68 / 12630] * 9 + [67 / 12630]})
    assert (contrast.differences[:9] == 0).all()
    assert contrast.differences[9] == pytest.approx(67 / 12630 - 0.0054)
    (contrast,) = contrasts.build(plan, own, {(): [68 / 12630] * 10})
    (tested,) = contrasts.test([contrast], 0.05, paired=True)
    state = grades.decide(tested, 1, own, rules_agree=True)
    words = grades.sentence(state, tested, 1, own, 2, rules_agree=True)
    assert words == "Recipe against them: every run has the published score, to its last digit."


def test_a_pilot_of_one_variant_says_how_much_a_run_varies(study: tuple[Path, Path]) -> None:
    folder, sweep = study
    plan = grid.load_sweep(sweep)
    pilot = read_pilot(folder, grid.load_study(plan), plan)
    assert pilot.deviation == pytest.approx(np.std(np.array(WRONG) / IMAGES, ddof=1))
    assert contrast_deviation(plan, pilot.deviation) == pilot.deviation


def test_runs_without_a_declared_step_are_refused(study: tuple[Path, Path]) -> None:
    runs, history = read_tables(study[0])
    write_tables(study[0], runs.drop(columns="test/error_one_view"), history, ["epochs"])
    assert "lacks test/error_one_view" in factories.refusal(*study)


def test_runs_that_disagree_on_a_width_are_refused(study: tuple[Path, Path]) -> None:
    folder, _ = study
    path = folder / per_item.FILES / "r3" / per_item.SCORES
    arrays = dict(np.load(path))
    arrays["widths"][7] += 1
    np.savez(path, **arrays)
    with pytest.raises(TableError, match="disagree on the width of 00007"):
        per_item.write(folder, [f"r{i}" for i in range(10)])


def test_a_validation_score_is_called_one(study: tuple[Path, Path]) -> None:
    plan = grid.load_sweep(study[1])
    own = {"direction": "lower", "smallest_effect": 0.001, "references": {"them": 0.03}}
    own = grid.Study(metric="val/error", **own)
    built = contrasts.build(plan, own, {(): [wrong / IMAGES for wrong in WRONG]})
    (tested,) = contrasts.test(built, 0.05, paired=True)
    words = grades.sentence("meaningful", tested, 1, own, 2, rules_agree=True)
    assert "lower (better) validation error than the published 3.00 %" in words
    assert "on this data set and validation set, " in words


def test_a_reference_in_percent_is_refused(study: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "studies" / "recipe.yaml").write_text(STUDY.replace("0.0211", "99.46"))
    assert "references.the best network = 99.46: Input should be less" in factories.refusal(*study)


def test_a_run_that_diverged_took_images_for_no_class(study: tuple[Path, Path]) -> None:
    folder, sweep = study
    plan = grid.load_sweep(sweep)
    path = folder / per_item.FILES / "r0" / per_item.SCORES
    np.savez(path, **dict(np.load(path)) | {"predicted": np.full(IMAGES, -1)})
    per_item.write(folder, [f"r{i}" for i in range(10)])
    runs, history = read_tables(folder)
    book = completeness.check(plan, grid.load_study(plan), runs, history)
    order = [6, 1, 2, 3, 4, 5, 7, 8, 9, 10]  # r0 is the worse of the middle two
    figure, *_ = misclassified.pictures(
        grid.load_study(plan), book, per_item.read(folder), (), order, folder / per_item.FILES
    )
    assert figure.axes[0].get_title() == "class 0\n→ no class\n25 px"


def test_references_need_a_sweep_that_varies_the_seed_only(
    study: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, sweep = study
    (tmp_path / "studies" / "recipe.yaml").write_text(STUDY.split("references")[0])
    assert "nothing to compare, unless" in factories.refusal(folder, sweep)
    (tmp_path / "studies" / "recipe.yaml").write_text(STUDY)
    monkeypatch.setattr("sys.argv", ["calibrate", str(sweep)])
    with pytest.raises(SystemExit, match="nothing to deal"):
        calibrate.main()
    (tmp_path / "studies" / "made_up.yaml").write_text(STUDY)
    sweep = factories.write_sweep(tmp_path / "made_up.yaml")
    factories.write_study(tmp_path / "other", sweep, *factories.tables(sweep))
    assert "varies batch_norm, optimizer, but" in factories.refusal(tmp_path / "other", sweep)
