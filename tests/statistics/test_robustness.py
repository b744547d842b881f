"""Other score rules, the log scale, other metrics: what a conclusion must survive, and say."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.runs import per_item
from analysis.statistics import grades
from lib.spec.declaration import StudyError
from lib.spec.metric_declaration import metric
from tests import factories


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """Give a 2×2 sweep with seven seeds."""
    return factories.write_sweep(tmp_path / "made_up.yaml")


def write_report(folder: Path, sweep_path: Path, runs: pd.DataFrame, history: pd.DataFrame) -> dict:
    """Write the study and its report; return the results."""
    factories.write_study(folder, runs, history)
    return factories.report(folder, sweep_path)


def test_a_claim_that_a_rule_overturns_is_demoted(sweep_path: Path, tmp_path: Path) -> None:
    sweep_path = factories.write_sweep(tmp_path / "long.yaml", epochs=5)
    runs, history = factories.tables(sweep_path)
    runs["summary.test/error_mean_last_5"] = 0.1 + 0.001 * np.random.default_rng(1).normal(
        size=len(runs)
    )
    results = write_report(tmp_path / "s", sweep_path, runs, history)
    first = results["contrasts"][0]
    assert list(first["other_rules"]) == ["at_best_val", "mean_last_5"]
    assert [said["agrees"] for said in first["other_rules"].values()] == [True, False]
    assert first["survives_all_rules"] is False
    assert first["p_holm"] < 0.05
    assert first["grade"] == "inconclusive"
    message = "Demoted from preliminary support to inconclusive, since another score rule does not"
    assert any(note.startswith(message) for note in first["notes"])


@pytest.mark.parametrize(
    ("grade", "others", "left"),
    [
        ("meaningful", [("meaningful", True)], "meaningful"),
        ("meaningful", [("meaningful", True), ("support_small", True)], "preliminary_support"),
        ("meaningful", [("inconclusive", False)], "inconclusive"),
        ("practically_equivalent", [("inconclusive", True)], "inconclusive"),
        ("practically_equivalent", [("support_small", False)], "inconclusive"),
        ("inconclusive", [("meaningful", False)], "inconclusive"),
        ("not_testable", [("meaningful", False)], "not_testable"),
        ("support_small", [], "support_small"),
    ],
)
def test_other_rules_only_demote(grade: str, others: list, left: str) -> None:
    assert grades.under_other_rules(grade, others) == left


def test_an_equivalence_that_a_rule_does_not_confirm_is_demoted(
    sweep_path: Path, tmp_path: Path
) -> None:
    runs, history = factories.tables(sweep_path, (0, 0, 0), noise=1e-3)
    noisy = 0.1 + np.random.default_rng(5).normal(0, 0.05, len(runs))
    folder = factories.write_study(tmp_path / "s", runs, history)
    plain = factories.report(folder, sweep_path, smallest_effect=0.01)["contrasts"][0]
    assert plain["grade"] == "practically_equivalent"
    runs["summary.test/error_at_best_val"] = noisy
    folder = factories.write_study(tmp_path / "n", runs, history)
    row = factories.report(folder, sweep_path, smallest_effect=0.01)["contrasts"][0]
    assert row["other_rules"]["at_best_val"]["agrees"] is True  # neither shows a difference
    assert row["grade"] == "inconclusive"


def test_ties_are_those_of_the_resolution_everywhere(sweep_path: Path, tmp_path: Path) -> None:
    """Scores that differ by less than a tenth of the declared step are equal, under every rule."""
    runs, history = factories.tables(sweep_path, (0, 0, 0), noise=2e-3)
    steps = runs["summary.test/error"].astype(float).round(3)
    rng = np.random.default_rng(0)
    runs["summary.test/error"] = steps + rng.normal(0, 1e-7, len(runs))
    runs["summary.test/error_at_best_val"] = steps
    metric = {"key": "test/error", "resolution": 0.001}
    folder = factories.write_study(tmp_path / "s", runs, history)
    for row in factories.report(folder, sweep_path, metric=metric)["contrasts"]:
        assert row["p_holm"] == row["other_rules"]["at_best_val"]["p_holm"]
    zeros = [r["n_zero"] for r in factories.report(folder, sweep_path, metric=metric)["contrasts"]]
    again = factories.report(folder, sweep_path, metric="test/error")
    plain = [row["n_zero"] for row in again["contrasts"]]
    assert sum(zeros) > sum(plain)
    text = (tmp_path / "s" / "report.md").read_text()
    assert "Same under all rules" in text


def test_rules_that_runs_lack_are_not_made_up(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    runs = runs.drop(columns="summary.test/error_at_best_val")
    results = write_report(tmp_path / "s", sweep_path, runs, history)
    assert results["contrasts"][0]["survives_all_rules"] is None
    assert results["contrasts"][0]["grade"] == "preliminary_support"
    assert "no score by another rule" in (tmp_path / "s" / "report.md").read_text()


def test_an_interaction_of_one_scale_only_is_reported(sweep_path: Path, tmp_path: Path) -> None:
    # Halving by either factor: additive on the log scale, an interaction in percentage points.
    runs, history = factories.tables(sweep_path, (0, 0, 0), noise=1e-4)
    halvings = (runs["config.batch_norm"] == True).astype(int) + (runs["config.optimizer"] == "sgd")  # noqa: E712
    for column in ("summary.test/error", "summary.test/error_at_best_val"):
        runs[column] = (runs[column].astype(float) / 2**halvings).round(6)
    results = write_report(tmp_path / "s", sweep_path, runs, history)
    main_effect, _, interaction = results["contrasts"]
    assert main_effect["scale_robust"] is None
    assert interaction["grade"] == "preliminary_support"
    assert interaction["scale_robust"] is False
    assert (
        "Not scale-robust: on the log10 of error in % the conclusion is different."
        in interaction["notes"]
    )


def test_other_metrics_are_marked_exploratory(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    runs["summary.val/loss"] = 1 - 5 * runs["summary.test/error"]
    runs["summary.train/loss"] = [
        float("inf"),
        *runs["summary.val/loss"][1:],
    ]  # a run lacks it: no test
    results = write_report(tmp_path / "s", sweep_path, runs, history)
    assert {row["metric"] for row in results["exploratory"]} == {"val/loss"}
    ours, theirs = results["contrasts"][0], results["exploratory"][0]
    assert theirs["difference"] == pytest.approx(-5 * ours["difference"], abs=1e-5)
    assert theirs["p"] == ours["p"]
    for page in ("report.md", "report.html"):
        text = (tmp_path / "s" / page).read_text()
        assert "Other metrics (exploratory)" in text
        assert "Not declared and not corrected" in text


@pytest.mark.parametrize("rule", ["best_on_test", {"at_best": "test/error"}])
def test_a_rule_that_looks_at_the_test_set_is_refused(sweep_path: Path, rule: object) -> None:
    with pytest.raises(StudyError, match="biases"):
        factories.study(sweep_path, score=rule)


def test_the_mean_of_the_last_five_needs_five(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path)  # of three epochs
    runs["summary.test/error_mean_last_5"] = 0.5 - runs["summary.test/error"].astype(float)
    results = write_report(tmp_path / "s", sweep_path, runs, history)
    assert list(results["contrasts"][0]["other_rules"]) == ["at_best_val"]
    assert results["contrasts"][0]["grade"] == "preliminary_support"
    said = "The mean of the last five epochs does not apply to runs of 3 epochs and is skipped."
    assert said in (tmp_path / "s" / "report.md").read_text()
    refused = factories.refusal(tmp_path / "s", sweep_path, score={"mean_last": 5})
    assert "needs at least 5 epochs, but the runs have 3 epochs" in refused


def test_the_mean_of_the_last_five_may_be_declared(tmp_path: Path) -> None:
    sweep_path = factories.write_sweep(tmp_path / "long.yaml", epochs=5)
    runs, history = factories.tables(sweep_path)
    runs["summary.test/error_mean_last_5"] = runs["summary.test/error"] + 1e-4
    folder = factories.write_study(tmp_path / "s", runs, history)
    factories.report(folder, sweep_path, score={"mean_last": 5})
    text = (folder / "report.md").read_text()
    assert "its `test/error` (mean of the last five epochs)" in text


def test_a_lost_run_that_was_made_again_changes_nothing(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    runs["summary.test/error_at_best_val"] = np.random.default_rng(1).normal(0.1, 0.001, len(runs))
    alone = write_report(tmp_path / "alone", sweep_path, runs, history)
    lost = runs[runs["run_id"] == "bnsgd03"].assign(run_id="lost", state="crashed", exit_code=None)
    kept = [column for column in runs if not column.startswith("summary.")]
    rows = history[(history["run_id"] == "bnsgd03") & (history["epoch"] < 3)]
    both = pd.concat([runs, lost[kept]]), pd.concat([history, rows.assign(run_id="lost")])
    again = write_report(tmp_path / "again", sweep_path, *both)
    assert again["repeated"]
    assert alone["contrasts"][0]["grade"] == "inconclusive"
    assert again["contrasts"] == alone["contrasts"]
    assert again["pair_hashes"] == alone["pair_hashes"]


def test_a_score_that_is_no_number_is_no_other_rule(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    runs["summary.test/error_at_best_val"] = ["low", *runs["summary.test/error_at_best_val"][1:]]
    runs["summary.test/error_mean_last_5"] = [float("inf"), *runs["summary.test/error"][1:]]
    runs["summary.parameters"] = ["many", *[1000] * 27]
    results = write_report(tmp_path / "s", sweep_path, runs, history)
    assert results["contrasts"][0]["other_rules"] == {}
    assert results["variants"][0]["parameters"] == [1000]


def test_only_a_test_score_gets_an_interval_over_test_items() -> None:
    table = pd.DataFrame({"label": [0, 1], "predicted.a": [0, 0]})
    assert per_item.scores(table, metric("test/error"), ["a"])["a"].tolist() == [0, 1]
    assert per_item.scores(table, metric("test/accuracy"), ["a"])["a"].tolist() == [1, 0]
    assert per_item.scores(table, metric("val/error"), ["a"]) is None
    assert per_item.scores(table, metric("test/dice"), ["a"]) is None


def test_a_metric_says_which_saved_output_is_the_score_of_an_item() -> None:
    table = pd.DataFrame({"jaccard.a": [0.5, 1.0], "score.b": [2.0, 3.0]})
    assert per_item.scores(table, metric("test/iou"), ["a"])["a"].tolist() == [0.5, 1.0]
    assert per_item.scores(table, metric("test/dice"), ["a"])["a"].tolist() == [2 / 3, 1.0]
    own = metric({"key": "test/f1", "label": "my F1"})
    assert per_item.scores(table, own, ["b"])["b"].tolist() == [2.0, 3.0]
    percent = metric({"key": "test/dice", "bounds": [0.0, 100.0]})  # no fraction: not our Dice
    assert per_item.scores(table, percent, ["a"]) is None
