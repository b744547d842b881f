"""Figures of runs and contrasts: what is drawn is what the tables hold, readable in one column."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis import report
from analysis.figures import catalogue, curves, overview, style
from analysis.figures import scores as score_figures
from analysis.runs import histories
from analysis.runs.data import StudyData
from analysis.statistics import rank_tests
from analysis.statistics import results as study_results
from lib.spec.metric_declaration import metric
from tests import factories

PRINTED = 3.4 / style.COLUMN  # a paper's column, in figures' inches


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """Give a 2×2 sweep with seven seeds."""
    return factories.write_sweep(tmp_path / "made_up.yaml")


def load(
    sweep_path: Path, runs: pd.DataFrame, history: pd.DataFrame, **declared: object
) -> StudyData:
    """Return the data of simulated tables, with a smallest effect of half a point."""
    declared = {"smallest_effect": 0.005} | declared
    return factories.data(factories.study(sweep_path, **declared), runs, history)


ERROR = metric("val/error")


def crashed_and_made_again(
    runs: pd.DataFrame, history: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Add a run that crashed after two epochs to the cell and seed of bnsgd03, which finished."""
    lost = runs[runs["run_id"] == "bnsgd03"].assign(run_id="lost", state="crashed", exit_code=None)
    rows = history[(history["run_id"] == "bnsgd03") & (history["epoch"] < 3)]
    return pd.concat([runs, lost]), pd.concat([history, rows.assign(run_id="lost")])


def diverged(runs: pd.DataFrame, history: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Let nosgd02 diverge in its first epoch."""
    mask = runs["run_id"] == "nosgd02"
    runs.loc[mask, ["summary.test/error", "summary.test/error_at_best_val"]] = 1.0
    runs.loc[mask, "summary.diverged"] = True
    return runs, history[(history["run_id"] != "nosgd02") | (history["epoch"] == 1)]


def crosses(figure: Figure) -> list[tuple[float, float]]:
    found = [line for axis in figure.axes for line in axis.lines if line.get_marker() == "x"]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in found]


def test_curves_keep_seeds_in_order_and_count_what_diverged_as_worst(sweep_path: Path) -> None:
    runs, history = diverged(*factories.tables(sweep_path))
    history = history.sample(frac=1, random_state=0)
    data = load(sweep_path, runs, history)
    assert histories.curve_metric(data).key == "val/error"
    found = histories.curves(data, "val/error")
    own = history[history["run_id"] == "bnadam04"].sort_values("epoch")["val/error"]
    np.testing.assert_array_equal(found[2, 4], own)
    assert found[1, 2, 1:].tolist() == [1.0, 1.0]
    bare = dataclasses.replace(data, history=history.drop(columns="val/error"))
    assert histories.curve_metric(bare) is None
    top5 = {"key": "test/top5_accuracy", "goal": "maximize"}
    plan = factories.study(sweep_path, metric=top5)
    both = data.history.assign(**{"val/accuracy": 0.9, "val/top5_accuracy": 0.99})
    bare = dataclasses.replace(data, study=plan, history=both)
    assert histories.curve_metric(bare).key == "val/top5_accuracy"


def test_runs_that_stopped_early_are_seen_where_they_stopped(sweep_path: Path) -> None:
    runs, history = crashed_and_made_again(*diverged(*factories.tables(sweep_path)))
    data = load(sweep_path, runs, history)
    assert not data.completeness.problems
    figure = curves.learning_curves(data, ERROR)
    caption = curves.learning_curves_caption(data, ERROR)
    last = history[history["run_id"] == "lost"].sort_values("epoch")["val/error"].iloc[-1]
    edge, stop = crosses(figure)
    assert edge[1] == 1  # in shares of the axis: at its upper edge
    assert stop == (2, pytest.approx(100 * last))
    assert "1 failed" in [text.get_text() for axis in figure.axes for text in axis.texts]
    assert max(axis.get_ylim()[1] for axis in figure.axes) < 50, "not stretched to 100 %"
    assert "Crosses at the edge, at no particular epoch: 1 failed run." in caption
    assert "Crosses: 1 run stopped before the end" in caption
    strip, caption = score_figures.integrity(data), score_figures.integrity_caption(data)
    texts = [text.get_text() for text in strip.axes[0].texts]
    assert sum("rerun" in text for text in texts) == 1
    assert sum("diverged" in text for text in texts) == 1
    assert "27 finished, 1 diverged" in caption


def test_an_incomplete_study_is_drawn_apart_until_it_is_complete(
    sweep_path: Path, tmp_path: Path
) -> None:
    runs, history = factories.tables(sweep_path)
    cut = history[(history["run_id"] != "bnsgd03") | (history["epoch"] < 3)]
    half = runs.assign(state=runs["state"].mask(runs["run_id"] == "bnsgd03", "crashed"))
    folder = tmp_path / "s"
    factories.write_study(folder, half, cut)
    with pytest.raises(report.IncompleteError, match="Figures of the available runs"):
        factories.report(folder, sweep_path)
    drawn = {path.stem for path in (folder / report.INCOMPLETE).iterdir()}
    assert drawn == {"fig1_learning_curves", "fig7_integrity"}
    sidecar = json.loads((folder / report.INCOMPLETE / "fig7_integrity.json").read_text())
    assert "27 finished, 1 crashed" in sidecar["caption"]
    factories.write_study(folder, runs, history)
    factories.report(folder, sweep_path)
    assert not (folder / report.INCOMPLETE).exists()


def test_only_runs_that_stopped_are_crossed(sweep_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    twin = runs[runs["run_id"] == "bnsgd03"].assign(run_id="twin")
    rows = history[history["run_id"] == "bnsgd03"].assign(run_id="twin")
    tables = pd.concat([runs, twin]), pd.concat([history, rows])
    data = load(sweep_path, *tables)
    assert [e.state for e in data.completeness.entries].count("duplicate") == 1
    figure = curves.learning_curves(data, ERROR)
    caption = curves.learning_curves_caption(data, ERROR)
    assert crosses(figure) == []
    assert "Crosses" not in caption


def test_a_variant_without_curves_leaves_the_others_drawn(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    history.loc[history["run_id"].str.startswith("bnsgd"), "val/error"] = None
    data = load(sweep_path, runs, history)
    drawn = catalogue.pictures(data, study_results.analyze(data))
    assert len(drawn) == 9
    for one in drawn:
        one.draw().canvas.draw()


def test_difference_curves_end_at_the_contrast(sweep_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    history.loc[history["epoch"] == 3, "val/error"] = runs["summary.test/error"].to_numpy(float)
    data = load(sweep_path, runs, history)
    figure = curves.difference_curves(data, ERROR)
    results = study_results.analyze(data)
    for axis, row in zip(figure.axes, results["contrasts"], strict=True):
        bold = next(line for line in axis.lines if line.get_linewidth() > 1.5)
        assert bold.get_ydata()[-1] == pytest.approx(100 * np.median(row["per_seed"]))
    assert "not a test" in curves.difference_curves_caption(data, ERROR)


def test_pairs_of_variants_say_who_is_better(sweep_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    data = load(sweep_path, runs, history)
    figure = score_figures.improvement(data)
    shown = [float(text.get_text()) for text in figure.axes[0].texts]
    first, second = data.scores[:2]
    assert shown[0] == round(rank_tests.a12(first, second), 2)  # lower is better
    higher = {"key": "test/error", "goal": "maximize", "bounds": [0, 1]}
    path = sweep_path.with_name("other.yaml")
    path.write_text(sweep_path.read_text().replace("val/error", "val/x"))
    better = factories.data(factories.study(path, metric=higher), runs, history)
    other = [float(text.get_text()) for text in score_figures.improvement(better).axes[0].texts]
    np.testing.assert_allclose(np.add(shown, other), 1, atol=0.011)


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_runs_that_never_reach_the_target_stay_in_the_share(sweep_path: Path, goal: str) -> None:
    runs, history = factories.tables(sweep_path, (-0.02, 0, 0))
    own = {"key": "test/score", "goal": goal, "bounds": [0, 1], "decimals": 3}
    sweep_path.write_text(sweep_path.read_text().replace("val/error", "val/x"))
    runs["summary.test/score"] = runs["summary.test/error"]
    history["val/score"] = history["val/error"] if goal == "minimize" else 1 - history["val/error"]
    target = float(history["val/score"][history["run_id"] == "noadam00"].iloc[-1])
    declared = {"metric": own, "target_value": target}
    data = factories.data(factories.study(sweep_path, **declared), runs, history)
    shown = histories.curve_metric(data)
    assert shown.key == "val/score"
    figure = curves.epochs_until(data, shown)
    last = history[history["epoch"] == 3].set_index("run_id")["val/score"]
    reached = last <= target if goal == "minimize" else last >= target
    expected = reached[reached.index.str.startswith("noadam")].sum()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert 0 < expected < 7
    assert labels[0].endswith(f": {expected} of 7")
    assert labels[2].endswith(": 7 of 7")
    assert "(declared)" in curves.epochs_until_caption(data, shown)
    data = factories.data(factories.study(sweep_path, metric=own), runs, history)
    assert "worst variant's median" in curves.epochs_until_caption(data, shown)


def test_every_figure_is_readable_in_a_papers_column(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = crashed_and_made_again(*diverged(*factories.tables(sweep_path)))
    data = load(sweep_path, runs, history)
    drawn = catalogue.pictures(data, study_results.analyze(data))
    assert len(drawn) == 9
    for one in drawn:
        name, figure = one.name, one.draw()
        assert figure.get_figwidth() == style.COLUMN, name
        figure.canvas.draw()
        box = figure.bbox
        for text in figure.findobj(Text):
            if not text.get_visible() or not text.get_text().strip():
                continue
            assert text.get_fontsize() * PRINTED >= 4.8, (name, text.get_text())
        for axis in figure.axes:
            for text in [axis.xaxis.label, axis.yaxis.label, axis.title, *axis.get_yticklabels()]:
                extent = text.get_window_extent()
                inside = extent.x0 >= box.x0 - 1 and extent.x1 <= box.x1 + 1
                assert inside or not text.get_text(), (name, text.get_text())
        assert set(one.runs) <= set(runs["run_id"])


def test_the_headline_has_scores_and_differences_on_one_scale(sweep_path: Path) -> None:
    data = load(sweep_path, *diverged(*factories.tables(sweep_path)))
    rows = study_results.analyze(data)["contrasts"]
    assert overview.has_overview(data, rows)
    top, bottom = overview.overview(data, rows).axes
    spans = [high - low for low, high in (top.get_xlim(), bottom.get_xlim())]
    assert spans[0] == pytest.approx(spans[1])
    dots = [line.get_xdata()[0] for line in bottom.lines if line.get_marker() == "o"]
    assert dots == pytest.approx([100 * row["difference"] for row in rows])
    low, high = bottom.get_xlim()
    assert all(low < 100 * row[end] < high for row in rows for end in ("ci_low", "ci_high"))
    assert any("failed" in text.get_text() for text in top.texts)
    assert "Crosses at the edge" in overview.overview_caption(data, rows)


def test_no_headline_where_one_run_is_far_off(sweep_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    runs.loc[3, "summary.test/error"] = 0.99
    data = load(sweep_path, runs, history)
    assert not overview.has_overview(data, study_results.analyze(data)["contrasts"])


def test_many_seeds_and_many_variants_keep_to_the_column(tmp_path: Path) -> None:
    path = factories.grid(tmp_path / "s.yaml", {"a": list(range(1, 8)), "b": ["x", "y"]}, 30)
    rng, plan = np.random.default_rng(0), factories.study(path)
    scores = {variant: rng.uniform(0.1, 0.2, 30).tolist() for variant in plan.variants}
    data = factories.data(plan, *factories.scored(path, scores))
    for draw in (score_figures.integrity, score_figures.final_scores, score_figures.improvement):
        figure = draw(data)
        assert figure.get_figwidth() == style.COLUMN
        assert figure.get_figheight() < 9
    figure = score_figures.integrity(data)
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks == ["0", "3", "6", "9", "12", "15", "18", "21", "24", "27"]


def test_levels_may_be_empty_or_hold_dollars(tmp_path: Path) -> None:
    path = factories.grid(tmp_path / "s.yaml", {"root": ["", "${oc.env:A}_${b}/x"]}, 6)
    rng = np.random.default_rng(0)
    scores = {(level,): rng.uniform(0.1, 0.2, 6).tolist() for level in ("", "${oc.env:A}_${b}/x")}
    folder = factories.write_study(tmp_path / "study", *factories.scored(path, scores))
    factories.report(folder, path, draw=True)
    page = (folder / "report.md").read_text()
    assert 'root = ""' in page
    assert "root = ${oc.env:A}_${b}/x" in page
