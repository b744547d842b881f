"""Families of contrasts through the whole report: one factor, several, three levels, no pairs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import PermutationMethod, mannwhitneyu, wilcoxon

from analysis.statistics.rank_tests import holm
from tests import factories

SEEDS = 8


def report(
    folder: Path,
    factors: dict[str, list],
    gain: dict[str, dict],
    compare: dict[str, str] | None = None,
    **columns: object,
) -> dict:
    """Write a study whose scores are sums of levels' gains and noise; return results and table."""
    path = factories.grid(folder / "family.yaml", factors, SEEDS)
    plan, rng, scores = factories.study(path), np.random.default_rng(0), {}
    for variant in plan.variants:
        levels = zip(plan.factors, variant, strict=True)
        mean = 0.1 + sum(gain.get(name, {}).get(level, 0) for name, level in levels)
        scores[variant] = [round(mean + rng.normal(0, 0.002), 6) for _ in plan.seeds]
    runs, history = factories.scored(path, scores)
    runs = runs.assign(**{f"summary.{name}": values for name, values in columns.items()})
    factories.write_study(folder / "study", runs, history)
    declared = {"compare": compare} if compare else {}
    results = factories.report(folder / "study", path, **declared)
    return results | {"table": runs, "page": (folder / "study" / "report.md").read_text()}


def by(runs: pd.DataFrame, **levels: object) -> np.ndarray:
    """Return the mean score per seed over the runs with these levels."""
    for name, level in levels.items():
        runs = runs[runs[f"config.{name}"] == level]
    scores = runs["summary.test/error"].astype(float)
    return scores.groupby(runs["config.seed"]).mean().to_numpy()


def test_one_factor_of_two_levels(tmp_path: Path) -> None:
    results = report(tmp_path, {"a": ["x", "y"]}, {"a": {"y": -0.01}})
    (row,) = results["contrasts"]
    x, y = (by(results["table"], a=level) for level in "xy")
    assert row["name"] == "a"
    assert row["p"] == pytest.approx(wilcoxon(y - x, method="exact").pvalue)
    assert row["p_holm"] == row["p"]
    assert row["scale_robust"] is None
    assert results["secondary"] == [], "the contrast itself, with a second p"


def test_a_factor_of_three_levels_gives_all_pairs(tmp_path: Path) -> None:
    results = report(tmp_path, {"a": ["x", "y", "z"]}, {"a": {"y": -0.01, "z": -0.02}})
    assert [row["name"] for row in results["contrasts"]] == ["a: y - x", "a: z - x", "a: z - y"]
    table, p = results["table"], []
    for row in results["contrasts"]:
        second, first = row["name"].removeprefix("a: ").split(" - ")
        d = by(table, a=second) - by(table, a=first)
        np.testing.assert_allclose(row["per_seed"], d)
        p.append(wilcoxon(d, method="exact").pvalue)
        assert row["grade"] == "preliminary_support"
    assert [row["p_holm"] for row in results["contrasts"]] == pytest.approx(holm(p))
    assert results["secondary"] == []


@pytest.mark.parametrize(("control", "first", "second"), ["xyz", "yxz", "zxy"])
def test_pairs_that_are_not_primary_are_simple_effects(
    tmp_path: Path, control: str, first: str, second: str
) -> None:
    compare = {"control": control}
    results = report(tmp_path, {"a": ["x", "y", "z"]}, {"a": {"z": -0.02}}, compare)
    pairs = [f"a: {level} - {control}" for level in (first, second)]
    assert [row["name"] for row in results["contrasts"]] == pairs
    (simple,) = results["secondary"]
    one, other = (by(results["table"], a=level) for level in (first, second))
    assert simple["name"] == f"a: {second} - {first}"
    assert simple["p"] == pytest.approx(wilcoxon(other, one, method="exact").pvalue)
    assert simple["paired"]


def test_three_factors_give_main_effects_and_two_way_interactions(tmp_path: Path) -> None:
    factors = {"a": [1, 2], "b": ["x", "y"], "c": [False, True]}
    results = report(tmp_path, factors, {"a": {2: 0.01}})
    names = [row["name"] for row in results["contrasts"]]
    assert names == ["a", "b", "c", "a × b", "a × c", "b × c"]
    t = results["table"]
    np.testing.assert_allclose(results["contrasts"][0]["per_seed"], by(t, a=2) - by(t, a=1))
    inter = (by(t, a=2, c=True) - by(t, a=2, c=False)) - (by(t, a=1, c=True) - by(t, a=1, c=False))
    np.testing.assert_allclose(results["contrasts"][4]["per_seed"], inter)
    assert [row["scale_robust"] is None for row in results["contrasts"]] == [True] * 3 + [False] * 3
    assert len(results["secondary"]) == 3 * 4  # a comparison of each factor at 2 × 2 others


def test_two_and_three_levels_together(tmp_path: Path) -> None:
    results = report(tmp_path, {"a": [1, 2, 3], "b": ["x", "y"]}, {"b": {"y": 0.01}})
    assert [row["name"] for row in results["contrasts"]][-1] == "b"
    assert len(results["contrasts"]) == 4
    names = {row["name"] for row in results["secondary"]}
    assert {"a: 3 - 1 at b=y", "b at a=2"} <= names
    assert len(names) == 3 * 2 + 3
    text = (tmp_path / "study" / "report.md").read_text()
    assert "a = 3 instead of a = 1, with b = y" in text


def test_a_factor_that_changes_the_split_is_tested_without_pairs(tmp_path: Path) -> None:
    factors = {"fold": ["odd", "even"], "b": ["x", "y"]}
    split = [f"{fold}{s}" for fold in factors["fold"] for _ in "xy" for s in range(SEEDS)]
    results = report(tmp_path, factors, {"b": {"y": -0.01}}, split_sha256=split)
    fold, b, both = results["contrasts"]
    assert (fold["paired"], b["paired"], both["paired"]) == (False, True, False)
    x, y = (by(results["table"], fold=level) for level in ("odd", "even"))
    full = PermutationMethod(n_resamples=np.inf)  # there is a tie
    assert fold["p"] == pytest.approx(mannwhitneyu(y, x, method=full).pvalue)
    assert "the same in every variant with the same fold, seed by seed" in results["page"]
    assert "fold changes the split" in results["page"]
    assert "Wilcoxon signed-rank tests over seeds; Mann–Whitney tests for" in results["page"]


def test_no_pairs(tmp_path: Path) -> None:
    split = [f"split {i}" for i in range(2 * SEEDS)]
    results = report(tmp_path, {"a": ["x", "y"]}, {"a": {"y": -0.01}}, split_sha256=split)
    (row,) = results["contrasts"]
    x, y = (by(results["table"], a=level) for level in "xy")
    assert row["p"] == pytest.approx(mannwhitneyu(y, x, method="exact").pvalue)
    assert not row["paired"]
    assert row["exact"]
    assert "The seeds are not paired, so Mann–Whitney tests are used: " in results["page"]
    assert "**The seeds are not paired**" in (tmp_path / "study" / "report.md").read_text()
