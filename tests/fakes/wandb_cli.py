"""W&B's command line in tests: sweeps, agents that are quick to ask, and what came of them."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis.runs import tables
from lib.spec.machine import cores
from tests.conftest import ROOT, call
from tests.fakes.wandb_server import WandbServer
from tests.fakes.wandb_state import ENTITY

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


def write_stub_sweep(path: Path, **parameters: Any) -> Path:
    """Write a sweep of the stub script with these ``parameters``: a list is an axis."""
    axes = {n: {"values" if isinstance(v, list) else "value": v} for n, v in parameters.items()}
    sweep = {"program": "tests/fakes/stub.py", "method": "grid", "project": "p", "name": "stub"}
    sweep |= {"command": ["${env}", "${interpreter}", "${program}"], "parameters": axes}
    sweep["metric"] = {"name": "val/error", "goal": "minimize"}
    (path / "stub.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    return path / "stub.yaml"


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
    names = [f"config.{n}" for n in yaml.safe_load(sweep.read_text())["parameters"]]
    names = [name for name in names if name in runs]
    runs = runs[["run_id", *names, *(c for c in runs if c.startswith("summary.test/"))]]
    whole = runs.merge(history.drop(columns=CLOCKED), on="run_id").drop(columns="run_id")
    return whole.sort_values([*names, "epoch"], ignore_index=True)


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
            cmdline = (folder / "cmdline").read_bytes()
            if int(parent) == process.pid and (b"train_" in cmdline or b"stub.py" in cmdline):
                found.append(int(folder.name))
    return found
