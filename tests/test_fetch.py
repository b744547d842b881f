"""Fetching: offline files in every state, a server's answers, and what is not read twice."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import pytest
import wandb

from analysis import fetch, tables
from analysis.offline import OfflineError, read
from tests.conftest import ROOT, call, command

RUN = """
import os, signal, sys, wandb
run = wandb.init(id=sys.argv[1], project="p", config={"seed": 1, "lr": 0.1, "flag": False})
for epoch in (1, 2, 2, 3):
    run.log({"epoch": epoch, "val/error": float("nan") if epoch == 1 else 1 / epoch})
run.summary.update({"test/error": 1 / 3, "diverged": False})
if sys.argv[2] == "crash":
    raise RuntimeError("on purpose")
if sys.argv[2] == "kill":
    import time; time.sleep(2)
    os.kill(os.getpid(), signal.SIGKILL)
run.finish()
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Give a sweep that fits the made-up runs."""
    path = tmp_path / "s.yaml"
    path.write_text("method: grid\nparameters: {seed: {values: [1]}, lr: {value: 0.1}}\n")
    return path


def make_run(env: dict[str, str], name: str, end: str) -> None:
    folder = Path(env["WANDB_DIR"])
    folder.mkdir(exist_ok=True)
    subprocess.run(
        command("-c", RUN, name, end), env=env, cwd=ROOT, capture_output=True, check=False
    )


def test_offline_runs_in_every_state(offline: dict[str, str], sweep: Path, tmp_path: Path) -> None:
    for name, end in (("good", "finish"), ("bad", "crash"), ("dead", "kill")):
        make_run(offline, name, end)
    out, source = tmp_path / "tables", offline["WANDB_DIR"]
    arguments = ("-m", "analysis.fetch", source, "--sweep", sweep, "--out", out)
    first = call(*arguments)
    assert "3 runs read, 3 in" in first.stdout
    runs, history = tables.read_tables(out)
    runs = runs.set_index("run_id")
    assert runs["state"].to_dict() == {"good": "finished", "bad": "failed", "dead": "crashed"}
    assert runs.loc["good", ["exit_code", "seed", "lr", "flag"]].tolist() == [0, 1, 0.1, False]
    assert runs.loc["good", "test/error"] == 1 / 3, "floats keep all their digits"
    good = history[history["run_id"] == "good"]
    assert good["epoch"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(good["val/error"], [np.nan, 1 / 2, 1 / 3])

    before = (out / "runs.csv").read_bytes()
    second = call(*arguments)
    assert "2 runs read, 3 in" in second.stdout, "the finished one is not read again"
    assert (out / "runs.csv").read_bytes() == before

    file = next(Path(source).glob("wandb/offline-run-*-good/*.wandb"))
    file.write_bytes(file.read_bytes()[:-40])  # cut off: no exit record
    call("-m", "analysis.fetch", source, "--sweep", sweep, "--out", tmp_path / "cut")
    runs, _ = tables.read_tables(tmp_path / "cut")
    assert runs.set_index("run_id").loc["good", "state"] == "crashed"

    make_run(offline, "dead", "finish")  # a later attempt
    call(*arguments)
    runs, _ = tables.read_tables(out)
    assert runs.set_index("run_id").loc["dead", "state"] == "finished"


def test_an_interrupted_write_leaves_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("old\n")
    with pytest.raises(TypeError):
        tables.replace_file(path, None)
    assert path.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["runs.csv"]


def server_run(name: str, **changes: Any) -> SimpleNamespace:
    rows = [{"epoch": e, "val/error": "NaN" if e == 1 else 1 / e, "_step": e} for e in (1, 3, 2, 2)]
    values = {
        "id": name,
        "path": ["e", "p", name],
        "url": f"https://example.org/e/p/runs/{name}",
        "state": "finished",
        "config": {"seed": 1, "_wandb": {}},
        "summary": {"test/error": 0.5, "_runtime": 3},
        "scan_history": lambda: iter(rows),
        "files": lambda _names: [],
    }
    return SimpleNamespace(**values | changes)


def test_a_servers_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def download(root: str, replace: bool) -> IO:
        assert replace
        Path(root).mkdir()
        (Path(root) / "test_scores.npz").write_text("scores")
        return open(Path(root) / "test_scores.npz")

    saved = {"files": lambda names: [SimpleNamespace(download=download)] if names else []}
    runs = [server_run("a", **saved), server_run("b", state="running"), server_run("old")]
    api = SimpleNamespace(sweep=lambda _path: SimpleNamespace(runs=runs))
    monkeypatch.setattr(wandb, "Api", lambda **_: api)
    kept, reading = fetch.fetch_server("e/p/s", {"old": "e/p/old", "gone": "e/p/gone"}, tmp_path)
    fetched = list(reading)
    assert kept == {"old"}
    assert (tmp_path / "a" / "test_scores.npz").read_text() == "scores"
    assert [run.row["run_id"] for run in fetched] == ["a", "b"]
    assert fetched[0].row == {
        "run_id": "a",
        "state": "finished",
        "exit_code": 0,
        "source": "e/p/a",
        "url": "https://example.org/e/p/runs/a",
        "seed": 1,
        "test/error": 0.5,
    }
    assert [row["epoch"] for row in fetched[0].history] == [1, 2, 3]
    assert np.isnan(fetched[0].history[0]["val/error"])
    assert (fetched[1].row["state"], fetched[1].row["exit_code"]) == ("running", None)


def test_what_a_server_gave_before_it_broke_off_is_kept(
    monkeypatch: pytest.MonkeyPatch, sweep: Path, tmp_path: Path
) -> None:
    def broken() -> None:
        raise wandb.errors.CommError("gone")

    runs = [server_run("a"), server_run("b", scan_history=broken)]
    api = SimpleNamespace(sweep=lambda _path: SimpleNamespace(runs=runs))
    monkeypatch.setattr(wandb, "Api", lambda **_: api)
    words = ["fetch", "e/p/s", "--sweep", str(sweep), "--out", str(tmp_path / "t")]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit, match="reading e/p/b broke off: gone"):
        fetch.main()
    assert tables.read_tables(tmp_path / "t")[0]["run_id"].tolist() == ["a"]
    runs[1] = server_run("b")
    fetch.main()
    assert tables.read_tables(tmp_path / "t")[0]["run_id"].tolist() == ["a", "b"]


def test_torn_tables_and_runs_that_are_gone(
    monkeypatch: pytest.MonkeyPatch, sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "t"
    runs = [server_run("a"), server_run("b")]
    api = SimpleNamespace(sweep=lambda _path: SimpleNamespace(runs=runs))
    monkeypatch.setattr(wandb, "Api", lambda **_: api)
    monkeypatch.setattr("sys.argv", ["f", "e/p/s", "--sweep", str(sweep), "--out", str(out)])
    fetch.main()
    (out / "history.csv").unlink()
    fetch.main()
    assert "reading everything anew" in capsys.readouterr().out
    history = tables.read_tables(out)[1]
    history[history["run_id"] == "a"].to_csv(out / "history.csv", index=False)
    fetch.main()  # b counts as finished, but its history is missing: it is read again
    assert set(tables.read_tables(out)[1]["run_id"]) == {"a", "b"}
    runs.pop()
    fetch.main()
    assert tables.read_tables(out)[0]["run_id"].tolist() == ["a"], "b is gone from the source"


def test_no_server_and_no_runs_are_told(tmp_path: Path, sweep: Path, offline: dict) -> None:
    env = {k: v for k, v in offline.items() if k != "WANDB_MODE"}
    env |= {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "x" * 40}
    env |= {"WANDB_X_GRAPHQL_RETRY_MAX": "1"}
    for source, words in (
        (tmp_path, "has no offline runs"),
        ("e/p", "is neither a folder nor entity/project/sweep_id"),
        ("e/p/s", "cannot read the sweep e/p/s"),
    ):
        arguments = ("-m", "analysis.fetch", source, "--sweep", sweep, "--out", tmp_path / "t")
        done = call(*arguments, env=env)
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_two_sources_are_one_study(offline: dict[str, str], sweep: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    make_run(offline | {"WANDB_DIR": str(first)}, "one", "finish")
    make_run(offline | {"WANDB_DIR": str(second)}, "two", "finish")
    arguments = ("-m", "analysis.fetch", "--sweep", sweep, "--out", tmp_path / "tables")
    assert "2 runs read, 2 in" in call(*arguments, first, second).stdout
    again = call(*arguments, second, first)
    assert "0 runs read, 2 in" in again.stdout
    assert again.returncode == 0
    make_run(offline | {"WANDB_DIR": str(second)}, "one", "finish")
    twice = call(*arguments, first, second)
    assert twice.returncode == 1
    assert "has run(s) of another source: one" in twice.stderr


def test_an_unreadable_file_is_named(tmp_path: Path, offline: dict[str, str]) -> None:
    make_run(offline, "good", "finish")
    good = next(tmp_path.glob("runs/wandb/offline-run-*-good/*.wandb"))
    bad = tmp_path / "run-bad.wandb"
    bad.write_bytes(b"not W&B's format")
    records, again = read([good, good])
    assert records == again
    assert [record["type"] for record in records].count("history") == 4
    for unreadable in (bad, tmp_path / "absent" / "run-bad.wandb"):
        with pytest.raises(OfflineError, match=r"run-bad\.wandb cannot be read"):
            read([good, unreadable])
