"""Where runs are: addresses, sweeps without a local YAML, projects, filters; what they vary."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from analysis import report as report_module
from analysis.fetch import add_source_arguments, request
from analysis.runs import selection, wandb_server
from analysis.runs.record import FetchError
from analysis.runs.sources import Request, resolve
from analysis.runs.tables import read_tables
from analysis.runs.wandb_server import address
from lib.spec.declaration import Declaration
from lib.spec.load import load_study
from tests import factories
from tests.conftest import call
from tests.fakes.wandb_server import WandbServer
from tests.fakes.wandb_state import ENTITY, Run, Sweep


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("e/p/s0", "e/p/s0"),
        ("e/p/sweeps/s0", "e/p/s0"),
        ("e/p", "e/p"),
        ("https://wandb.ai/e/p/sweeps/s0", "e/p/s0"),
        ("https://wandb.ai/e/p/sweeps/s0?nw=nwusere", "e/p/s0"),
        ("https://wandb.ai/e/my%2Dp/workspace?nw=x", "e/my-p"),
        ("https://wandb.example.org:8080/e/p/", "e/p"),
        ("https://wandb.ai/e/p/sweeps", "e/p"),
    ],
)
def test_addresses_as_people_have_them(source: str, path: str) -> None:
    assert address(source).path == path


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("abc123", "Did you mean entity/project/abc123?"),
        ("e/p/s/t", "or the URL of either"),
        ("https://wandb.ai/e/p/runs/r1", "is the URL of a project's runs"),
        ("https://wandb.ai", "must be a study's name"),
        ("e/p/../../x", "must be a study's name"),
    ],
)
def test_other_addresses_are_refused_with_the_right_form(source: str, message: str) -> None:
    with pytest.raises(FetchError) as error:
        address(source)
    assert message in str(error.value)


RAW = {
    "method": "grid",
    "program": "their_script.py",
    "metric": {"name": "val/error", "goal": "minimize"},
    "parameters": {
        "algo": {"values": ["a", "b"]},
        "seed": {"values": list(range(6))},
        "epochs": {"value": 2},
    },
}


@pytest.fixture
def project(server: WandbServer) -> WandbServer:
    """Give a server with somebody's sweep, and two runs of something else in the project."""
    server.sweeps["s0"] = Sweep("s0", "p", yaml.safe_dump(RAW), [])
    rng = np.random.default_rng(0)
    for algo in "ab":
        for seed in range(6):
            config = {"algo": algo, "seed": seed, "epochs": 2}
            history = [{"epoch": e, "val/error": 0.3 / e + 0.01 * seed} for e in (1, 2)]
            score = 0.2 + 0.05 * (algo == "b") + rng.normal(0, 0.005)
            put(server, f"{algo}{seed}", config, score, history, "s0", "main")
    put(server, "x1", {"algo": "c", "seed": 0, "epochs": 9}, 0.5, [], None, "other")
    put(server, "x2", {"algo": "c", "seed": 1, "epochs": 9}, 0.5, [], None, "other")
    return server


def put(
    server: WandbServer,
    name: str,
    config: dict[str, Any],
    score: float,
    history: list[dict[str, Any]],
    sweep: str | None,
    group: str,
) -> None:
    server.runs[name] = Run(
        name,
        "p",
        {"displayName": name, "group": group},
        sweep=sweep,
        config={key: {"value": value} for key, value in config.items()},
        summary={"test/error": score},
        history={i: json.dumps(row | {"_step": i}) for i, row in enumerate(history)},
        files={},
        state="finished",
    )


def fetch(out: Path, env: dict[str, str], *words: str | Path) -> Any:
    return call("-m", "analysis.fetch", *words, "--out", out, env=env)


def test_a_sweep_without_a_local_yaml(
    project: WandbServer, online: dict[str, str], tmp_path: Path
) -> None:
    """Its configuration is read from the server; the address is the browser's."""
    out = tmp_path / "out"
    done = fetch(out, online, f"{project.url}/{ENTITY}/p/sweeps/s0")
    assert done.returncode == 0, done.stderr
    assert "12 finished, of 12 expected" in done.stdout
    assert yaml.safe_load((out / "sweep.yaml").read_text()) == RAW
    study, sources, folder = resolve(Request([str(out)]))  # from the tables alone
    assert (sources, folder, study.factors) == ([], out, {"algo": ["a", "b"]})
    (row,) = report_module.report(study, out, draw=False)["contrasts"]
    assert row["grade"] == "preliminary_support"


def test_sweeps_on_a_server_are_read_together_if_the_first_has_all_levels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a fill-in sweep's are; another study's are not."""
    sweeps = {"s0": RAW, "part": {**RAW, "parameters": {**RAW["parameters"], "seed": {"value": 0}}}}
    sweeps["other"] = {**RAW, "parameters": {**RAW["parameters"], "algo": {"value": "z"}}}
    monkeypatch.setattr(wandb_server, "sweep_config", lambda where: sweeps[where.sweep])
    together = ["e/p/s0", "e/p/part"]
    assert resolve(Request(together, out=tmp_path / "a"))[1] == together
    with pytest.raises(FetchError, match="algo = 'z' is not a level of the first sweep"):
        resolve(Request(["e/p/s0", "e/p/other"], out=tmp_path / "b"))


def test_runs_of_a_project_without_a_sweep(
    project: WandbServer, online: dict[str, str], tmp_path: Path
) -> None:
    path, out, declaration = f"{ENTITY}/p", tmp_path / "out", tmp_path / "mine.yaml"
    with pytest.raises(FetchError, match="is a project, not a sweep"):
        resolve(Request([path], out=out))
    declaration.write_text("metric: test/error\nfactors: {algo: [a, b]}\n")
    done = fetch(out, online, path, "--study", declaration, "--group", "main")
    assert done.returncode == 0, done.stderr
    assert "12 finished" in done.stdout
    study = load_study("mine", sweep=out / "sweep.yaml", declaration=declaration)
    (row,) = report_module.report(study, out, draw=False)["contrasts"]
    assert row["grade"] == "preliminary_support"
    only = json.dumps({"config.algo": "c"})
    done = fetch(tmp_path / "c", online, path, "--study", declaration, "--filter", only)
    assert "factors.algo = 'a' is not a level in the sweep; accepted: 'c'" in done.stderr
    runs, _ = read_tables(tmp_path / "c")
    assert sorted(runs["run_id"]) == ["x1", "x2"]
    some = json.dumps({"config.seed": {"$ne": 0}})
    done = fetch(out, online, path, "--study", declaration, "--group", "main", "--filter", some)
    assert "has 2 finished runs that this --filter or --group does not select: " in done.stderr
    assert "with --prune" in done.stderr
    none = json.dumps({"config.algo": "nothing"})
    done = fetch(tmp_path / "d", online, path, "--study", declaration, "--filter", none)
    assert 'with the filter {"config.algo": "nothing"}' in done.stderr


def test_groups_and_job_types_can_be_compared(
    server: WandbServer, online: dict[str, str], tmp_path: Path
) -> None:
    """Many projects name the variant in W&B's group, and have no config key for it."""
    for group, gain in (("baseline", 0), ("ours", 0.05)):
        for seed in range(6):
            config = {"seed": seed, "lr": 0.1}
            name = f"{group}{seed}"
            score = 0.2 - gain + seed / 1000 * (1 + gain)
            put(server, name, config, score, [{"epoch": 1, "test/error": score}], None, group)
            server.runs[name].attributes["jobType"] = f"try {seed}"
    out, declaration = tmp_path / "out", tmp_path / "mine.yaml"
    declaration.write_text("metric: test/error\nfactors: {Group: [baseline, ours]}\n")
    done = fetch(out, online, f"{ENTITY}/p", "--study", declaration)
    assert done.returncode == 0, done.stderr
    study = load_study("mine", sweep=out / "sweep.yaml", declaration=declaration)
    result = report_module.report(study, out, draw=False)
    (row,) = result["contrasts"]
    assert row["name"] == "Group"
    assert row["grade"] == "preliminary_support"
    runs, _ = read_tables(out)
    assert sorted(set(runs["wandb.Group"])) == ["baseline", "ours"]
    assert sorted(set(runs["wandb.Job Type"])) == [f"try {seed}" for seed in range(6)]
    assert "config.Group" not in runs, "a key of that name would be a setting"

    text = pd.read_csv(out / "runs.csv", dtype=str, keep_default_na=False)
    text.drop(columns=["wandb.Group", "wandb.Job Type"]).to_csv(out / "runs.csv", index=False)
    done = fetch(out, online, f"{ENTITY}/p", "--study", declaration)
    assert "12 runs read" in done.stdout, "tables of an earlier version have no groups"
    assert "wandb.Group" in read_tables(out)[0]


def test_a_filter_is_json() -> None:
    parser = argparse.ArgumentParser()
    add_source_arguments(parser)
    for text in ("algo=a", "[1]"):
        with pytest.raises(FetchError, match="must be a JSON object"):
            request(parser.parse_args(["e/p", "--filter", text]))
    asked = request(parser.parse_args(["e/p", "--filter", '{"state": "finished"}', "--group", "g"]))
    assert asked.filters == {"state": "finished", "group": "g"}


def test_filters_for_runs_in_a_folder() -> None:
    row = {"state": "finished", "config.algo": "a", "config.n": 3, "summary.x": 0.5}
    row |= {"wandb.Group": "g", "wandb.Job Type": "train"}
    assert selection.matches(row, {})
    assert selection.matches(row, {"config.algo": "a", "config.n": 3.0, "state": "finished"})
    assert not selection.matches(row, {"config.algo": "a", "config.n": "3"})
    assert selection.matches(row, {"config.algo": {"$in": ["a", "b"], "$ne": "b"}})
    assert not selection.matches(row, {"config.algo": {"$nin": ["a"]}})
    assert selection.matches(row, {"summary_metrics.x": {"$exists": True}})
    assert selection.matches(row, {"group": "g", "jobType": {"$ne": "eval"}})
    assert not selection.matches(row, {"group": "h"})
    assert not selection.matches(row, {"config.other": {"$exists": True}})
    for filters, message in (
        ({"tags": "x"}, "keys must be config"),
        ({"config.n": {"$gt": 1}}, "$gt"),
    ):
        with pytest.raises(FetchError) as error:
            selection.matches(row, filters)
        assert message in str(error.value)


def test_what_runs_vary_is_the_declarations() -> None:
    runs = pd.DataFrame(
        {
            "run_id": list("abcd"),
            "config.lr": [0.1, 0.1, 1, 1.0],
            "config.seed": [3, 1, 3, 1],
            "config.name": list("abcd"),
        },
        dtype=object,
    )
    declared = Declaration(metric="test/error", factors={"lr": [0.1, 1]})
    found = selection.sweep_of(runs, declared)["parameters"]
    assert found == {"lr": {"values": [0.1, 1]}, "seed": {"values": [1, 3]}}
    for values, message in (
        ({}, "add `factors:` or `arms:` to the declaration"),
        ({"factors": {"x": [1]}}, "no run has the declared key x"),
        (
            {"factors": {"lr": [0.1, 1]}, "seed": "s"},
            r"no run has the key s .*\(keys that vary: seed, name\)",
        ),
    ):
        with pytest.raises(FetchError, match=message):
            selection.sweep_of(runs, Declaration(metric="test/error", **values))


def test_tables_are_copied_with_what_belongs_to_them(tmp_path: Path) -> None:
    """The sweep beside them says what is compared; the copy can be reported by itself."""
    runs = pd.DataFrame([factories.run_row("r0", {"lr": 1, "seed": 0}, {"val/error": 0.5})])
    history = pd.DataFrame({"run_id": ["r0"], "epoch": [1], "val/error": [0.5]})
    folder = factories.write_study(tmp_path / "a", runs, history)
    factories.grid(folder / "sweep.yaml", {"lr": [1, 2]})
    for name in ("declared_at_runs.json", "network.json", "network.npz"):
        (folder / name).write_text(name)
    resolve(Request([str(folder)], out=tmp_path / "b"))
    assert {p.name for p in folder.iterdir()} == {p.name for p in (tmp_path / "b").iterdir()}
    study, _, place = resolve(Request([str(tmp_path / "b")]))
    assert (place, study.factors) == (tmp_path / "b", {"lr": [1, 2]})
