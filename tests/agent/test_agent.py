"""The local agent: a whole grid, resumed after SIGKILL and Ctrl-C; failures; one at a time."""

import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import termios
import time
from pathlib import Path

import filelock
import pandas as pd
import pytest
import yaml

from analysis.runs.tables import read_tables
from lib import agent
from lib.spec.sweep import SweepError
from lib.tracking import processes
from tests.conftest import ROOT, call, command

GRID = "method: grid\nprogram: train_gtsrb.py\nparameters: "
CLOCK = ["seconds", "images_per_second"]


def write_sweep(path: Path, **parameters: dict) -> Path:
    """Write a sweep of the stub script: two variants, two seeds, two epochs."""
    values = {
        "batch_norm": {"values": [False, True]},
        "seed": {"values": [0, 1]},
        "epochs": {"value": 2},
    }
    sweep = {
        "program": "tests/fakes/stub.py",
        "method": "grid",
        "metric": {"name": "val/error", "goal": "minimize"},
        "command": ["${env}", "${interpreter}", "${program}"],
        "parameters": values | parameters,
    }
    path.write_text(yaml.safe_dump(sweep))
    return path


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Give a sweep of four short runs."""
    return write_sweep(tmp_path / "tiny.yaml")


@pytest.fixture
def slow_sweep(tmp_path: Path) -> Path:
    """Give a sweep of four runs whose epochs can be disturbed."""
    return write_sweep(tmp_path / "tiny.yaml", epochs={"value": 4}, seconds={"value": 0.3})


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
    slow_sweep: Path, offline: dict[str, str], tmp_path: Path
) -> None:
    sweep, whole, broken = slow_sweep, tmp_path / "whole", tmp_path / "broken"
    done = run_agent(sweep, whole, offline)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 runs finished" in done.stdout

    process = start_agent(sweep, broken, offline)
    wait_for_file(broken, "*/state.json", process)
    second = run_agent(sweep, broken, offline)
    assert second.returncode == 1
    assert f"another agent is running in {broken}" in second.stderr
    process.kill()  # its two runs live on: the next agent waits for them, run by run
    process.wait()
    done = run_agent(sweep, broken, offline)
    assert done.returncode == 0, done.stderr

    tables = [
        fetch(sweep, out, tmp_path / f"{out.name}_tables", offline) for out in (whole, broken)
    ]
    for ours, theirs in zip(*tables, strict=True):
        drop = [*CLOCK, *(f"summary.{name}" for name in CLOCK), "source", "created"]
        drop += ["summary.resumed_from_epoch", "summary.runtime_seconds"]
        pd.testing.assert_frame_equal(
            ours.drop(columns=drop, errors="ignore"), theirs.drop(columns=drop, errors="ignore")
        )
    runs, history = tables[0]
    assert (runs["state"] == "finished").all()
    assert len(history) == 16

    lost = next(whole.glob("wandb/offline-run-*"))
    shutil.rmtree(lost)  # as `wandb sync --clean` does; its marker alone does not count
    assert "4 of 4 runs finished" in run_agent(sweep, whole, offline).stdout
    assert list(whole.glob(f"wandb/offline-run-*-{lost.name.rsplit('-', 1)[1]}"))

    before = len(list(broken.glob("wandb/offline-run-*")))
    assert "4 of 4 runs finished" in run_agent(sweep, broken, offline).stdout
    assert len(list(broken.glob("wandb/offline-run-*"))) == before, "nothing is run again"


def test_a_failed_run_is_reported_and_does_not_stop_the_others(
    offline: dict[str, str], tmp_path: Path
) -> None:
    sweep = write_sweep(
        tmp_path / "tiny.yaml",
        batch_norm={"value": True},
        seed={"value": 0},
        epochs={"value": 1},
        lr={"values": [99.0, 0.1]},
    )
    out = tmp_path / "out"
    done = run_agent(sweep, out, offline)
    assert done.returncode == 1
    assert "FAILED (exit code 1)" in done.stdout
    assert "lr = 99.0 diverges at once" in done.stdout
    assert "1 of 2 runs finished" in done.stdout
    assert "no parameter with “seed”" not in done.stdout
    runs, _ = fetch(sweep, out, tmp_path / "tables", offline)
    assert sorted(runs["state"]) == ["failed", "finished"]


def test_what_a_script_refuses_fails_once(offline: dict[str, str], tmp_path: Path) -> None:
    sweep = write_sweep(
        tmp_path / "tiny.yaml",
        optimizer={"values": ["adam", "adamw"]},
        learning_rate={"value": 0.1},
    )
    done = run_agent(sweep, tmp_path / "out", offline)
    assert done.returncode == 1
    assert "no run was started, because the dry run of tests/fakes/stub.py failed" in done.stderr
    assert "learning_rate = 0.1: unknown key" in done.stderr
    assert "optimizer = 'adamw': should be 'adam' or 'sgd'" in done.stderr
    assert not list((tmp_path / "out").glob("wandb/offline-run-*"))


def test_a_grid_without_seeds_is_said_before_it_runs(
    offline: dict[str, str], tmp_path: Path
) -> None:
    sweep = write_sweep(tmp_path / "tiny.yaml", unknown={"value": 1})
    content = yaml.safe_load(sweep.read_text())
    for key, said in (("seed", False), ("random_seed", False), ("repeat", True)):
        content["parameters"][key] = content["parameters"].pop("seed", {"values": [0, 1]})
        sweep.write_text(yaml.safe_dump(content))
        content["parameters"].pop(key)
        done = run_agent(sweep, tmp_path / key, offline)
        assert "no run was started" in done.stderr
        assert ("tiny has no parameter with “seed”" in done.stdout) == said


def test_a_closed_terminal_stops_the_runs(
    slow_sweep: Path, offline: dict[str, str], tmp_path: Path
) -> None:
    out, (ours, theirs) = tmp_path / "out", pty.openpty()
    words = command("-m", "lib.agent", slow_sweep, "--workers", "2", "--out", out)
    session = {"start_new_session": True, "preexec_fn": lambda: fcntl.ioctl(0, termios.TIOCSCTTY)}
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = subprocess.Popen(words, cwd=ROOT, env=offline, **streams, **session)
    os.close(theirs)
    deadline = time.monotonic() + 120
    while not list(out.glob("*/state.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.close(ours)
    assert process.wait(60) != 0
    for lock in out.glob("*/lock"):
        filelock.FileLock(lock).acquire(timeout=5)  # held by any run that were still alive


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_the_runs_too(
    slow_sweep: Path, offline: dict[str, str], tmp_path: Path, sent: signal.Signals
) -> None:
    out = tmp_path / "out"
    process = start_agent(slow_sweep, out, offline)
    wait_for_file(out, "*/state.json", process)
    process.send_signal(sent)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"run the same command again to continue {out}" in text
    assert "Traceback" not in text
    for lock in out.glob("*/lock"):
        filelock.FileLock(lock).acquire(timeout=5)  # held by any run that were still alive


def test_what_a_run_is_given(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(processes, "cores", lambda: 8)
    plan = agent.load_sweep(sweep)
    cell = plan.grid()[-1]
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    monkeypatch.setenv(processes.DRY_RUN, "from/the/shell")
    given = [processes.environment(plan, cell, tmp_path, slot, 3, ["0", "3"]) for slot in range(3)]
    assert [values["CUDA_VISIBLE_DEVICES"] for values in given] == ["0", "3", "0"]
    assert given[0]["OMP_NUM_THREADS"] == "2"
    assert given[0]["MKL_NUM_THREADS"] == "5", "as the caller has set it"
    assert processes.DRY_RUN not in given[0]
    assert given[0]["WANDB_MODE"] == "offline"
    parameters = yaml.safe_load(Path(given[0]["WANDB_SWEEP_PARAM_PATH"]).read_text())
    assert parameters["batch_norm"] == {"value": True}
    assert given[0]["WANDB_NAME"] == "bn-seed1"
    assert len({processes.run_id(plan, cell) for cell in plan.grid()}) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("method: bayes\nprogram: train_gtsrb.py\nparameters: {a: {value: 1}}", "`wandb sweep"),
        ("method: grid\nprogram: nope.py\nparameters: {a: {value: 1}}", "'nope.py' not found"),
        (GRID + "{a: {value: 1}}\ncommand: ['${arg}']", "command has the unknown macro ${arg}"),
        (GRID.replace("train_gtsrb.py", "") + "{a: {value: 1}}", "`program:` is missing"),
        (GRID + "{a: {value: 1}}\ncommand: python", "must be a list of words, got 'python'"),
        (
            GRID + "{a: {value: 1}}\nearly_terminate: {type: hyperband}",
            "not support early_terminate",
        ),
        ("method: [", "cannot read"),
    ],
)
def test_sweeps_it_cannot_run(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(SweepError) as error:
        agent.load_sweep(tmp_path / "bad.yaml")
    assert words in str(error.value)


def test_a_studys_name_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name, files in {
        "gtsrb_short": ["gtsrb_short"],
        "gtsrb_400": ["gtsrb_400_template", "gtsrb_400_ours"],  # a study that pools two sweeps
    }.items():
        plans = agent.load_sweeps(name)
        assert [plan.where for plan in plans] == [str(ROOT / f"sweeps/{f}.yaml") for f in files]


def test_a_finished_run_of_another_recipe_is_not_taken_for_finished(
    offline: dict[str, str], tmp_path: Path
) -> None:
    """The script's default changes; what finished before is kept, and named."""
    script = tmp_path / "script.py"
    text = (ROOT / "tests" / "fakes" / "stub.py").read_text()
    script.write_text(text)
    one = {"seed": {"value": 0}, "batch_norm": {"value": True}}
    sweep = write_sweep(tmp_path / "tiny.yaml", **one)
    sweep.write_text(sweep.read_text().replace("tests/fakes/stub.py", str(script)))
    out = tmp_path / "out"
    assert "1 of 1 run finished" in run_agent(sweep, out, offline).stdout
    (marker,) = out.glob("*/finished.json")
    assert json.loads(marker.read_text())["config"]["lr"] == 0.1
    script.write_text(text.replace("lr: PositiveFloat = 0.1", "lr: PositiveFloat = 0.2"))
    done = run_agent(sweep, out, offline)
    assert done.returncode == 1
    assert "finished with a different recipe" in done.stderr
    assert "lr was 0.1, is now 0.2" in done.stderr
    assert marker.exists(), "nothing that is finished is lost"
    script.write_text(
        text.replace("checkpoint_every: PositiveInt = 1", "checkpoint_every: int = 2")
    )
    assert "1 of 1 run finished" in run_agent(sweep, out, offline).stdout


@pytest.mark.parametrize(
    ("source", "out", "expected"),
    [
        ("gtsrb_short", None, "gtsrb_short"),
        ("demo_gtsrb", None, "demo_gtsrb --out runs/demo_gtsrb/analysis"),
        (
            "gtsrb_short",
            "other/my runs",
            "'other/my runs' --sweep sweeps/gtsrb_short.yaml --out 'other/my runs/analysis'",
        ),
        (
            "sweeps/unet.yaml",
            None,
            "runs/unet --sweep sweeps/unet.yaml --out runs/unet/analysis",
        ),
    ],
)
def test_the_last_line_is_the_reports_command(
    source: str, out: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `make demo` calls it for a demo; a report on runs in another folder goes next to them."""
    monkeypatch.chdir(ROOT)
    (sweep,) = agent.load_sweeps(source)
    for executable, python in {
        str(ROOT / ".venv" / "bin" / "python"): ".venv/bin/python",
        "/usr/bin/python3": "python",
    }.items():
        monkeypatch.setattr("sys.executable", executable)
        found = agent.report_command(source, sweep, Path(out) if out else None)
        assert found == f"{python} -m analysis.report {expected}"


def test_the_agent_starts_without_torch_and_wandb() -> None:
    code = "import sys, lib.agent; print({'torch', 'wandb'} & set(sys.modules))"
    assert call("-c", code).stdout == "set()\n"
