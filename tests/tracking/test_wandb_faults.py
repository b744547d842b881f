"""What machines and servers do to runs under W&B's client and agent; nothing logged is lost."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from analysis.runs import tables
from lib.data import gtsrb
from tests.conftest import ROOT, call
from tests.fakes.wandb_cli import (
    agents,
    children,
    cli,
    ended,
    epochs,
    fetch,
    start_sweep,
    trains,
    undisturbed,
    wait_until,
    write_stub_sweep,
)
from tests.fakes.wandb_server import WandbServer

EPOCHS = 15  # of a fifth of a second: enough to disturb a run in its midst
ALONE: dict[str, pd.DataFrame] = {}  # what the local agent gave, by sweep


@pytest.fixture
def one_sweep(
    server: WandbServer, online: dict[str, str], tmp_path: Path
) -> Callable[..., tuple[str, Path]]:
    """Give a function that starts a sweep of one variant, epochs short and many."""

    def start(**parameters: Any) -> tuple[str, Path]:
        one = {"batch_norm": True, "optimizer": "sgd", "seconds": 0.2, "seed": [0]}
        sweep = write_stub_sweep(tmp_path, **one | {"epochs": EPOCHS} | parameters)
        return start_sweep(online, server, sweep), sweep

    return start


@pytest.fixture
def as_undisturbed(online: dict[str, str], offline: dict[str, str], tmp_path: Path) -> Callable:
    """Give a function that fetches a sweep and compares it with the local agent's runs."""

    def compare(path: str, sweep: Path) -> pd.DataFrame:
        found = fetch(online, path, sweep, tmp_path / "tables")
        text = sweep.read_text()
        if text not in ALONE:
            ALONE[text] = undisturbed(offline, sweep, tmp_path)
        pd.testing.assert_frame_equal(found, ALONE[text])
        return found

    return compare


def test_a_preempted_run_is_handed_out_again_and_continues(
    server: WandbServer,
    online: dict[str, str],
    one_sweep: Callable,
    as_undisturbed: Callable,
) -> None:
    path, sweep = one_sweep()
    with agents(online, path) as (agent,):
        wait_until(lambda: trains(agent.log))
        (run,) = children(agent)
        os.kill(run, signal.SIGTERM)
        said = ended([agent])
    assert "resuming from" in said
    (only,) = server.runs.values()
    assert only.state == "finished"
    assert only.summary["resumed_from_epoch"] > 3
    assert epochs(server) == list(range(1, EPOCHS + 1)), "no epoch twice, none lost"
    as_undisturbed(path, sweep)


@pytest.mark.slow
def test_a_run_without_its_checkpoint_restarts_and_says_so(
    server: WandbServer,
    online: dict[str, str],
    one_sweep: Callable,
    as_undisturbed: Callable,
    tmp_path: Path,
) -> None:
    """As on another machine that does not see the first one's folder."""
    path, sweep = one_sweep()
    with agents(online | {"WANDB_DIR": str(tmp_path / "first")}, path) as (agent,):
        wait_until(lambda: trains(agent.log))
        (run,) = children(agent)
        agent.kill()
        os.kill(run, signal.SIGTERM)
        wait_until(lambda: next(iter(server.runs.values())).state == "preempted")
    with agents(online | {"WANDB_DIR": str(tmp_path / "second")}, path) as another:
        said = ended(another)
    assert "from epoch 1: the server has" in said
    assert as_undisturbed(path, sweep)["epoch"].tolist() == list(range(1, EPOCHS + 1))


@pytest.mark.slow
def test_a_killed_agent_and_a_killed_run(
    server: WandbServer, online: dict[str, str], one_sweep: Callable, tmp_path: Path
) -> None:
    """The agent's run goes on without it; a killed run is missing, and the report says which."""
    path, sweep = one_sweep(seed=[0, 1, 2])
    with agents(online, path) as (agent,):
        wait_until(lambda: trains(agent.log))
        agent.kill()
    with agents(online, path) as (agent,):
        wait_until(lambda: trains(agent.log))
        (run,) = children(agent)
        os.kill(run, signal.SIGKILL)
        ended([agent])
    wait_until(lambda: next(iter(server.runs.values())).state == "finished")
    states = {run.config["seed"]["value"]: run.state for run in server.runs.values()}
    assert states == {0: "finished", 1: "running", 2: "finished"}
    out = tmp_path / "tables"
    fetch(online, path, sweep, out)
    done = call("-m", "analysis.report", out, "--sweep", sweep, env=online)
    assert done.returncode == 1
    assert "running" in done.stderr + done.stdout
    lacking = yaml.safe_load((out / "fill_in_stub.yaml").read_text())
    assert lacking["parameters"]["seed"] in ({"value": 1}, {"values": [1]})


@pytest.mark.slow
def test_a_server_that_is_gone_for_a_while(
    server: WandbServer,
    online: dict[str, str],
    one_sweep: Callable,
    as_undisturbed: Callable,
) -> None:
    path, sweep = one_sweep()
    with agents(online, path) as (agent,):
        wait_until(lambda: trains(agent.log))
        server.faults.down = True
        time.sleep(3)
        server.faults.down = False
        ended([agent])
    assert server.faults.happened["dropped"] > 0
    assert epochs(server) == list(range(1, EPOCHS + 1))
    as_undisturbed(path, sweep)


@pytest.mark.slow
def test_a_server_that_fails_a_third_of_the_time(
    server: WandbServer, online: dict[str, str], one_sweep: Callable
) -> None:
    path, _ = one_sweep(epochs=10)
    server.faults.errors = 1 / 3
    with agents(online, path) as agent:
        ended(agent)
    assert server.faults.happened["errors"] > 0
    assert epochs(server) == list(range(1, 11))
    assert next(iter(server.runs.values())).state == "finished"


@pytest.mark.slow
def test_a_full_disk_at_checkpoint_time_loses_no_epoch(
    server: WandbServer, online: dict[str, str], signs: Path, tmp_path: Path
) -> None:
    """No file may grow beyond 300 kB for a while, which W&B's own files do not reach."""
    gtsrb.load(signs)  # its cache is larger
    words = [sys.executable, "train_gtsrb.py", "--data", str(signs), "--epochs", "4"]
    words += ["--checkpoint-every", "2", "--batch-norm", "True"]
    env = online | {"WANDB_RUN_ID": "full", "WANDB_PROJECT": "p"}

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    run = {"cwd": ROOT, "env": env, "capture_output": True, "text": True, "timeout": 120}
    full = subprocess.run(words, preexec_fn=limit, check=False, **run)
    assert full.returncode == 1
    assert "cannot write" in full.stderr
    assert "Free some space" in full.stderr
    assert epochs(server) == [1, 2]
    assert server.runs["full"].state == "failed"
    again = subprocess.run(words, check=False, **run)
    assert again.returncode == 0, again.stderr
    assert server.runs["full"].state == "finished"
    assert sorted(set(epochs(server))) == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_clock_that_is_set_back(
    online: dict[str, str], one_sweep: Callable, as_undisturbed: Callable, tmp_path: Path
) -> None:
    """By an hour, between two epochs: order and durations come from elsewhere."""
    mark = tmp_path / "set back"
    (tmp_path / "sitecustomize.py").write_text(
        f"import os, time\nreal = time.time\n"
        f"time.time = lambda: real() - 3600 * os.path.exists({str(mark)!r})\n"
    )
    path, sweep = one_sweep()
    with agents(online | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}, path) as (agent,):
        wait_until(lambda: trains(agent.log))
        mark.touch()
        ended([agent])
    as_undisturbed(path, sweep)
    assert (tables.read_tables(tmp_path / "tables")[1]["seconds"] > 0).all()


def test_a_sweep_is_paused_resumed_and_cancelled(
    server: WandbServer, online: dict[str, str], one_sweep: Callable
) -> None:
    path, _ = one_sweep(seed=[0, 1, 2, 3])
    with agents(online, path) as (agent,):
        wait_until(lambda: len(server.runs) == 1)
        cli(online, "sweep", "--pause", path)
        wait_until(lambda: next(iter(server.runs.values())).state == "finished")
        time.sleep(1.5)
        assert len(server.runs) == 1, "a paused sweep hands out nothing"
        cli(online, "sweep", "--resume", path)
        wait_until(lambda: trains(agent.log, runs=2))
        cli(online, "sweep", "--cancel", path)
        ended([agent])
    first, second = server.runs.values()
    assert (first.state, len(first.history)) == ("finished", EPOCHS)
    assert second.state == "preempted"
    printed = re.findall(r"epoch (\d+)/", agent.log.read_text())
    assert epochs(server, run=1) == list(range(1, int(printed[-1]) + 1)), "nothing logged is lost"


@pytest.mark.slow
def test_under_slurm_sigterm_reaches_the_run(
    server: WandbServer, online: dict[str, str], one_sweep: Callable, tmp_path: Path
) -> None:
    """The array script as a plain shell script: SLURM signals the batch shell alone."""
    if not (ROOT / ".venv" / "bin" / "activate").exists():
        pytest.skip("the script activates .venv, which `make test` makes")
    path, _ = one_sweep(epochs=100)  # an agent may take five seconds to pass the signal on
    log = tmp_path / "log"
    with open(log, "w") as file:
        words = ["bash", "sweeps/slurm_array.sh", path]
        script = subprocess.Popen(
            words, cwd=ROOT, env=online, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: trains(log))
        script.terminate()
        script.wait(60)
    finally:
        script.kill()
    (run,) = server.runs.values()
    assert run.state == "preempted", log.read_text()
    printed = re.findall(r"epoch (\d+)/", log.read_text())
    assert epochs(server) == list(range(1, int(printed[-1]) + 1))
