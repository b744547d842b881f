"""The local agent: a whole grid, again after SIGKILL and Ctrl-C, failures told, one at a time."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import filelock
import pandas as pd
import pytest
import yaml

from analysis.runs.tables import read_tables
from lib import agent
from lib.spec.errors import UserError
from tests.conftest import ROOT, call, command

GRID = "method: grid\nprogram: train_gtsrb.py\nparameters: "
CLOCK = ["seconds", "images_per_second"]


def write_sweep(path: Path, signs: Path, **parameters: dict) -> Path:
    values = {
        "batch_norm": {"values": [False, True]},
        "seed": {"values": [0, 1]},
        "data": {"value": str(signs)},
        "val_fraction": {"value": 0.34},
        "epochs": {"value": 2},
        "batch_size": {"value": 16},
        "checkpoint_every": {"value": 1},
    }
    sweep = {
        "program": "train_gtsrb.py",
        "method": "grid",
        "metric": {"name": "val/error", "goal": "minimize"},
        "parameters": values | parameters,
    }
    path.write_text(yaml.safe_dump(sweep))
    return path


@pytest.fixture
def sweep(signs: Path, tmp_path: Path) -> Path:
    """Give a sweep of four short runs."""
    return write_sweep(tmp_path / "tiny.yaml", signs)


def run_agent(sweep: Path, out: Path, env: dict[str, str]) -> subprocess.CompletedProcess:
    return call("-m", "lib.agent", sweep, "--workers", "2", "--out", out, env=env)


def fetch(
    sweep: Path, out: Path, to: Path, env: dict[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    done = call("-m", "analysis.fetch", out, "--sweep", sweep, "--out", to, env=env)
    assert done.returncode == 0, done.stderr
    return read_tables(to)


def start_agent(sweep: Path, out: Path, env: dict[str, str]) -> subprocess.Popen:
    words = command("-m", "lib.agent", sweep, "--workers", "2", "--out", out)
    return subprocess.Popen(
        words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_file(folder: Path, pattern: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, f"no {pattern} in {folder}"
        time.sleep(0.02)


def test_killed_and_started_again_it_ends_as_if_undisturbed(
    sweep: Path, offline: dict[str, str], tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = run_agent(sweep, whole, offline)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 runs finished" in done.stdout

    process = start_agent(sweep, broken, offline)
    wait_for_file(broken, "*/checkpoint-000001.pt", process)
    second = run_agent(sweep, broken, offline)
    assert second.returncode == 1
    assert f"another agent works on {broken}" in second.stderr
    process.kill()  # its two runs live on: the next agent waits for them, run by run
    process.wait()
    done = run_agent(sweep, broken, offline)
    assert done.returncode == 0, done.stderr

    tables = [
        fetch(sweep, out, tmp_path / f"{out.name}_tables", offline) for out in (whole, broken)
    ]
    for ours, theirs in zip(*tables, strict=True):
        drop = [*CLOCK, "source"]
        pd.testing.assert_frame_equal(
            ours.drop(columns=drop, errors="ignore"), theirs.drop(columns=drop, errors="ignore")
        )
    runs, history = tables[0]
    assert (runs["state"] == "finished").all()
    assert len(history) == 8

    lost = next(whole.glob("wandb/offline-run-*"))
    shutil.rmtree(lost)  # as `wandb sync --clean` does; its marker alone does not count
    assert "4 of 4 runs finished" in run_agent(sweep, whole, offline).stdout
    assert list(whole.glob(f"wandb/offline-run-*-{lost.name.rsplit('-', 1)[1]}"))

    before = len(list(broken.glob("wandb/offline-run-*")))
    assert "4 of 4 runs finished" in run_agent(sweep, broken, offline).stdout
    assert len(list(broken.glob("wandb/offline-run-*"))) == before, "nothing is run again"


def test_a_failed_run_is_told_and_does_not_stop_the_others(
    signs: Path, offline: dict[str, str], tmp_path: Path
) -> None:
    sweep = write_sweep(
        tmp_path / "tiny.yaml",
        signs,
        batch_norm={"value": True},
        seed={"value": 0},
        epochs={"value": 1},
        optimizer={"values": ["adamw", "sgd"]},
    )
    out = tmp_path / "out"
    done = run_agent(sweep, out, offline)
    assert done.returncode == 1
    assert "FAILED (exit code 1)" in done.stdout
    assert "optimizer = 'adamw': should be 'adam' or 'sgd'" in done.stdout
    assert "1 of 2 runs finished" in done.stdout
    runs, _ = fetch(sweep, out, tmp_path / "tables", offline)
    assert sorted(runs["state"]) == ["failed", "finished"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_the_runs_too(
    sweep: Path, offline: dict[str, str], tmp_path: Path, sent: signal.Signals
) -> None:
    out = tmp_path / "out"
    process = start_agent(sweep, out, offline)
    wait_for_file(out, "*/checkpoint-000001.pt", process)
    process.send_signal(sent)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"the same command continues {out}" in text
    assert "Traceback" not in text
    for lock in out.glob("*/lock"):
        filelock.FileLock(lock).acquire(timeout=5)  # held by any run that were still alive


def test_what_a_run_is_given(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(agent, "gpus", lambda: ["0", "3"])
    monkeypatch.setattr(agent, "cores", lambda: 8)
    grid = agent.read_sweep(sweep)
    cell = agent.cells(grid)[-1]
    given = [agent.environment(grid, cell, "tiny", tmp_path, slot, 3) for slot in range(3)]
    assert [values["CUDA_VISIBLE_DEVICES"] for values in given] == ["0", "3", "0"]
    assert given[0]["OMP_NUM_THREADS"] == "2"
    assert given[0]["WANDB_MODE"] == "offline"
    parameters = yaml.safe_load(Path(given[0]["WANDB_SWEEP_PARAM_PATH"]).read_text())
    assert parameters["batch_norm"] == {"value": True}
    assert given[0]["WANDB_NAME"] == "bn-seed1"
    assert len({agent.run_id(grid, cell) for cell in agent.cells(grid)}) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("method: bayes\nprogram: train_gtsrb.py\nparameters: {}", "Use `wandb sweep"),
        ("method: grid\nprogram: nope.py\nparameters: {}", "'nope.py' not found"),
        ("method: grid\nprogram: train_gtsrb.py", "no `parameters`"),
        ("method: grid\nprogram: train_gtsrb.py\nparameters: {a: {min: 0, max: 1}}", "a needs"),
        (GRID + "{a: {values: []}}", "a needs a list with a value in it, not []"),
        (GRID + "{a: {values: adam}}", "a needs a list with a value in it, not 'adam'"),
        (GRID + "{a: {values: null}}", "a needs a list with a value in it, not None"),
        (GRID + "{a: {value: 2026-01-01}}", "a may hold text, numbers, true, false"),
        (
            GRID + "{a: {value: 1}}\ncommand: [python, '${program}', --epochs, 3]",
            "holds --epochs, 3",
        ),
        (GRID + "{a: {value: 1}}\nearly_terminate: {type: hyperband}", "without early_terminate"),
        ("method: [", "cannot read the sweep"),
    ],
)
def test_sweeps_it_cannot_run(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        agent.read_sweep(tmp_path / "bad.yaml")
    assert words in str(error.value)


def test_cores_are_those_the_process_may_use() -> None:
    assert 1 <= agent.cores() <= (os.cpu_count() or 1)
