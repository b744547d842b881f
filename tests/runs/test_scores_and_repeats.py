"""Scores that only the history has, and replicates that are runs without a seed."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import mannwhitneyu

from analysis.runs.data import StudyData
from analysis.runs.load import load_data
from analysis.runs.tables import TableError
from lib.spec.declaration import StudyError
from tests import factories

KEY = "eval/f1"


def logged(tmp_path: Path, step: str, epochs: int = 8, **declared: Any) -> StudyData:
    """Return a study whose runs log eval/f1 and val/f1 over ``step``; summaries say nothing."""
    sweep = factories.grid(tmp_path / "s.yaml", {"algo": ["a", "b"]}, 6, metric="x")
    sweep.write_text(sweep.read_text().replace("name: x", f"name: {KEY}").replace("min", "max"))
    study = factories.study(sweep, metric=KEY, **declared)
    rng, runs, history = np.random.default_rng(0), [], []
    for algo in "ab":
        for seed in study.seeds:
            runs.append(factories.run_row(f"{algo}{seed}", {"algo": algo, "seed": seed}, {}))
            for at in range(1, epochs + 1):
                value = 0.5 + 0.1 * (algo == "b") + rng.normal(0, 0.01)
                row = {"run_id": f"{algo}{seed}", step: 10 * at, KEY: value}
                history.append(row | {"val/f1": 1 - abs(at - 3) / 10})  # best at the third
            history.append({"run_id": f"{algo}{seed}", step: 10 * (epochs + 1), "train/loss": 1.0})
    folder = tmp_path / "t"
    factories.write_tables(folder, factories.runs_table(runs), pd.DataFrame(history), axis=step)
    return load_data(study, folder)


@pytest.mark.parametrize(
    ("score", "rows"),
    [
        ("last", [8]),
        ({"mean_last": 5}, [4, 5, 6, 7, 8]),
        ({"at_best": "val/f1"}, [3]),
    ],
)
@pytest.mark.parametrize("step", ["global_step", "epoch"])
def test_scores_of_the_history(tmp_path: Path, score: Any, rows: list[int], step: str) -> None:
    data = logged(tmp_path, step, score=score)
    values = data.history.dropna(subset=[KEY]).set_index(["run_id", "epoch"])[KEY]
    expected = [
        [np.mean([values[f"{algo}{seed}", 10 * at] for at in rows]) for seed in range(6)]
        for algo in "ab"
    ]
    assert data.completeness.problems == []  # also with a row at every tenth epoch only
    np.testing.assert_allclose(data.values(data.study.score_key()), expected, rtol=1e-12)
    assert "evaluation" in data.study.rule_words
    assert all(data.has(data.study.score_key(rule)) for rule in ("last", "mean_last_5"))


def test_a_summary_is_not_replaced_by_the_history(tmp_path: Path) -> None:
    """A run without the score that others have is a fault of that run."""
    sweep = factories.grid(tmp_path / "s.yaml", {"algo": ["a", "b"]}, 6)
    scores = {("a",): [0.1, 0.11, 0.12, 0.13, 0.14, 0.15], ("b",): [0.2] * 5 + [float("nan")]}
    runs, history = factories.scored(sweep, scores)
    history["test/error"] = 0.5
    message = factories.refusal(factories.write_study(tmp_path / "t", runs, history), sweep)
    assert "run b-5 has no test/error in its summary" in message


def test_runs_with_fewer_rows_than_the_rule_needs(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no run has the mean of the last five evaluations of"):
        logged(tmp_path, "global_step", epochs=4, score={"mean_last": 5})


# Replicates without a seed


def repeats(
    tmp_path: Path, sizes: tuple[int, int], crashed: int = 0
) -> tuple[Path, Path, dict[str, list[float]]]:
    """Write a study whose runs differ in nothing that their configuration says."""
    sweep = tmp_path / "s.yaml"
    raw = {"method": "grid", "program": "train.py", "metric": {"name": "x", "goal": "minimize"}}
    raw["parameters"] = {"algo": {"values": ["a", "b"]}, "epochs": {"value": 1}}
    sweep.write_text(yaml.safe_dump(raw))
    rng, rows, scores = np.random.default_rng(1), [], {"a": [], "b": []}
    for algo, number in zip("ab", sizes, strict=True):
        for k in range(number + (crashed if algo == "b" else 0)):
            score = 0.3 + 0.1 * (algo == "b") + rng.normal(0, 0.01)
            row = factories.run_row(
                f"{algo}{99 - k}", {"algo": algo, "epochs": 1}, {"test/error": score}
            )
            row["created"] = f"2026-01-01T00:{k:02d}:00"
            if k >= number:
                row |= {"state": "crashed", "exit_code": 1}
            else:
                scores[algo].append(score)
            rows.append(row)
    runs = factories.runs_table(rows)
    history = pd.DataFrame({"run_id": runs["run_id"], "epoch": 1, "val/error": 0.5})
    history["val/error"] = np.linspace(0.4, 0.5, len(history))
    return factories.write_study(tmp_path / "t", runs, history), sweep, scores


def test_runs_without_a_seed_are_unpaired_replicates(tmp_path: Path) -> None:
    folder, sweep, scores = repeats(tmp_path, (8, 8))
    with pytest.raises(StudyError) as error:
        factories.study(sweep, metric="test/error")
    assert "declare `seed: {repeat: true}`" in str(error.value)
    results = factories.report(folder, sweep, seed={"repeat": True})
    (row,) = results["contrasts"]
    expected = mannwhitneyu(scores["b"], scores["a"], method="exact").pvalue
    assert (row["paired"], row["n"]) == (False, 8)
    assert row["p"] == pytest.approx(expected)
    assert results["unpaired"][0].startswith("replicates are numbered in the order")
    found = load_data(factories.study(sweep, seed={"repeat": True}), folder)
    assert found.values("test/error")[0].tolist() == scores["a"]  # by creation, not by id


def test_unequal_numbers_of_runs_are_reported(tmp_path: Path) -> None:
    folder, sweep, scores = repeats(tmp_path, (8, 6), crashed=1)
    declared = {"seed": {"repeat": True}}
    message = factories.refusal(folder, sweep, **declared)
    assert "Runs to add, started in the same way as the others: algo=b: 2 more" in message
    assert "algo=b, (repeat)=6: missing" in message
    results = factories.report(folder, sweep, "seeds", **declared)
    assert "excluded runs: a92, a93" in results["allowed"]["seeds"]  # the last two of algo a
    expected = mannwhitneyu(scores["b"], scores["a"][:6], method="exact").pvalue
    assert results["contrasts"][0]["p"] == pytest.approx(expected)
    page = (folder / "report.md").read_text()
    assert "Not included: run b93 is crashed." in page


def test_looks_need_seeds(tmp_path: Path) -> None:
    _, sweep, _ = repeats(tmp_path, (2, 2))
    with pytest.raises(StudyError, match="looks need planned seeds"):
        factories.study(sweep, seed={"repeat": True}, looks={8: 0.05})
    with pytest.raises(StudyError, match=r"seed\.Repeat\.again: unknown key|seed"):
        factories.study(sweep, seed={"again": True})
