"""Ctrl-C, SIGTERM, SIGHUP, closed pipes and odd terminals: one sentence, and no work lost."""

import os
import signal
import subprocess
import time
from pathlib import Path

import filelock
import pytest

from analysis.runs import wandb_server
from analysis.runs.collect import collect
from analysis.runs.record import Fetched, build_record
from analysis.runs.tables import read_tables
from lib import agent
from lib.spec.sweep import SweepError
from tests import factories
from tests.conftest import ROOT, command
from tests.fakes.runs import start, wait_for

STUB = "tests/fakes/stub.py"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_before_there_is_a_run(
    offline: dict[str, str], tmp_path: Path, sent: signal.Signals
) -> None:
    """While it waits for another process that works on the same run."""
    folder, log = Path(offline["WANDB_DIR"]) / "r", tmp_path / "log"
    folder.mkdir(parents=True)
    with filelock.FileLock(folder / "lock"):
        process = start(STUB, offline, "r", log)
        wait_for(log, "waiting: another process", process)
        process.send_signal(sent)
        assert process.wait(30) == 1
    text = log.read_text()
    assert "stopped; to start or resume, run the same command with WANDB_RUN_ID=r" in text
    assert "Traceback" not in text


@pytest.mark.slow
def test_in_the_midst_of_starting(offline: dict[str, str], tmp_path: Path) -> None:
    """At a handful of moments inside wandb.init: never a traceback."""
    for i, seconds in enumerate((0.0, 0.1, 0.2, 0.4)):
        log, lock = tmp_path / f"log{i}", Path(offline["WANDB_DIR"]) / f"r{i}" / "lock"
        process = start(STUB, offline, f"r{i}", log, "--epochs", "200", "--seconds", "0.05")
        while not lock.exists():
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        process.wait(60)
        text = log.read_text()
        assert "Traceback" not in text, text
        assert "the same command" in text


def test_a_closed_terminal_is_a_preemption(offline: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    flags = ("--epochs", "40", "--seconds", "0.1", "--checkpoint-every", "40")
    process = start(STUB, offline, "r", log, *flags)
    wait_for(log, "epoch 3/", process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 1
    assert "to resume, run the same command with WANDB_RUN_ID=" in log.read_text()
    assert (Path(offline["WANDB_DIR"]) / "r" / "state.json").exists()  # of the epoch it was in


def test_nohup_is_respected(offline: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = ["nohup", *command(STUB, "--epochs", "20", "--seconds", "0.05")]
    with open(log, "w") as file:
        process = subprocess.Popen(words, cwd=ROOT, env=offline, stdout=file, stderr=file)
    wait_for(log, "epoch 3/", process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 0
    assert "epoch 20/20" in log.read_text()


def test_wandbs_process_is_killed(offline: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start(STUB, offline, "r", log, "--epochs", "400", "--seconds", "0.02")
    wait_for(log, "epoch 3/", process)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False
    )
    for child in children.stdout.split():
        os.kill(int(child), signal.SIGKILL)
    assert process.wait(120) != 0
    text = log.read_text()
    assert "To resume from the last checkpoint" in text or "Is the disk full?" in text
    assert "Traceback" not in text


def runs(number: int, stop_at: int) -> list[Fetched]:
    for i in range(number):
        if i == stop_at:
            raise KeyboardInterrupt
        rows = [{"epoch": 1, "val/error": 0.5, "_step": 0}]
        yield build_record(f"r{i}", "finished", 0, "s", {"seed": i}, {"test/error": 0.1}, rows)


def test_ctrl_c_keeps_what_fetch_has_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_server, "fetch_runs", lambda *_: (set(), runs(9, 4)))
    with pytest.raises(KeyboardInterrupt):
        collect(["e/p/s"], tmp_path, None)
    assert len(read_tables(tmp_path)[0]) == 4


def test_a_closed_pipe_does_not_stop_the_report(tmp_path: Path) -> None:
    sweep = factories.write_sweep(tmp_path / "s.yaml")
    folder = factories.write_study(tmp_path / "t", *factories.tables(sweep))
    words = command("-m", "analysis.report", folder, "--sweep", sweep, "--out", folder)
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()  # as `report | true`
    assert "Traceback" not in process.stderr.read()
    assert process.wait() == 0
    assert (folder / "report.html").exists()


@pytest.mark.parametrize(
    "encoding",
    [
        "ascii",
        pytest.param("latin-1", marks=pytest.mark.slow),
        pytest.param("cp1252", marks=pytest.mark.slow),
    ],
)
def test_terminals_that_lack_letters(tmp_path: Path, encoding: str) -> None:
    sweep = factories.write_sweep(tmp_path / "s.yaml")
    words = command("-m", "analysis.plan", sweep)
    env = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"family of 3" in done.stdout


@pytest.mark.parametrize("project", ["100%", "a#b", "a?b", "a:b", "a\\b", "a/b", "x" * 180])
def test_project_names_that_wandb_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, project: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.py").write_text("")
    text = "program: s.py\nmethod: grid\nparameters: {seed: {values: [1, 2]}}\n"
    Path("s.yaml").write_text(f"{text}project: '{project}'\n")
    with pytest.raises(SweepError, match="W&B does not accept the project name"):
        agent.load_sweep(Path("s.yaml"))


def test_a_sweep_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes("method: grid # Größe\nparameters: {a: {value: 1}}\n".encode("latin-1"))
    with pytest.raises(SweepError, match=r"cannot read .*utf-8"):
        agent.load_sweep(path)
