"""Figures of runs and contrasts: what is drawn is what the tables hold, readable in one column."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis import report
from analysis.figures import catalogue, effects, style
from analysis.figures import scores as score_figures
from analysis.grid import load_study, load_sweep
from analysis.runs import completeness, histories
from analysis.statistics import rank_tests
from tests import factories

PRINTED = 3.4 / style.COLUMN  # a paper's column, in figures' inches


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """Give a 2×2 sweep with seven seeds."""
    return factories.write_sweep(tmp_path / "made_up.yaml")


def load(sweep_path: Path, runs: pd.DataFrame, history: pd.DataFrame) -> tuple:
    """Return sweep, study and ledger of made-up tables."""
    sweep = load_sweep(sweep_path)
    study = load_study(sweep).model_copy(update={"smallest_effect": 0.005})
    return sweep, study, completeness.check(sweep, study, runs, history)


def scores(runs: pd.DataFrame, book: completeness.Ledger, sweep: object) -> dict:
    return completeness.scores(sweep, book, runs, "test/error")


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
    runs.loc[mask, ["test/error", "test/error_at_best_val", "diverged"]] = [1.0, 1.0, True]
    return runs, history[(history["run_id"] != "nosgd02") | (history["epoch"] == 1)]


def crosses(figure: Figure) -> list[tuple[float, float]]:
    found = [line for axis in figure.axes for line in axis.lines if line.get_marker() == "x"]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in found]


def test_curves_keep_seeds_in_order_and_count_what_diverged_as_worst(sweep_path: Path) -> None:
    runs, history = diverged(*factories.tables(sweep_path))
    history = history.sample(frac=1, random_state=0)
    sweep, study, book = load(sweep_path, runs, history)
    assert histories.column(study, history) == "val/error"
    found = histories.by_cell(sweep, study, book, history, "val/error")
    own = history[history["run_id"] == "bnadam04"].sort_values("epoch")["val/error"]
    np.testing.assert_array_equal(found[(True, "adam")][4], own)
    assert found[(False, "sgd")][2, 1:].tolist() == [1.0, 1.0]
    assert histories.column(study, history.drop(columns="val/error")) is None


def test_runs_that_stopped_early_are_seen_where_they_stopped(sweep_path: Path) -> None:
    runs, history = crashed_and_made_again(*diverged(*factories.tables(sweep_path)))
    sweep, study, book = load(sweep_path, runs, history)
    assert not book.problems
    figure, caption = score_figures.learning_curves(sweep, study, book, history, "val/error")
    last = history[history["run_id"] == "lost"].sort_values("epoch")["val/error"].iloc[-1]
    first = history[history["run_id"] == "nosgd02"]["val/error"].iloc[0]
    assert crosses(figure) == [(1, pytest.approx(100 * first)), (2, pytest.approx(100 * last))]
    assert "Crosses: 2 run(s) that stopped before the end" in caption
    strip, caption = score_figures.integrity(sweep, study, book)
    texts = [text.get_text() for text in strip.axes[0].texts]
    assert sum("again" in text for text in texts) == 1
    assert sum("diverged" in text for text in texts) == 1
    assert "27 finished, 1 diverged" in caption


def test_an_incomplete_study_is_drawn_apart_until_it_is_complete(
    sweep_path: Path, tmp_path: Path
) -> None:
    runs, history = factories.tables(sweep_path)
    cut = history[(history["run_id"] != "bnsgd03") | (history["epoch"] < 3)]
    half = runs.assign(state=runs["state"].mask(runs["run_id"] == "bnsgd03", "crashed"))
    folder = tmp_path / "s"
    factories.write_study(folder, sweep_path, half, cut)
    with pytest.raises(SystemExit, match="What there is, drawn"):
        factories.report(folder, sweep_path)
    drawn = {path.stem for path in (folder / report.INCOMPLETE).iterdir()}
    assert drawn == {"fig1_learning_curves", "fig7_integrity"}
    sidecar = json.loads((folder / report.INCOMPLETE / "fig7_integrity.json").read_text())
    assert "27 finished, 1 crashed" in sidecar["caption"]
    factories.write_study(folder, sweep_path, runs, history)
    factories.report(folder, sweep_path)
    assert not (folder / report.INCOMPLETE).exists()


def test_only_runs_that_stopped_are_crossed(sweep_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    twin = runs[runs["run_id"] == "bnsgd03"].assign(run_id="twin")
    rows = history[history["run_id"] == "bnsgd03"].assign(run_id="twin")
    tables = pd.concat([runs, twin]), pd.concat([history, rows])
    sweep, study, book = load(sweep_path, *tables)
    assert [e.state for e in book.entries].count("duplicate") == 1
    figure, caption = score_figures.learning_curves(sweep, study, book, tables[1], "val/error")
    assert crosses(figure) == []
    assert "Crosses" not in caption


def test_a_variant_without_curves_leaves_the_others_drawn(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    history.loc[history["run_id"].str.startswith("bnsgd"), "val/error"] = None
    sweep, study, book = load(sweep_path, runs, history)
    rows = report.analyse(sweep, study, book, runs, None)["contrasts"]
    drawn = catalogue.draw(
        sweep, study, book, runs, history, rows, None, None, tmp_path, sweep_path
    )
    assert len(drawn) == 8
    for one in drawn.values():
        one.figure.canvas.draw()


def test_difference_curves_end_at_the_contrast(sweep_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    history.loc[history["epoch"] == 3, "val/error"] = runs["test/error"].to_numpy()
    sweep, study, book = load(sweep_path, runs, history)
    figure, caption = effects.difference_curves(sweep, study, book, history, "val/error")
    results = report.analyse(sweep, study, book, runs, None)
    for axis, row in zip(figure.axes, results["contrasts"], strict=True):
        bold = next(line for line in axis.lines if line.get_linewidth() > 1.5)
        assert bold.get_ydata()[-1] == pytest.approx(100 * np.median(row["per_seed"]))
    assert "not a test" in caption


def test_pairs_of_variants_say_who_is_better(sweep_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    sweep, study, book = load(sweep_path, runs, history)
    values = scores(runs, book, sweep)
    figure, _ = effects.improvement(sweep, study, book, values)
    shown = [float(text.get_text()) for text in figure.axes[0].texts]
    first, second = list(values)[:2]
    assert shown[0] == round(rank_tests.a12(values[first], values[second]), 2)  # lower is better
    better = study.model_copy(update={"direction": "higher"})
    figure, _ = effects.improvement(sweep, better, book, values)
    other = [float(text.get_text()) for text in figure.axes[0].texts]
    np.testing.assert_allclose(np.add(shown, other), 1, atol=0.011)


@pytest.mark.parametrize("direction", ["lower", "higher"])
def test_runs_that_never_reach_the_threshold_stay_in_the_share(
    sweep_path: Path, direction: str
) -> None:
    runs, history = factories.tables(sweep_path, (-0.02, 0, 0))
    if direction == "higher":
        history["val/error"] = 1 - history["val/error"]
    sweep, study, book = load(sweep_path, runs, history)
    threshold = history["val/error"][history["run_id"] == "noadam00"].iloc[-1]
    study = study.model_copy(update={"threshold": threshold, "direction": direction})
    figure, caption = score_figures.epochs_until(sweep, study, book, history, "val/error")
    last = history[history["epoch"] == 3].set_index("run_id")["val/error"]
    reached = last <= threshold if direction == "lower" else last >= threshold
    expected = reached[reached.index.str.startswith("noadam")].sum()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert 0 < expected < 7
    assert labels[0].endswith(f": {expected} of 7")
    assert labels[2].endswith(": 7 of 7")
    assert "declared beforehand" in caption
    study = study.model_copy(update={"threshold": None})
    assert (
        "weakest variant's median"
        in score_figures.epochs_until(sweep, study, book, history, "val/error")[1]
    )


def test_every_figure_is_readable_in_a_papers_column(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = crashed_and_made_again(*diverged(*factories.tables(sweep_path)))
    sweep, study, book = load(sweep_path, runs, history)
    rows = report.analyse(sweep, study, book, runs, None)["contrasts"]
    drawn = catalogue.draw(
        sweep, study, book, runs, history, rows, None, None, tmp_path, sweep_path
    )
    assert len(drawn) == 8
    for name, one in drawn.items():
        assert one.figure.get_figwidth() == style.COLUMN, name
        one.figure.canvas.draw()
        box = one.figure.bbox
        for text in one.figure.findobj(Text):
            if not text.get_visible() or not text.get_text().strip():
                continue
            assert text.get_fontsize() * PRINTED >= 4.8, (name, text.get_text())
        for axis in one.figure.axes:
            for text in [axis.xaxis.label, axis.yaxis.label, axis.title, *axis.get_yticklabels()]:
                extent = text.get_window_extent()
                inside = extent.x0 >= box.x0 - 1 and extent.x1 <= box.x1 + 1
                assert inside or not text.get_text(), (name, text.get_text())
        assert set(one.runs) <= set(runs["run_id"])


def test_many_seeds_and_many_variants_keep_to_the_column(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "method: grid\nmetric: {name: val/error, goal: minimize}\nparameters:\n"
        "  a: {values: [1, 2, 3, 4, 5, 6, 7]}\n  b: {values: [x, y]}\n"
        f"  seed: {{values: {list(range(30))}}}\n"
    )
    sweep = load_sweep(path)
    rng = np.random.default_rng(0)
    rows = [
        {"run_id": f"{a}{b}{s}", "a": a, "b": b, "seed": s, "test/error": rng.uniform(0.1, 0.2)}
        for a, b in sweep.cells
        for s in sweep.seeds
    ]
    runs = pd.DataFrame(rows).assign(state="finished", exit_code=0, source="s", diverged=False)
    history = pd.DataFrame({"run_id": runs["run_id"], "epoch": 1, "val/error": runs["test/error"]})
    study = load_study(sweep)
    book = completeness.check(sweep, study, runs, history)
    values = scores(runs, book, sweep)
    for figure, _ in (
        score_figures.integrity(sweep, study, book),
        score_figures.final_scores(sweep, study, book, values),
        effects.improvement(sweep, study, book, values),
    ):
        assert figure.get_figwidth() == style.COLUMN
        assert figure.get_figheight() < 9
    figure, _ = score_figures.integrity(sweep, study, book)
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks == ["0", "3", "6", "9", "12", "15", "18", "21", "24", "27"]
