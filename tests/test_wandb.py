"""W&B end to end: the real CLI, agents and scripts against the stand-in for its server."""

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from analysis import tables
from lib import agent as local_agent
from lib.hardware import cores
from tests.conftest import ROOT, call
from tests.wandb_server import ENTITY, WandbServer

# The real agent, but that it asks the server five times a second instead of every five seconds.
AGENT = """
import sys
from wandb.cli.cli import cli
from wandb.wandb_agent import Agent
Agent.POLL_INTERVAL = 0.2
cli(sys.argv[1:])
"""
CLOCKED = ["seconds", "images_per_second"]  # columns that no two runs share


def write_sweep(path: Path, study: str, data: Path, **parameters: Any) -> Path:
    """Write the sweep of ``study`` with this data and other ``parameters``: a list is an axis."""
    sweep = yaml.safe_load((ROOT / "sweeps" / f"{study}.yaml").read_text())
    for name, value in ({"data": str(data)} | parameters).items():
        sweep["parameters"][name] = {"values" if isinstance(value, list) else "value": value}
    path.mkdir(exist_ok=True)
    (path / f"{study}.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    return path / f"{study}.yaml"


def cli(env: dict[str, str], *words: str | Path) -> subprocess.CompletedProcess:
    """Run W&B's command to its end."""
    done = subprocess.run(
        ["wandb", *map(str, words)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@contextlib.contextmanager
def agents(env: dict[str, str], path: str, count: int = 1) -> Iterator[list[subprocess.Popen]]:
    """Start W&B agents on a sweep; those that still live at the end are killed."""
    started = []
    for i in range(count):
        log = Path(env["HOME"]) / f"agent-{time.monotonic_ns()}-{i}.log"
        with open(log, "w") as file:  # no pipe: a run whose agent was killed goes on writing
            process = subprocess.Popen(
                [sys.executable, "-c", AGENT, "agent", path],
                cwd=ROOT,
                env=env,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        process.log = log
        started.append(process)
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def ended(processes: list[subprocess.Popen], timeout: float = 240) -> str:
    """Wait for agents to end well; return what they and their runs printed."""
    for process in processes:
        assert process.wait(timeout) == 0, process.log.read_text()
    return "".join(process.log.read_text() for process in processes)


def wait_until(true: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until ``true()``; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def trains(log: Path, runs: int = 1) -> bool:
    """Say whether so many runs have come to their fourth epoch; the server hears of it later."""
    return log.read_text().count("epoch 4/") >= runs


def epochs(server: WandbServer, run: int = 0) -> list[int]:
    """Return the epochs that the server has of its ``run``-th run."""
    runs = list(server.runs.values())
    if run >= len(runs):
        return []
    lines = [runs[run].history[i] for i in sorted(runs[run].history)]
    return [row["epoch"] for row in map(json.loads, lines) if "epoch" in row]


def start_sweep(env: dict[str, str], server: WandbServer, file: Path) -> str:
    """Create a sweep with W&B's command; return its path."""
    said = cli(env, "sweep", file)
    path = f"{ENTITY}/{yaml.safe_load(file.read_text())['project']}/{list(server.sweeps)[-1]}"
    assert f"wandb agent {path}" in said.stderr + said.stdout
    return path


def fetch(env: dict[str, str], source: str | Path, sweep: Path, out: Path) -> pd.DataFrame:
    """Fetch a study; return its histories, a row an epoch, with the cell in front."""
    done = call("-m", "analysis.fetch", source, "--sweep", sweep, "--out", out, env=env)
    assert done.returncode == 0, done.stderr
    runs, history = tables.read_tables(out)
    names = [n for n in yaml.safe_load(sweep.read_text())["parameters"] if n in runs]
    runs = runs[["run_id", *names, *(c for c in runs if c.startswith("test/"))]]
    whole = runs.merge(history.drop(columns=CLOCKED), on="run_id").drop(columns="run_id")
    return whole.sort_values([*names, "epoch"], ignore_index=True)


@pytest.mark.parametrize("study", ["demo_gtsrb", "demo_unet"])
def test_a_sweep_with_two_agents_gives_the_local_agents_numbers(
    study: str,
    server: WandbServer,
    online: dict[str, str],
    offline: dict[str, str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    data = request.getfixturevalue({"demo_gtsrb": "signs", "demo_unet": "chests"}[study])
    small = {"seed": [0, 1], "epochs": 2}
    sweep = write_sweep(tmp_path, study, data, **small)
    path = start_sweep(online, server, sweep)
    with agents(online, path, count=2) as both:
        ended(both)
    cells = local_agent.cells(local_agent.read_sweep(sweep))
    ran = [
        {key: item["value"] for key, item in run.config.items() if key in cells[0]}
        for run in server.runs.values()
    ]
    assert len(ran) == len(cells)
    assert all(ran.count(cell) == 1 for cell in cells)
    assert {run.state for run in server.runs.values()} == {"finished"}
    seen = [run.attributes for run in server.runs.values()]
    assert {one["jobType"] for one in seen} == {study}
    assert len({one["group"] for one in seen}) == 4, "a group per variant"
    first = {"demo_gtsrb": "no-bn-adam-seed0", "demo_unet": "relu-transposed-seed0"}[study]
    assert first in {one["displayName"] for one in seen}

    out = tmp_path / "server" / study
    from_server = fetch(online, path, sweep, out)
    done = call("-m", "analysis.report", out, "--sweep", sweep, env=offline)
    assert done.returncode == 0, done.stderr
    assert f'href="{server.url}/{ENTITY}' in (out / "report.html").read_text()

    folder = tmp_path / "local"
    words = ("-m", "lib.agent", sweep, "--workers", str(cores()), "--out", folder)
    assert call(*words, env=offline).returncode == 0
    pd.testing.assert_frame_equal(from_server, fetch(offline, folder, sweep, tmp_path / "again"))

    on_server = set(server.runs)
    cli(online, "sync", *sorted(folder.glob("wandb/offline-run-*")))
    arrived = [run for name, run in server.runs.items() if name not in on_server]
    assert len(arrived) == len(cells)
    assert {run.sweep for run in arrived} == {
        local_agent.environment(local_agent.read_sweep(sweep), cells[0], study, folder, 0, 2)[
            "WANDB_SWEEP_ID"
        ]
    }
    assert {run.state for run in arrived} == {"finished"}
    names = {run.attributes["displayName"] for run in arrived}
    assert names == {one["displayName"] for one in seen}
    assert all(run.config["seed"]["value"] in (0, 1) and len(run.history) == 2 for run in arrived)


@pytest.fixture
def one_sweep(
    server: WandbServer, online: dict[str, str], signs: Path, tmp_path: Path
) -> Callable[..., tuple[str, Path]]:
    """Give a function that starts a sweep of one variant, epochs short and many."""

    def start(**parameters: Any) -> tuple[str, Path]:
        one = {"batch_norm": True, "optimizer": "sgd", "checkpoint_every": 1, "seed": [0]}
        sweep = write_sweep(tmp_path, "demo_gtsrb", signs, **one | {"epochs": 40} | parameters)
        return start_sweep(online, server, sweep), sweep

    return start


def undisturbed(env: dict[str, str], sweep: Path, tmp_path: Path) -> pd.DataFrame:
    """Return what the local agent gives for the sweep, with one thread a run as here."""
    words = ("-m", "lib.agent", sweep, "--workers", str(cores()), "--out", tmp_path / "undisturbed")
    assert call(*words, env=env).returncode == 0
    return fetch(env, tmp_path / "undisturbed", sweep, tmp_path / "undisturbed_tables")


def children(process: subprocess.Popen) -> list[int]:
    """Return the ids of the Python processes that an agent started: its runs."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
            if int(parent) == process.pid and b"train_" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def test_a_preempted_run_is_handed_out_again_and_continues(
    server: WandbServer,
    online: dict[str, str],
    offline: dict[str, str],
    one_sweep: Callable,
    tmp_path: Path,
) -> None:
    path, sweep = one_sweep()
    with agents(online, path) as (agent,):
        wait_until(lambda: trains(agent.log))
        (run,) = children(agent)
        os.kill(run, signal.SIGTERM)
        said = ended([agent])
    assert "continuing from" in said
    (only,) = server.runs.values()
    assert only.state == "finished"
    assert only.summary["resumed_from_epoch"] > 3
    assert epochs(server) == list(range(1, 41)), "no epoch twice, none lost"
    found = fetch(online, path, sweep, tmp_path / "tables")
    pd.testing.assert_frame_equal(found, undisturbed(offline, sweep, tmp_path))


def test_a_run_without_its_checkpoint_starts_anew_and_says_so(
    server: WandbServer,
    online: dict[str, str],
    offline: dict[str, str],
    one_sweep: Callable,
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
    assert "starts anew: the server has" in said
    found = fetch(online, path, sweep, tmp_path / "tables")
    assert found["epoch"].tolist() == list(range(1, 41))
    pd.testing.assert_frame_equal(found, undisturbed(offline, sweep, tmp_path))


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
    lacking = yaml.safe_load((out / "fill_in.yaml").read_text())
    assert lacking["parameters"]["seed"] in ({"value": 1}, {"values": [1]})


def test_a_server_that_is_gone_for_a_while(
    server: WandbServer,
    online: dict[str, str],
    offline: dict[str, str],
    one_sweep: Callable,
    tmp_path: Path,
) -> None:
    path, sweep = one_sweep()
    with agents(online, path) as (agent,):
        wait_until(lambda: trains(agent.log))
        server.faults.down = True
        time.sleep(8)
        server.faults.down = False
        ended([agent])
    assert epochs(server) == list(range(1, 41))
    found = fetch(online, path, sweep, tmp_path / "tables")
    pd.testing.assert_frame_equal(found, undisturbed(offline, sweep, tmp_path))


def test_a_server_that_fails_a_third_of_the_time(
    server: WandbServer, online: dict[str, str], one_sweep: Callable
) -> None:
    path, _ = one_sweep(epochs=10)
    server.faults.errors = 1 / 3
    with agents(online, path) as agent:
        ended(agent)
    assert epochs(server) == list(range(1, 11))
    assert next(iter(server.runs.values())).state == "finished"


def test_a_sweep_is_paused_resumed_and_cancelled(
    server: WandbServer, online: dict[str, str], one_sweep: Callable
) -> None:
    path, _ = one_sweep(seed=[0, 1, 2, 3], epochs=30)
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
    assert (first.state, len(first.history)) == ("finished", 30)
    assert second.state == "preempted"
    printed = re.findall(r"epoch (\d+)/", agent.log.read_text())
    assert epochs(server, run=1) == list(range(1, int(printed[-1]) + 1)), "nothing logged is lost"


def test_a_full_disk_at_checkpoint_time_loses_no_epoch(
    server: WandbServer, online: dict[str, str], signs: Path, tmp_path: Path
) -> None:
    """No file may grow beyond 300 kB for a while, which W&B's own files do not reach."""
    words = [sys.executable, "train_gtsrb.py", "--data", str(signs), "--epochs", "4"]
    words += ["--checkpoint-every", "2", "--batch-norm", "True"]
    env = online | {"WANDB_RUN_ID": "full", "WANDB_PROJECT": "p"}

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    run = {"cwd": ROOT, "env": env, "capture_output": True, "text": True, "timeout": 120}
    full = subprocess.run(words, preexec_fn=limit, check=False, **run)
    assert full.returncode == 1
    assert "cannot write" in full.stderr
    assert "free some space" in full.stderr
    assert epochs(server) == [1, 2]
    assert server.runs["full"].state == "failed"
    again = subprocess.run(words, check=False, **run)
    assert again.returncode == 0, again.stderr
    assert server.runs["full"].state == "finished"
    assert sorted(set(epochs(server))) == [1, 2, 3, 4]


def test_a_clock_that_is_set_back(
    online: dict[str, str], offline: dict[str, str], one_sweep: Callable, tmp_path: Path
) -> None:
    """By an hour, after a second: order and durations come from elsewhere."""
    (tmp_path / "sitecustomize.py").write_text(
        "import time\nreal, start = time.time, time.monotonic()\n"
        "time.time = lambda: real() - 3600 * (time.monotonic() > start + 1)\n"
    )
    path, sweep = one_sweep(epochs=10)
    with agents(online | {"PYTHONPATH": str(tmp_path)}, path) as agent:
        ended(agent)
    found = fetch(online, path, sweep, tmp_path / "tables")
    pd.testing.assert_frame_equal(found, undisturbed(offline, sweep, tmp_path))
    assert (tables.read_tables(tmp_path / "tables")[1]["seconds"] > 0).all()


def test_media_are_shown_and_do_not_disturb(
    server: WandbServer, online: dict[str, str], signs: Path, chests: Path, tmp_path: Path
) -> None:
    """Pictures arrive, a few hundred kilobytes at most; the study's tables keep to numbers."""
    small = {"epochs": 1, "media": True, "seed": [0]}
    for study, data in (("demo_gtsrb", signs), ("demo_unet", chests)):
        one = {"demo_gtsrb": {"batch_norm": True, "optimizer": "sgd"}}
        one["demo_unet"] = {"upsampling": "nearest", "activation": "elu"}
        sweep = write_sweep(tmp_path, study, data, **small | one[study])
        path = start_sweep(online, server, sweep)
        with agents(online, path) as agent:
            ended(agent)
        run = list(server.runs.values())[-1]
        assert run.state == "finished"
        media = {name: len(body) for name, body in run.files.items() if name.startswith("media/")}
        seen = {name.split("/")[3].rsplit("_", 2)[0] for name in media if "mask" not in name}
        signs_show = {"confusions", "class_errors", "confident_mistakes"}
        assert seen == (signs_show if study == "demo_gtsrb" else {"worst_lung_fields"})
        assert any("mask" in name for name in media) == (study == "demo_unet")
        assert sum(media.values()) < 500_000
        found = fetch(online, path, sweep, tmp_path / f"{study}_tables")
        assert found["epoch"].tolist() == [1]
        runs = tables.read_tables(tmp_path / f"{study}_tables")[0]
        assert not [name for name in runs if name.startswith("media/")]


def test_under_slurm_sigterm_reaches_the_run(
    server: WandbServer, online: dict[str, str], one_sweep: Callable, tmp_path: Path
) -> None:
    """The array script as a plain shell script: SLURM signals the batch shell alone."""
    if not (ROOT / ".venv" / "bin" / "activate").exists():
        pytest.skip("the script activates .venv, which `make test` makes")
    path, _ = one_sweep()
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
