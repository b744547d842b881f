"""Planned looks, blocks, controls and units: designs other than one factorial over seeds."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.figures import contrasts as figures
from analysis.runs.tables import read_tables
from analysis.statistics import contrasts, intervals
from lib.spec.declaration import StudyError
from lib.spec.study import Study
from tests import factories


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """Give a 2×2 sweep with twelve seeds."""
    return factories.write_sweep(tmp_path / "made_up.yaml", seeds=12)


LOOKS = {"looks": {8: 0.02, 12: 0.03}, "smallest_effect": 0.01}


def test_a_look_takes_its_seeds_and_its_alpha(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    early = runs["config.seed"].astype(int) < 9  # the ninth seed is made, but not looked at
    ids = runs["run_id"][early]
    folder = factories.write_study(
        tmp_path / "s", runs[early], history[history["run_id"].isin(ids)]
    )
    first = factories.report(folder, sweep_path, **LOOKS)
    assert (first["n_seeds"], first["alpha"]) == (8, 0.02)
    assert first["look"].startswith("Planned look 1 of 2, at 8 seeds and α = 0.02 (12 seeds: 0.03)")
    plain = contrasts.build(factories.study(sweep_path, **LOOKS), factories_scores(runs)[:, :8])
    bounds = intervals.paired_interval(plain[0].differences, 1 - 0.02 / 3)
    row = first["contrasts"][0]
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((bounds.low, bounds.high))
    factories.write_study(folder, runs, history)
    second = factories.report(folder, sweep_path, **LOOKS)
    assert (second["n_seeds"], second["alpha"], second["earlier_looks"]) == (12, 0.03, [])
    almost = runs["run_id"] != "bnsgd11"
    kept = history[history["run_id"] != "bnsgd11"]
    late = factories.write_study(tmp_path / "late", runs[almost], kept)
    third = factories.report(late, sweep_path, **LOOKS)
    assert third["n_seeds"] == 8
    missing = "The look at 12 seeds is incomplete: batch_norm=True, optimizer=sgd, seed=11: missing"
    assert missing in third["look"]
    assert "Planned look 2 of 2" in (folder / "report.md").read_text()


def factories_scores(runs: pd.DataFrame) -> np.ndarray:
    """Return the scores (variants, seeds) of runs as factories.tables orders them."""
    return runs["summary.test/error"].astype(float).to_numpy().reshape(4, -1)


def test_too_few_runs_for_any_look_are_listed(sweep_path: Path, tmp_path: Path) -> None:
    runs, history = factories.tables(sweep_path)
    few = runs["config.seed"].astype(int) < 7
    kept = history[history["run_id"].isin(runs["run_id"][few])]
    folder = factories.write_study(tmp_path / "s", runs[few], kept)
    message = factories.refusal(folder, sweep_path, **LOOKS)
    assert "seed=7: missing" in message
    assert "seed=8" not in message  # of the second look


@pytest.mark.parametrize(
    ("looks", "message"),
    [
        ({8: 0.02, 10: 0.02}, "must end at the sweep's 12 seeds"),
        ({8: 0.03, 12: 0.03}, "which spends 0.06"),
        ({0: 0.01, 12: 0.03}, "must end at"),
    ],
)
def test_looks_that_spend_too_much_are_refused(
    sweep_path: Path, looks: dict[int, float], message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        factories.study(sweep_path, looks=looks)


# ---------------------------------------------------------------------------------------------
# Blocks


def blocked(
    tmp_path: Path, scale: str = "raw", **declared: object
) -> tuple[Study, np.ndarray, Path]:
    """Write a study of two optimizers on three data sets, seven seeds each, and its tables."""
    factors = {"optimizer": ["adam", "sgd"], "dataset": ["a", "b", "c"]}
    path = factories.grid(tmp_path / "s.yaml", factors)
    declared = {"block": ["dataset"], "block_scale": scale} | declared
    plan = factories.study(path, **declared)
    rng = np.random.default_rng(0)
    level = np.array([0.1, 0.3, 0.6])[:, None, None]
    scores = level + rng.normal(0, 0.02, (3, 2, 7)) - 0.05 * np.array([0, 1])[:, None]
    rows = []
    for block, values in zip(plan.blocks, scores, strict=True):
        for variant, own in zip(plan.variants, values, strict=True):
            for seed, score in zip(plan.seeds, own, strict=True):
                name = f"{block['dataset']}{variant[0]}{seed}"
                config = block | plan.configs[variant] | {"seed": seed}
                summary = {"test/error": float(score), "diverged": False}
                summary |= {
                    "data_sha256": block["dataset"] * 64,
                    "split_sha256": f"{name[0]}{seed}",
                }
                rows.append(factories.run_row(name, config, summary))
    runs = factories.runs_table(rows)
    history = pd.DataFrame({"run_id": runs["run_id"], "epoch": 1, "val/error": 0.5})
    history["val/error"] = runs["summary.test/error"].astype(float)
    return plan, scores, factories.write_study(tmp_path / "study", runs, history)


def test_blocks_are_averaged_over_and_never_compared(tmp_path: Path) -> None:
    plan, scores, folder = blocked(tmp_path)
    assert (plan.factors, plan.block_keys) == ({"optimizer": ["adam", "sgd"]}, ["dataset"])
    declared = {"block": ["dataset"], "smallest_effect": 0.01}
    found = factories.report(folder, tmp_path / "s.yaml", draw=True, **declared)
    (row,) = found["contrasts"]
    mean = scores.mean(axis=0)
    expected = intervals.paired_interval(mean[1] - mean[0])
    assert (row["difference"], row["ci_low"]) == pytest.approx((expected.estimate, expected.low))
    assert (row["n"], row["paired"]) == (7, True)
    assert [one["block"] for one in found["within_blocks"]] == [
        "dataset=a",
        "dataset=b",
        "dataset=c",
    ]
    for one, block in zip(found["within_blocks"], scores, strict=True):
        own = intervals.paired_interval(block[1] - block[0])
        assert (one["difference"], one["ci_high"]) == pytest.approx((own.estimate, own.high))
    page = (folder / "report.md").read_text()
    assert "the mean over the 3 blocks (dataset) of the raw scores" in page
    assert (folder / "figures" / "fig7_integrity.png").exists()


@pytest.mark.parametrize("scale", ["rank", "relative"])
def test_blocks_of_unlike_units_have_a_scale_of_their_own(tmp_path: Path, scale: str) -> None:
    _, scores, folder = blocked(tmp_path, scale)
    declared = {"block": ["dataset"], "block_scale": scale}
    (row,) = factories.report(folder, tmp_path / "s.yaml", **declared)["contrasts"]
    if scale == "rank":
        ranks = scores.reshape(3, -1).argsort(axis=1).argsort(axis=1).reshape(scores.shape) / 13
        mean = ranks.mean(axis=0)
        assert "lower (better) mean rank of the test error than optimizer = adam" in row["sentence"]
    else:
        middle = np.median(scores[:, 0], axis=1)[:, None, None]
        mean = ((scores - middle) / middle).mean(axis=0)
        assert "test error relative to the baseline" in row["sentence"]
    assert row["per_seed"] == pytest.approx((mean[1] - mean[0]).tolist())


def test_a_failed_run_takes_its_seed_out_of_all_blocks(tmp_path: Path) -> None:
    _, _, folder = blocked(tmp_path)
    runs, history = read_tables(folder)
    runs.loc[runs["run_id"] == "bsgd3", ["summary.test/error", "summary.diverged"]] = [1.0, True]
    factories.write_study(folder, runs, history)
    found = factories.report(folder, tmp_path / "s.yaml", block=["dataset"])
    (row,) = found["contrasts"]
    assert (row["n"], row["n_trained"], row["per_seed"][3]) == (7, 6, None)
    assert [one["n"] for one in found["within_blocks"]] == [7, 6, 7]
    assert "Seeds with a failed run in some block: 0 of 7 with" in row["notes"][0]


@pytest.mark.parametrize("scale", ["rank", "relative"])
def test_failed_runs_do_not_move_a_blocks_scale(tmp_path: Path, scale: str) -> None:
    _, _, folder = blocked(tmp_path, scale)
    runs, history = read_tables(folder)
    seen = []
    for score in (1.0, 0.01):  # what the failed baseline runs happen to have logged
        for seed in range(3):
            lost = runs["run_id"] == f"badam{seed}"
            runs.loc[lost, "summary.test/error"] = score
            runs.loc[lost, "summary.diverged"] = True
        factories.write_study(folder, runs, history)
        declared = {"block": ["dataset"], "block_scale": scale}
        seen.append(factories.report(folder, tmp_path / "s.yaml", **declared)["contrasts"][0])
    assert seen[0]["per_seed"] == seen[1]["per_seed"]
    assert seen[0]["n_trained"] == 4


def test_missing_runs_of_a_block_are_named_and_filled_in(tmp_path: Path) -> None:
    _, _, folder = blocked(tmp_path)
    runs, history = read_tables(folder)
    kept = runs["run_id"] != "csgd5"
    factories.write_study(folder, runs[kept], history[history["run_id"] != "csgd5"])
    message = factories.refusal(folder, tmp_path / "s.yaml", block=["dataset"])
    assert "dataset=c, optimizer=sgd, seed=5: missing" in message
    text = (folder / "fill_in_s.yaml").read_text()
    assert "dataset:\n    value: c" in text


def test_blocks_may_have_other_data_but_not_other_recipes(tmp_path: Path) -> None:
    _, _, folder = blocked(tmp_path)
    runs, history = read_tables(folder)
    runs["config.lr"] = [0.1 if key == "a" else 0.2 for key in runs["config.dataset"]]
    factories.write_study(folder, runs, history)
    message = factories.refusal(folder, tmp_path / "s.yaml", block=["dataset"])
    assert "confounded with dataset" in message
    runs = runs.drop(columns="config.lr")
    runs.loc[0, "summary.data_sha256"] = "e" * 64  # within one block
    factories.write_study(folder, runs, history)
    message = factories.refusal(folder, tmp_path / "s.yaml", block=["dataset"])
    assert "the runs used different data" in message


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"block": ["datasets"]}, "block: datasets must be a parameter of the sweep"),
        ({"block": ["seed"]}, "block: seed must be a parameter of the sweep other than the seed"),
        (
            {"block": ["dataset", "optimizer"], "published_scores": {"them": 0.5}},
            "cannot be compared with means over blocks",
        ),
        ({"block": ["dataset"], "factors": {"dataset": ["a", "b"]}}, "both a block and a factor"),
    ],
)
def test_blocks_that_cannot_be_are_refused(tmp_path: Path, declared: dict, message: str) -> None:
    factors = {"optimizer": ["adam", "sgd"], "dataset": ["a", "b"]}
    path = factories.grid(tmp_path / "s.yaml", factors)
    with pytest.raises(StudyError, match=message):
        factories.study(path, **declared)


def test_replicates_that_are_no_seeds_are_called_what_they_are(tmp_path: Path) -> None:
    path = factories.grid(tmp_path / "s.yaml", {"optimizer": ["adam", "sgd"]}, 8)
    path.write_text(path.read_text().replace("seed:", "fold:"))
    rng = np.random.default_rng(0)
    declared = {"seed": "fold", "unit": "fold"}
    factories.study(path, **declared)
    rows = [
        factories.run_row(
            f"{optimizer}{fold}",
            {"optimizer": optimizer, "fold": fold},
            {"test/error": float(rng.uniform(0.1, 0.2)), "diverged": False},
        )
        for optimizer in ("adam", "sgd")
        for fold in range(8)
    ]
    runs = factories.runs_table(rows)
    history = pd.DataFrame({"run_id": runs["run_id"], "epoch": 1})
    folder = factories.write_study(tmp_path / "study", runs, history)
    factories.report(folder, path, **declared)
    said = "Their training sets overlap, so they are not independent, and the p-values are too"
    assert said in (folder / "report.md").read_text()


# ---------------------------------------------------------------------------------------------
# More than two levels


def test_a_control_is_what_the_others_are_compared_with(tmp_path: Path) -> None:
    path = factories.grid(tmp_path / "s.yaml", {"act": ["relu", "elu", "gelu", "silu"]})
    plan = factories.study(path, compare={"control": "elu"})
    built = contrasts.build(plan, np.arange(28.0).reshape(4, 7))
    assert [c.name for c in built] == ["act: relu - elu", "act: gelu - elu", "act: silu - elu"]
    assert built[0].differences.tolist() == [-7] * 7
    two = factories.grid(tmp_path / "two.yaml", {"act": ["relu", "elu"]})
    (only,) = contrasts.build(factories.study(two, compare={"control": "elu"}), np.ones((2, 7)))
    assert only.parts[0][1:] == ("elu", "relu")
    assert only.sides == ([1], [0])
    with pytest.raises(StudyError, match="control 'tanh' is not a level of a factor"):
        factories.study(path, compare={"control": "tanh"})
    with pytest.raises(StudyError, match=r"control level, such as `compare: \{control: adam\}`"):
        factories.study(path, compare="all")


def test_levels_that_are_not_reported_apart_are_joined(tmp_path: Path) -> None:
    differ = {frozenset(pair) for pair in ((0, 2), (0, 3), (1, 3))}
    assert figures.groups(4, differ) == [[0, 1], [1, 2], [2, 3]]
    assert figures.groups(3, set()) == [[0, 2]]
    assert figures.groups(3, {frozenset(p) for p in ((0, 1), (1, 2), (0, 2))}) == []
    path = factories.grid(tmp_path / "s.yaml", {"act": ["relu", "elu", "gelu"]}, 8)
    rng = np.random.default_rng(0)
    means = {("relu",): 0.1, ("elu",): 0.2, ("gelu",): 0.101}
    scores = {variant: rng.normal(mean, 0.01, 8).tolist() for variant, mean in means.items()}
    folder = factories.write_study(tmp_path / "study", *factories.scored(path, scores))
    factories.report(folder, path, draw=True)
    assert (folder / "figures" / "fig16_levels.png").exists()
    assert "Bars at the right join levels" in (folder / "report.md").read_text()
