"""Evaluations at some epochs only, early stopping, overwritten summaries, metrics nobody logged."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.figures import curves
from analysis.runs import histories
from analysis.runs.load import load_data
from analysis.runs.tables import TableError
from tests import factories

KEY = "test/error"
SCORES = {("a",): [0.1, 0.11, 0.12, 0.13, 0.14, 0.15], ("b",): [0.2, 0.22, 0.21, 0.23, 0.24, 0.25]}


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """Give a sweep of two variants with six seeds."""
    return factories.grid(tmp_path / "s.yaml", {"algo": ["a", "b"]}, 6)


def tables(sweep_path: Path, epochs: list[int], last: dict[str, int] | None = None) -> tuple:
    """Return runs with a value of the score at each of ``epochs``, or up to the ``last``."""
    runs, _ = factories.scored(sweep_path, SCORES)
    rows = []
    for run_id, score in zip(runs["run_id"], runs["summary.test/error"], strict=True):
        for epoch in epochs:
            if epoch <= (last or {}).get(run_id, epochs[-1]):
                rows.append({"run_id": run_id, "epoch": epoch, "test/error": score})
    return runs, pd.DataFrame(rows)


def test_an_evaluation_at_every_fifth_epoch_is_complete(sweep_path: Path, tmp_path: Path) -> None:
    folder = factories.write_study(tmp_path / "t", *tables(sweep_path, list(range(5, 55, 5))))
    results = factories.report(folder, sweep_path)
    assert results["budget"] == "50 epochs"
    page = (folder / "report.md").read_text()
    assert "mean of the last five evaluations" in page
    assert "last five epochs" not in page
    data = load_data(factories.study(sweep_path), folder)
    assert histories.axis_values(data).tolist() == list(range(5, 55, 5))


def test_a_run_that_lacks_an_evaluation_of_the_others_is_short(
    sweep_path: Path, tmp_path: Path
) -> None:
    runs, history = tables(sweep_path, [5, 10, 15])
    history = history[~((history["run_id"] == "b-3") & (history["epoch"] == 10))]
    said = factories.refusal(factories.write_study(tmp_path / "t", runs, history), sweep_path)
    assert "run b-3 has missing epochs: 2 rows, but last epoch 15" in said
    assert said.count("missing epochs") == 1


def test_a_last_evaluation_off_the_schedule_is_nobodys_gap(
    sweep_path: Path, tmp_path: Path
) -> None:
    """One run stops early at 13 and is evaluated there; the others have 5, 10, 15."""
    runs, history = tables(sweep_path, [5, 10, 15], {"b-2": 10})
    extra = pd.DataFrame([{"run_id": "b-2", "epoch": 13, KEY: 0.21}])
    history = pd.concat([history, extra], ignore_index=True)
    folder = factories.write_study(tmp_path / "t", runs, history)
    said = factories.refusal(folder, sweep_path)
    assert "missing epochs" not in said
    assert "run b-2 has 13 of 15 epochs" in said
    assert factories.report(folder, sweep_path, "epochs")["budget"] == "up to 15 epochs"


@pytest.mark.parametrize(("last", "accepted"), [(10, True), (8, False)])
def test_the_last_evaluation_is_within_one_interval_of_the_end(
    tmp_path: Path, last: int, accepted: bool
) -> None:
    """Evaluations every second epoch of 11: the last is at 10."""
    sweep = factories.grid(tmp_path / "s.yaml", {"algo": ["a", "b"]}, 6, epochs=11)
    runs, history = tables(sweep, list(range(2, last + 1, 2)))
    folder = factories.write_study(tmp_path / "t", runs, history)
    if accepted:
        assert factories.report(folder, sweep)["budget"] == "11 epochs"
    else:
        assert "has 8 of 11 epochs" in factories.refusal(folder, sweep)


def test_a_factor_of_epochs_is_not_a_difference_of_lengths(tmp_path: Path) -> None:
    sweep = factories.grid(tmp_path / "s.yaml", {"epochs": [2, 8]}, 6)
    scores = {(2,): SCORES["a",], (8,): SCORES["b",]}
    runs, _ = factories.scored(sweep, scores)
    rows = [
        {"run_id": run_id, "epoch": epoch, KEY: score}
        for run_id, epochs, score in zip(
            runs["run_id"], runs["config.epochs"], runs[f"summary.{KEY}"], strict=True
        )
        for epoch in range(2, epochs + 1, 2)
    ]
    folder = factories.write_study(tmp_path / "t", runs, pd.DataFrame(rows))
    for allow in ([], ["epochs"]):
        results = factories.report(folder, sweep, *allow)
        assert results["budget"] == "2 or 8 epochs"
        assert results["allowed"] == {}


def test_a_gap_of_one_run_stays_a_gap(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = tables(sweep_path, [1, 2, 3, 4])
    history = history[~((history["run_id"] == "a-0") & (history["epoch"] == 3))]
    folder = factories.write_study(tmp_path / "t", runs, history)
    curve = histories.curves(load_data(factories.study(sweep_path), folder), KEY)[0, 0]
    assert np.isfinite(curve).tolist() == [True, True, False, True]


def test_curves_join_evaluations_between_which_other_rows_lie(
    sweep_path: Path, tmp_path: Path
) -> None:
    runs, history = tables(sweep_path, list(range(1, 11)))
    history["train/loss"] = 1.0
    history.loc[history["epoch"] % 5 != 0, "test/error"] = np.nan
    folder = factories.write_study(tmp_path / "t", runs, history)
    data = load_data(factories.study(sweep_path), folder)
    curve = histories.curves(data, "test/error")[0, 0]
    assert np.isnan(curve[:4]).all()
    assert np.isfinite(curve[4:]).all()


def test_early_stopping_is_refused_and_may_be_allowed(sweep_path: Path, tmp_path: Path) -> None:
    folder = factories.write_study(tmp_path / "t", *tables(sweep_path, [1, 2, 3, 4], {"b-2": 3}))
    said = factories.refusal(folder, sweep_path)
    assert "run b-2 has 3 of 4 epochs" in said
    assert "--allow epochs" in said
    results = factories.report(folder, sweep_path, "epochs")
    assert results["budget"] == "up to 4 epochs"
    assert list(results["allowed"]) == ["epochs"]
    assert "finished runs have different numbers of epochs" in (folder / "report.md").read_text()
    data = load_data(factories.study(sweep_path), folder, any_length=True)
    caption = curves.learning_curves_caption(data, data.study.metric)
    assert "After the end of a run, median and band are over the others." in caption
    assert "3 to 4 epochs" in results["allowed"]["epochs"]


def test_with_equal_lengths_nothing_is_waived(sweep_path: Path, tmp_path: Path) -> None:
    folder = factories.write_study(tmp_path / "t", *tables(sweep_path, [1, 2]))
    results = factories.report(folder, sweep_path, "epochs")
    assert results["allowed"] == {}
    assert results["budget"] == "2 epochs"


def test_a_summary_with_the_best_value_is_not_the_last_epoch(
    sweep_path: Path, tmp_path: Path
) -> None:
    """The best of b looks better than a; at the last epoch it is worse."""
    runs, history = tables(sweep_path, [1, 2, 3])
    b = runs["run_id"].str.startswith("b")
    history.loc[history["run_id"].str.startswith("b") & (history["epoch"] == 2), KEY] = 0.05
    runs.loc[b, f"summary.{KEY}"] = 0.05
    folder = factories.write_study(tmp_path / "t", runs, history)
    results = factories.report(folder, sweep_path)
    assert results["contrasts"][0]["difference"] == pytest.approx(0.1)
    said = (folder / "report.md").read_text()
    assert "In 6 runs the summary has the best `test/error` of the history, not the last." in said
    assert results["runs"]["b-0"]["score"] == pytest.approx(0.2)

    runs["source"] = "export.csv"  # charts of the app may be smoothed
    folder = factories.write_study(tmp_path / "csv", runs, history)
    results = factories.report(folder, sweep_path)
    assert results["contrasts"][0]["difference"] < 0


def test_a_final_test_under_the_same_key_stays_the_score(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = tables(sweep_path, [1, 2, 3])
    history[KEY] += 0.3
    runs.loc[runs["run_id"] == "a-0", ["summary.diverged", f"summary.{KEY}"]] = [True, 1.0]
    folder = factories.write_study(tmp_path / "t", runs, history)
    results = factories.report(folder, sweep_path)
    assert results["runs"]["b-0"]["score"] == pytest.approx(0.2)
    assert results["runs"]["a-0"]["score"] == 1.0
    said = (folder / "report.md").read_text()
    assert "In 11 runs the summary has another `test/error` than the last one in the" in said
    assert "the best `test/error`" not in said


def test_a_metric_that_no_run_has_is_named_once(sweep_path: Path, tmp_path: Path) -> None:
    folder = factories.write_study(tmp_path / "t", *tables(sweep_path, [1, 2]))
    with pytest.raises(TableError, match="no run has the metric test/errors") as error:
        factories.report(folder, sweep_path, metric={"key": "test/errors", "goal": "minimize"})
    said = str(error.value)
    assert "Did you mean test/error?" in said
    assert "fill_in" not in said
