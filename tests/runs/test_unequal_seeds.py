"""Variants that lack seeds, have more, or have others: never silently, and only on request."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, wilcoxon

from analysis.runs import selection
from lib.spec.declaration import Declaration
from tests import factories


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """Give a sweep of one factor with eight seeds."""
    return factories.grid(tmp_path / "s.yaml", {"algo": ["a", "b"]}, 8)


def tables(sweep_path: Path) -> factories.Tables:
    rng = np.random.default_rng(0)
    scores = {("a",): rng.normal(0.2, 0.01, 8).tolist(), ("b",): rng.normal(0.3, 0.01, 8).tolist()}
    return factories.scored(sweep_path, scores)


def without(found: factories.Tables, *ids: str) -> factories.Tables:
    runs, history = found
    return runs[~runs["run_id"].isin(ids)], history[~history["run_id"].isin(ids)]


def test_complete_pairs_are_compared_on_request(sweep_path: Path, tmp_path: Path) -> None:
    """Seed 3 lacks a run, and there is a seed more that the sweep does not have."""
    runs, history = without(tables(sweep_path), "a-3")
    extra = runs[runs["run_id"] == "b-0"].assign(run_id="more", **{"config.seed": 9})
    rows = history[history["run_id"] == "b-0"].assign(run_id="more")
    runs = factories.runs_table([*runs.to_dict("records"), *extra.to_dict("records")])
    folder = factories.write_study(tmp_path / "t", runs, factories.pd.concat([history, rows]))
    message = factories.refusal(folder, sweep_path)
    assert "algo=a, seed=3: missing" in message
    assert "--allow seeds compares the complete pairs" in message
    found = factories.report(folder, sweep_path, "seeds")
    assert found["seeds"] == [0, 1, 2, 4, 5, 6, 7]
    assert "excluded runs: b-3, more" in found["allowed"]["seeds"]
    row = found["contrasts"][0]
    wide = {algo: runs[runs["config.algo"] == algo].set_index("config.seed") for algo in "ab"}
    column = "summary.test/error"
    d = [wide["b"].loc[s, column] - wide["a"].loc[s, column] for s in found["seeds"]]
    assert row["p"] == pytest.approx(wilcoxon(d, method="exact").pvalue)
    assert "**Waived check:**" in (folder / "report.md").read_text()


def test_a_seed_that_is_text_in_some_runs_is_the_same_seed(
    sweep_path: Path, tmp_path: Path
) -> None:
    """A script that does not convert its argument logs "3" for 3."""
    runs, history = tables(sweep_path)
    as_text = [
        str(seed) if algo == "b" else seed
        for algo, seed in zip(runs["config.algo"], runs["config.seed"], strict=True)
    ]
    expected = factories.report(factories.write_study(tmp_path / "n", runs, history), sweep_path)
    runs["config.seed"] = factories.pd.Series(as_text, dtype=object)
    folder = factories.write_study(tmp_path / "t", runs, history)
    found = factories.report(folder, sweep_path)
    assert found["contrasts"] == expected["contrasts"]
    read = factories.runs_table(runs.to_dict("records"))
    declared = Declaration(metric="test/error", factors={"algo": ["a", "b"]})
    levels = selection.sweep_of(read, declared)["parameters"]["seed"]["values"]
    assert levels == list(range(8)), "also where the seeds are those of the runs"
    texts = read.assign(**{"config.seed": [str(seed) for seed in read["config.seed"]]})
    levels = selection.sweep_of(texts, declared)["parameters"]["seed"]["values"]
    assert levels == [str(seed) for seed in range(8)], "text in all runs stays text"


def test_seeds_of_their_own_are_no_pairs(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = without(
        tables(sweep_path), *(f"a-{k}" for k in (4, 5, 6, 7)), *(f"b-{k}" for k in (0, 1, 2, 3))
    )
    folder = factories.write_study(tmp_path / "t", runs, history)
    assert "missing" in factories.refusal(folder, sweep_path)
    found = factories.report(folder, sweep_path, "seeds")
    scores = {
        algo: runs.loc[runs["config.algo"] == algo, "summary.test/error"].astype(float)
        for algo in "ab"
    }
    (row,) = found["contrasts"]
    assert row["p"] == pytest.approx(mannwhitneyu(scores["b"], scores["a"], method="exact").pvalue)
    assert found["unpaired"][0] == "each variant has its own seeds"


def test_other_faults_are_not_waived_with_it(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = without(tables(sweep_path), "a-3")
    runs["config.lr"] = [0.1 if algo == "a" else 0.2 for algo in runs["config.algo"]]
    folder = factories.write_study(tmp_path / "t", runs, history)
    assert "confounded with algo" in factories.refusal(folder, sweep_path, "seeds")


def test_one_complete_pair_is_a_description(sweep_path: Path, tmp_path: Path) -> None:
    gone = [f"{algo}-{seed}" for algo in "ab" for seed in range(1, 8)]
    runs, history = without(tables(sweep_path), *gone)
    runs["summary.train/loss"] = [0.5, 0.25]
    folder = factories.write_study(tmp_path / "t", runs, history)
    found = factories.report(folder, sweep_path, "seeds", draw=True)
    assert found["allowed"]["seeds"] == (
        "not every variant has every planned run (seeds 1 to 7 missing in every variant); only "
        "seed 0 is compared; no runs are excluded"
    )
    (row,) = found["contrasts"]
    assert row["grade"] == "not_testable"
    assert "smallest possible Holm p" in row["sentence"]


def test_a_seed_without_any_effect_stops_the_study(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = tables(sweep_path)
    same = runs["config.algo"] == "b"
    runs.loc[same, "summary.test/error"] = 0.3
    history.loc[history["run_id"].isin(runs["run_id"][same]), "val/error"] = 0.4
    history["reward"] = [float(k) for k in range(len(history))]
    folder = factories.write_study(tmp_path / "t", runs, history)
    factories.report(folder, sweep_path)  # rewards differ: these are runs of their own
    history["reward"] = 1.0
    history["time/epoch"] = [float(k) for k in range(len(history))]  # clocks differ always
    folder = factories.write_study(tmp_path / "u", runs, history)
    message = factories.refusal(folder, sweep_path)
    assert "the seed had no effect: b-0 = b-1" in message
    assert "--allow identical" in message
