"""Fetching from a server: W&B's own public API against the stand-in, well-behaved and not."""

import io
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.runs import tables
from lib.spec.words import count
from tests.conftest import call
from tests.fakes.wandb_server import WandbServer
from tests.fakes.wandb_state import ENTITY, Run, Sweep

PATH = f"{ENTITY}/p/s0"


def put(server: WandbServer, name: str, epochs: int = 3, **changes: Any) -> None:
    """Give the server a run as our scripts leave one."""
    lines = [
        {"epoch": e, "val/error": float("nan") if e == 1 else 1 / e} for e in range(1, epochs + 1)
    ]
    lines.append({"media": "a row without an epoch"})
    scores = io.BytesIO()
    arrays = {"labels": [3, 4], "predicted": [3, 5], "probability": [0.9, 0.1]}
    np.savez_compressed(scores, names=["00000.ppm", "00001.ppm"], **arrays)
    values = {
        "sweep": "s0",
        "config": {"seed": {"value": 1}, "lr": {"value": 0.1}, "_wandb": {"value": {}}},
        "summary": {"test/error": 0.5, "diverged": False, "_runtime": 3},
        "history": {i: json.dumps(line | {"_step": i}) for i, line in enumerate(lines)},
        "files": {"test_scores.npz": scores.getvalue(), "output.log": b"..."},
        "state": "finished",
    }
    server.runs[name] = Run(name, "p", {"displayName": name}, **values | changes)


@pytest.fixture
def fetched(server: WandbServer, online: dict[str, str], tmp_path: Path) -> Any:
    """Give a function that fetches the sweep into a folder; returns what the command printed."""
    server.sweeps["s0"] = Sweep("s0", "p", "method: grid", [])
    sweep = tmp_path / "s.yaml"
    sweep.write_text(
        "method: grid\nmetric: {name: val/error, goal: minimize}\n"
        "parameters: {seed: {values: [1]}, lr: {value: 0.1}}\n"
    )

    def fetch(out: str = "tables", *flags: str, **environment: str) -> Any:
        words = ("-m", "analysis.fetch", PATH, "--sweep", sweep, "--out", tmp_path / out)
        return call(*words, *flags, env=online | environment)

    return fetch


def test_a_servers_runs(server: WandbServer, fetched: Any, tmp_path: Path) -> None:
    put(server, "a")
    put(server, "b", state="running", summary={})
    done = fetched()
    assert "2 runs read, 2 in" in done.stdout, done.stderr
    runs, history = tables.read_tables(tmp_path / "tables")
    row = runs.set_index("run_id").loc["a"]
    names = ["state", "exit_code", "source", "config.seed", "config.lr", "summary.test/error"]
    names.append("url")
    url = f"{server.url}/{ENTITY}/p/runs/a"
    assert row[names].tolist() == ["finished", 0, f"{ENTITY}/p/a", 1, 0.1, 0.5, url]
    assert runs["state"].tolist() == ["finished", "running"]
    mine = history[history["run_id"] == "a"]
    assert mine["epoch"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(mine["val/error"], [np.nan, 1 / 2, 1 / 3])
    assert (tmp_path / "tables/files/a/test_scores.npz").exists()
    assert not (tmp_path / "tables/files/a/output.log").exists()


def test_what_was_unfinished_is_read_again_and_what_is_gone_goes(
    server: WandbServer, fetched: Any, tmp_path: Path
) -> None:
    put(server, "a")
    put(server, "b", state="running", epochs=2)
    fetched()
    put(server, "b")
    before = server.operations["HistoryPage"]
    assert "1 run read, 2 in" in fetched().stdout
    assert server.operations["HistoryPage"] == before + 1, "a was finished: not read again"
    runs, history = tables.read_tables(tmp_path / "tables")
    assert runs["state"].tolist() == ["finished", "finished"]
    assert history["run_id"].tolist() == ["a"] * 3 + ["b"] * 3
    server.runs["b"].state = "running"  # resumed after it had finished
    assert "1 run read, 2 in" in fetched().stdout
    server.runs["b"].state = "finished"
    fetched()
    del server.runs["b"]
    words = "1 finished run no longer in any source:"
    assert f"{words} kept (use --prune to remove)" in fetched().stdout
    assert tables.read_tables(tmp_path / "tables")[0]["run_id"].tolist() == ["a", "b"]
    assert f"{words} removed" in fetched("tables", "--prune").stdout
    assert tables.read_tables(tmp_path / "tables")[0]["run_id"].tolist() == ["a"]


def test_the_last_value_of_an_epoch_counts_and_nothing_none(
    server: WandbServer, fetched: Any, tmp_path: Path
) -> None:
    """As after a restart, in disorder, and with a row of pictures that lacks the metrics."""
    lines = [{"epoch": 1, "val/error": 0.9}, {"epoch": 2, "val/error": 0.8}]
    lines += [{"epoch": 1, "val/error": 0.5}, {"epoch": 2, "val/error": 0.25}]
    lines += [{"epoch": 2, "val/error": None, "media/x": {"_type": "images/separated"}}]
    put(server, "a", history={i: json.dumps(r | {"_step": i}) for i, r in enumerate(lines)})
    server.faults.repeat_rows = True
    fetched()
    history = tables.read_tables(tmp_path / "tables")[1]
    assert history.columns.tolist() == ["run_id", "epoch", "val/error"]
    assert history["val/error"].tolist() == [0.5, 0.25]


def test_a_search_in_a_project_is_named_and_can_be_left_out(
    server: WandbServer, fetched: Any, online: dict[str, str], tmp_path: Path
) -> None:
    """Its settings depend on earlier scores, so its runs are not a comparison."""
    server.sweeps["s1"] = Sweep("s1", "p", "method: bayes", [])
    put(server, "a")
    put(server, "found", sweep="s1")
    put(server, "alone", sweep=None)
    words = ("-m", "analysis.fetch", f"{ENTITY}/p", "--sweep", tmp_path / "s.yaml")
    done = call(*words, "--out", tmp_path / "all", env=online)
    assert done.returncode == 1
    assert "so they cannot be compared: s1 (`method: bayes`)" in done.stderr
    without = '{"sweep": {"$nin": ["s1"]}}'
    assert f"--filter '{without}'" in done.stderr
    call(*words, "--filter", without, "--out", tmp_path / "rest", env=online)
    assert tables.read_tables(tmp_path / "rest")[0]["run_id"].tolist() == ["a", "alone"]
    one = (*words[:2], f"{ENTITY}/p/s1", *words[3:], "--out", tmp_path / "one")
    assert "run a grid of them with seeds" in call(*one, env=online).stderr


@pytest.mark.slow
def test_torn_tables_are_read_again(server: WandbServer, fetched: Any, tmp_path: Path) -> None:
    put(server, "a")
    put(server, "b")
    fetched()
    path = tmp_path / "tables" / "history.csv"
    whole = path.read_bytes()
    path.unlink()
    assert "Reading all runs again" in fetched().stdout
    assert path.read_bytes() == whole
    history = tables.read_tables(tmp_path / "tables")[1]
    history[history["run_id"] == "a"].to_csv(path, index=False)
    fetched()  # b counts as finished, but its history is missing
    assert path.read_bytes() == whole


@pytest.mark.slow
def test_many_runs_long_histories_and_rows_in_disorder(
    server: WandbServer, fetched: Any, tmp_path: Path
) -> None:
    """More runs and more epochs than a page holds; rows twice and not in order."""
    for i in range(51):
        put(server, f"r{i:02d}", epochs=1)
    put(server, "long", epochs=2500)
    server.faults.repeat_rows = True
    fetched()
    assert server.faults.happened["repeated"] > 0
    runs, history = tables.read_tables(tmp_path / "tables")
    assert runs["run_id"].tolist() == ["long", *(f"r{i:02d}" for i in range(51))]
    mine = history[history["run_id"] == "long"]
    assert mine["epoch"].tolist() == list(range(1, 2501))
    assert mine["val/error"].iloc[1:].tolist() == [1 / epoch for epoch in range(2, 2501)]


@pytest.mark.slow
def test_a_server_that_fails_a_third_of_the_time(
    server: WandbServer, fetched: Any, tmp_path: Path
) -> None:
    for i in range(3):
        put(server, f"r{i}")
    fetched("plain")
    server.faults.errors, server.faults.drops, server.faults.delay = 0.23, 0.1, 0.02
    done = fetched("faulty")
    assert done.returncode == 0, done.stderr
    assert min(server.faults.happened[kind] for kind in ("errors", "dropped")) > 0
    for name in ("runs.csv", "history.csv"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "faulty" / name).read_bytes()


def test_what_a_server_gave_before_it_went_is_kept(
    server: WandbServer, fetched: Any, tmp_path: Path
) -> None:
    for i in range(3):
        put(server, f"r{i}")

    def refuse() -> None:
        while server.operations["HistoryPage"] < 2:
            time.sleep(0.005)
        server.faults.refuse = True

    threading.Thread(target=refuse, daemon=True).start()
    done = fetched()
    assert done.returncode == 1
    assert "after 4 attempts" in done.stderr
    assert "Traceback" not in done.stderr
    assert server.faults.happened["refused"] > 0
    kept = tables.read_tables(tmp_path / "tables")[0]["run_id"].tolist()
    assert kept in (["r0"], ["r0", "r1"])
    server.faults.refuse = False
    assert f"{count(3 - len(kept), 'run')} read, 3 in" in fetched().stdout
