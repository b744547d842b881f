"""Whether a study was declared before its runs: by the hashes that runs log, and by git."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from analysis.runs import declared
from lib.spec.declaration import Declaration, read_declaration, study_hash
from lib.spec.load import hashes_of, varied
from lib.spec.sweep import read_sweep
from lib.tracking import wandb_run
from tests import factories
from tests.conftest import ROOT


@pytest.fixture
def sweep_path(tmp_path: Path) -> Path:
    """Give a 2×2 sweep with seven seeds."""
    return factories.write_sweep(tmp_path / "made_up.yaml")


def verdict(folder: Path, sweep_path: Path, logged: object, **declaration: object) -> dict:
    """Return the results of runs that logged ``logged`` as their study's hash."""
    runs, history = factories.tables(sweep_path)
    runs["summary.study_sha256"] = logged
    factories.write_study(folder, runs, history)
    return factories.report(folder, sweep_path, **declaration)


def test_words_and_figures_may_change_after_the_runs_claims_may_not() -> None:
    base = {"metric": "test/error", "smallest_effect": 0.01}
    first = study_hash(Declaration(**base), {})
    assert (
        study_hash(Declaration(**base, labels={"lr": "rate"}, notes="…", alpha=0.05), {}) == first
    )
    changes = {"smallest_effect": 0.02, "alpha": 0.01, "primary": ["a"], "score": {"mean_last": 5}}
    changes |= {"failure": {"worse_than": 0.5}, "metric": "test/accuracy", "free": ["lr"]}
    others = [study_hash(Declaration(**base | {key: value}), {}) for key, value in changes.items()]
    assert len({first, *others}) == len(changes) + 1


def test_a_hash_that_all_runs_logged_verifies_the_declaration(
    sweep_path: Path, tmp_path: Path
) -> None:
    plan = factories.study(sweep_path, smallest_effect=0.01)
    own = f"other:0123 made_up:{study_hash(plan.declaration, varied(plan.sweeps))}"
    found = verdict(tmp_path / "s", sweep_path, own, smallest_effect=0.01)
    assert found["declared"] is True
    assert found["declaration"].endswith(f"(all 28 runs logged the hash {own.rpartition(':')[2]}).")
    assert "Declared before the runs" in (tmp_path / "s" / "report.md").read_text()
    later = verdict(tmp_path / "s", sweep_path, own, smallest_effect=0.02)
    assert later["declared"] is False
    assert "28 runs logged another hash than the current one" in later["declaration"]
    logged = [own] * 27 + [float("nan")]
    one = verdict(tmp_path / "s", sweep_path, logged, smallest_effect=0.01)
    assert (one["declared"], "because 1 run logged no hash" in one["declaration"]) == (False, True)
    (tmp_path / "s" / declared.NAME).write_text(
        json.dumps({"c" * 40: {"metric": "test/error", "smallest_effect": 0.01}})
    )
    other = verdict(tmp_path / "s", sweep_path, "made_up:000000000000", smallest_effect=0.01)
    assert other["declared"] is False, "what a run logged comes before what git says"


def test_without_a_declaration_all_is_exploratory(sweep_path: Path, tmp_path: Path) -> None:
    found = verdict(tmp_path / "s", sweep_path, float("nan"))
    assert (found["declared"], found["declaration"]) == (
        False,
        "Exploratory: the study has no declaration.",
    )


@pytest.fixture
def history(sweep_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give two commits: one without a declaration, one with keys under their earlier names."""
    monkeypatch.setattr(declared, "ROOT", tmp_path)

    def git(*words: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "--quiet")
    git("add", "made_up.yaml")
    git("commit", "--quiet", "-m", "a sweep")
    commits = [git("rev-parse", "HEAD")]
    (tmp_path / "studies").mkdir()
    keys = {"metric": "test/error", "direction": "lower", "score_rule": "last"}
    keys |= {"family": ["batch_norm", "batch_norm × optimizer"], "smallest_effect": 0.01}
    (tmp_path / "studies" / "made_up.yaml").write_text(yaml.safe_dump(keys))
    git("add", "studies")
    git("commit", "--quiet", "-m", "a declaration")
    (tmp_path / "studies" / "made_up.yaml").unlink()
    return [*commits, git("rev-parse", "HEAD")]


def at(commit: str, sweep_path: Path) -> factories.Tables:
    """Return a study's tables whose runs were made at a commit."""
    runs, rows = factories.tables(sweep_path)
    return runs.assign(**{"summary.git_commit": commit}), rows


def test_the_history_of_the_code_says_what_was_declared(
    history: list[str], sweep_path: Path, tmp_path: Path
) -> None:
    keys = {"primary": ["batch_norm", "batch_norm:optimizer"], "smallest_effect": 0.01}
    folder = factories.write_study(tmp_path / "s", *at(history[1], sweep_path))
    found = factories.report(folder, sweep_path, **keys)
    assert found["declared"] is True
    where = (
        f"logged no hash of the declaration, but at their commit {history[1][:8]} the declaring "
    )
    keys_then = (
        "keys (metric, primary, score, smallest_effect) and the sweep's levels and seeds were"
    )
    assert where + keys_then in found["declaration"]
    recorded = json.loads((folder / declared.NAME).read_text())
    assert recorded[history[1]]["goal"] == "minimize"
    assert recorded[history[1]]["varied"]["seed"] == list(range(7))
    fewer = factories.write_sweep(sweep_path, seeds=6)
    six = factories.write_study(tmp_path / "six", *at(history[1], fewer))
    said = factories.report(six, fewer, **keys)["declaration"]
    assert "seed was [0, 1, 2, 3, 4, 5, 6], now [0, 1, 2, 3, 4, 5]" in said
    factories.write_sweep(sweep_path)
    changed = factories.report(folder, sweep_path, **keys | {"smallest_effect": 0.02})
    assert changed["declared"] is False
    assert "smallest_effect was 0.01, now 0.02." in changed["declaration"]
    earlier = factories.write_study(tmp_path / "e", *at(history[0], sweep_path))
    said = factories.report(earlier, sweep_path, **keys)["declaration"]
    assert said.endswith(f"(commit {history[0][:8]}): there was no declaration.")
    dirty = factories.write_study(tmp_path / "d", *at(f"{history[1]}-dirty", sweep_path))
    found = factories.report(dirty, sweep_path, **keys)
    assert (found["declared"], "ran with uncommitted changes" in found["declaration"]) == (
        False,
        True,
    )


@pytest.mark.slow
def test_a_record_outlives_the_repository(
    history: list[str], sweep_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"primary": ["batch_norm", "batch_norm:optimizer"], "smallest_effect": 0.01}
    folder = factories.write_study(tmp_path / "s", *at(history[1], sweep_path))
    first = factories.report(folder, sweep_path, **keys)["declaration"]
    (tmp_path / ".git").rename(tmp_path / "away")
    assert factories.report(folder, sweep_path, **keys)["declaration"] == first
    (folder / declared.NAME).unlink()
    assert "cannot be verified" in factories.report(folder, sweep_path, **keys)["declaration"]
    (folder / declared.NAME).write_text("[cut")
    assert "cannot be verified" in factories.report(folder, sweep_path, **keys)["declaration"]


def test_a_run_belongs_to_the_studies_whose_sweep_has_it(sweep_path: Path, tmp_path: Path) -> None:
    plan = factories.study(sweep_path, smallest_effect=0.01)
    (tmp_path / "studies" / "broken.yaml").write_text("metric: [")
    config = {"batch_norm": True, "optimizer": "sgd", "seed": 3, "epochs": 3, "lr": 0.1}
    own = f"made_up:{study_hash(plan.declaration, varied(plan.sweeps))}"
    found = {
        (program, seed): hashes_of(program, config | {"seed": seed}, plan.places)
        for program in ("/somewhere/train_gtsrb.py", "train_unet.py")
        for seed in (3, 7)
    }
    assert found.pop(("/somewhere/train_gtsrb.py", 3)) == own
    assert set(found.values()) == {""}


def test_a_run_keeps_the_hash_of_its_first_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = read_sweep(ROOT / "sweeps" / "demo_gtsrb.yaml")
    cell = sweep.grid()[0]
    monkeypatch.setattr("sys.argv", ["train_gtsrb.py"])
    path = ROOT / "analysis" / "studies" / "demo_gtsrb.yaml"
    own = {"study_sha256": f"demo_gtsrb:{study_hash(read_declaration(path), varied([sweep]))}"}
    assert wandb_run._declared(tmp_path, cell) == own
    assert wandb_run._declared(tmp_path, {"seed": 99}) == own  # resumed after the sweep changed
    assert wandb_run._declared(tmp_path / "other", {"seed": 99}) == {}


@pytest.mark.parametrize("seeds", [9, 6])
def test_other_numbers_of_seeds_after_a_look_are_exploratory(
    sweep_path: Path, tmp_path: Path, seeds: int
) -> None:
    folder = tmp_path / "s"

    def report() -> dict:
        plan = factories.study(sweep_path, smallest_effect=0.01)
        own = f"made_up:{study_hash(plan.declaration, varied(plan.sweeps))}"
        return verdict(folder, sweep_path, own, smallest_effect=0.01)

    first = report()
    assert (first["declared"], first["earlier_looks"]) == (True, [])
    factories.write_sweep(sweep_path, seeds=seeds)
    for _ in range(2):  # the second time from a report that already is a second look
        again = report()
        assert (again["declared"], again["earlier_looks"]) == (False, [7])
        said = f"this study was reported before with 7 seeds and now has {seeds}"
        assert said in again["declaration"]
    (folder / "results.json").write_text("[]")
    assert report()["earlier_looks"] == []


def test_a_description_that_could_claim_nothing_is_no_look(
    sweep_path: Path, tmp_path: Path
) -> None:
    """Three seeds cannot show a difference, so the test of all seven is the first one."""
    for seeds in (3, 7):
        factories.write_sweep(sweep_path, seeds=seeds)
        plan = factories.study(sweep_path, smallest_effect=0.01)
        own = f"made_up:{study_hash(plan.declaration, varied(plan.sweeps))}"
        found = verdict(tmp_path / "s", sweep_path, own, smallest_effect=0.01)
        grades = {row["grade"] for row in found["contrasts"]}
        assert (grades == {"not_testable"}) == (seeds == 3)
        assert (found["declared"], found["earlier_looks"]) == (True, [])
        said = "Earlier reports of this study had 3 seeds; no primary contrast was testable"
        assert (said in found["look"]) == (seeds == 7)


def test_a_report_whose_scores_were_all_equal_was_a_look(sweep_path: Path, tmp_path: Path) -> None:
    """Seven seeds could have shown a difference: that they did not is a result."""
    folder = tmp_path / "s"
    plan = factories.study(sweep_path)
    own = f"made_up:{study_hash(plan.declaration, varied(plan.sweeps))}"
    verdict(folder, sweep_path, own)
    old = json.loads((folder / "results.json").read_text())
    for row in old["contrasts"]:
        row["grade"] = "not_testable"
    (folder / "results.json").write_text(json.dumps(old))
    factories.write_sweep(sweep_path, seeds=9)
    plan = factories.study(sweep_path)
    own = f"made_up:{study_hash(plan.declaration, varied(plan.sweeps))}"
    assert verdict(folder, sweep_path, own)["earlier_looks"] == [7]
