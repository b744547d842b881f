"""Disturb runs at random, for a time that is set, and see that each ends as one left alone.

    python -m tests.soak [--seconds 600] [--seed 0]

Sweeps of the stub and of both scripts are run by the local agent. While they run, runs and agent
are killed; between two calls, checkpoints and W&B's files are cut, flipped, emptied or removed. A
fifth of them get a disk that is too small until the later calls (where a disk may be mounted). The
agent is called until it says that all has finished. Other sweeps run under W&B's own agent against
a stand-in for its server, which drops and refuses requests, while runs are preempted. Then the
tables must be those of an undisturbed sweep, bit for bit but for the clock. At the end it prints
how many faults of each kind were injected, and how many sweeps survived; any that did not make it
exit with 1.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import yaml

from analysis.runs.tables import read_tables
from lib.data import synthetic_chests, synthetic_signs
from tests.bench.measuring import ROOT
from tests.fakes import wandb_cli
from tests.fakes.wandb_cli import CLOCKED, write_stub_sweep, write_sweep
from tests.fakes.wandb_server import WandbServer

CALLS = 12  # of the agent, before a sweep counts as lost
NO_NUMBERS = ("seconds", "images_per_second", "runtime_seconds", "resumed_from_epoch", "git_commit")


def agent(sweep: Path, out: Path, env: dict[str, str]) -> subprocess.Popen:
    """Start the local agent in a session of its own."""
    words = [sys.executable, "-m", "lib.agent", sweep, "--workers", "2", "--out", out]
    return subprocess.Popen(
        list(map(str, words)),
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def runs_of(process: subprocess.Popen) -> list[int]:
    """Return the ids of an agent's runs."""
    words = ["pgrep", "-P", str(process.pid)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]


def kill_something(process: subprocess.Popen, rng: random.Random, done: Counter) -> None:
    """Kill a run, or the agent with all of its runs, or ask it to stop."""
    runs, kind = runs_of(process), rng.choice(["kill a run", "kill all", "stop", "hang up a run"])
    try:
        if kind == "stop":
            process.terminate()
        elif kind == "kill all":
            for run in runs:
                os.kill(run, signal.SIGKILL)
            process.kill()
        elif runs:
            sent = signal.SIGKILL if kind == "kill a run" else signal.SIGHUP
            os.kill(rng.choice(runs), sent)
        else:
            return
    except ProcessLookupError:
        return
    done[kind] += 1


def damage_something(out: Path, rng: random.Random, done: Counter) -> None:
    """Damage a file that a run left: a checkpoint, W&B's file, a marker."""
    patterns = ["*/checkpoint-*.pt", "wandb/offline-run-*/*.wandb", "*/finished.json"]
    found = sorted(out.glob(rng.choice(patterns)))
    if not found:
        return
    path = rng.choice(found)
    content, kind = bytearray(path.read_bytes()), rng.choice(["cut", "flip", "empty", "remove"])
    if kind == "flip" and (not content or path.suffix == ".json"):
        kind = "cut"  # a marker says nothing about itself: a test of its own
    if kind == "remove":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(content[: rng.randrange(len(content) + 1)])
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    done[f"{kind} {path.suffix}"] += 1


def tables(sweep: Path, out: Path, env: dict[str, str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fetch a sweep's runs; return their tables without what no two runs share."""
    to = out.with_name(f"{out.name}-tables")
    words = ["-m", "analysis.fetch", out, "--sweep", sweep, "--out", to]
    words = [sys.executable, *map(str, words)]
    subprocess.run(words, cwd=ROOT, env=env, check=True, capture_output=True)
    runs, history = read_tables(to)
    drop = ["source", "created", *(f"summary.{name}" for name in NO_NUMBERS)]
    history = history.drop(columns=[name for name in CLOCKED if name in history])
    return runs.drop(columns=[name for name in drop if name in runs]), history


def mount(folder: Path, kib: int) -> bool:
    """Make ``folder`` a disk of so many KiB, or change its size; say whether that worked."""
    folder.mkdir(exist_ok=True)
    options = f"{'remount,' if os.path.ismount(folder) else ''}size={kib}k"
    if not shutil.which("mount"):
        return False
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return not subprocess.run(words, capture_output=True, check=False).returncode


def fetch(env: dict[str, str], sources: list[str], sweep: Path, to: Path) -> None:
    """Fetch the runs of one or two sweeps; a source without runs yet is no error here."""
    words = ["-m", "analysis.fetch", *sources, "--sweep", sweep, "--out", to]
    words = [sys.executable, *map(str, words)]
    subprocess.run(words, cwd=ROOT, env=env, check=False, capture_output=True)


def finished_seeds(runs: pd.DataFrame | None) -> set[int]:
    """Return the seeds of which there is a finished run."""
    if runs is None:
        return set()
    return set(runs.loc[runs["state"] == "finished", "config.seed"].astype(int))


def histories_of_finished(folder: Path, sweep: Path) -> pd.DataFrame:
    """Return the finished runs' histories, as wandb_cli.fetch gives them of a whole study."""
    runs, history = read_tables(folder)
    runs = runs[runs["state"] == "finished"]
    names = [f"config.{name}" for name in yaml.safe_load(sweep.read_text())["parameters"]]
    names = [name for name in names if name in runs]
    runs = runs[["run_id", *names, *(c for c in runs if c.startswith("summary.test/"))]]
    whole = runs.merge(history.drop(columns=CLOCKED), on="run_id").drop(columns="run_id")
    return whole.sort_values([*names, "epoch"], ignore_index=True)


def on_a_server(
    folder: Path, sweep: Path, env: dict[str, str], rng: random.Random, done: Counter
) -> pd.DataFrame:
    """Run a sweep under W&B's agent with a server that fails; return the histories of its runs."""
    folder.mkdir()
    with WandbServer() as server:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {k: v for k, v in env.items() if k != "WANDB_SILENT"} | server.environment()
        env |= {"PATH": path, "WANDB_DIR": str(folder / "runs")}
        env |= {"HOME": str(folder), "WANDB_ERROR_REPORTING": "false"}
        where = wandb_cli.start_sweep(env, server, sweep)
        for _ in range(CALLS):
            server.faults.drops, server.faults.errors = rng.uniform(0, 0.2), rng.uniform(0, 0.2)
            with wandb_cli.agents(env, where) as (process,):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(rng.uniform(5, 12))
                for run in wandb_cli.children(process):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(run, signal.SIGTERM)
                        done["preempt a run on a server"] += 1
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(60)
            states = [run.state for run in server.runs.values()]
            if states == ["finished"] * 2:
                break
        server.faults.drops = server.faults.errors = 0
        sources, tables_of = [where], folder / "tables"
        fetch(env, sources, sweep, tables_of)
        runs = read_tables(tables_of)[0] if (tables_of / "runs.csv").exists() else None
        left = {0, 1} - finished_seeds(runs)
        if (
            left
        ):  # a run that cannot reach the server when it starts fails: a fill-in sweep makes it
            done["run made by a fill-in sweep"] += len(left)
            (folder / "again").mkdir()
            again = yaml.safe_load(sweep.read_text())
            again["parameters"]["seed"] = {"values": sorted(left)}
            file = folder / "again" / sweep.name
            file.write_text(yaml.safe_dump(again, sort_keys=False))
            sources.append(wandb_cli.start_sweep(env, server, file))
            with wandb_cli.agents(env, sources[-1]) as (process,):
                process.wait(120)
            fetch(env, sources, sweep, tables_of)
        found = histories_of_finished(tables_of, sweep)
        for kind in ("dropped", "errors"):
            done[f"request {kind}"] += server.faults.happened[kind]
    return found


def disturb(
    sweep: Path, out: Path, env: dict[str, str], rng: random.Random, done: Counter
) -> int | None:
    """Run a sweep with faults until it has finished; return the calls it took, None if it never."""
    small = rng.random() < 0.2 and mount(out, rng.randrange(100, 2000))
    for call in range(1, CALLS + 1):
        if small and call == CALLS // 2:
            mount(out, 500_000)
        process = agent(sweep, out, env)
        if call <= CALLS // 2:
            try:
                process.wait(rng.uniform(0.5, 9))
            except subprocess.TimeoutExpired:
                kill_something(process, rng, done)
        text, _ = process.communicate()
        if small and shutil.disk_usage(out).free < 8192:
            done["a full disk"] += 1
        if process.returncode == 0:
            return call
        if "Traceback" in text and "Ctrl-C" not in text:
            print(text)
        if call <= CALLS // 2:
            damage_something(out, rng, done)
    print(text)
    return None


def main() -> int:
    """Disturb until the time is up; print a table; return how many sweeps were lost."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, faults, outcome = random.Random(arguments.seed), Counter(), Counter()
    deadline = time.monotonic() + arguments.seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
        env |= {"WANDB_SILENT": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        synthetic_signs.draw_dataset(folder / "signs", 3, 2, 86, 0)
        synthetic_chests.draw_dataset(folder / "chests", 12, 0)
        small = {"seed": [0, 1], "checkpoint_every": 1}
        sweeps = {
            "stub": write_stub_sweep(folder, epochs=30, seconds=0.1, **small),
            "signs": write_sweep(
                folder, "demo_gtsrb", folder / "signs", batch_norm=True, optimizer="sgd",
                epochs=6, **small,
            ),
            "lungs": write_sweep(
                folder, "demo_unet", folder / "chests", upsampling="nearest", activation="elu",
                epochs=6, **small,
            ),
        }  # fmt: skip
        for kind in ("signs", "lungs"):  # of fewer levels than the studies of these names declare
            sweeps[kind] = sweeps[kind].rename(folder / f"soak_{kind}.yaml")
        alone = {}
        for kind, sweep in sweeps.items():
            process = agent(sweep, folder / f"{kind}-alone", env)
            text, _ = process.communicate()
            if process.returncode:
                raise SystemExit(text)
            alone[kind] = tables(sweep, folder / f"{kind}-alone", env)
        (folder / "home").mkdir()
        unserved = env | {"HOME": str(folder / "home"), "WANDB_MODE": "offline"}
        served = wandb_cli.undisturbed(unserved, sweeps["stub"], folder)
        number = 0
        while time.monotonic() < deadline:
            number += 1
            kind = rng.choice([*sweeps, "stub on a server"])
            out = folder / f"{kind.replace(' ', '-')}-{number}"
            if kind not in sweeps:
                found = on_a_server(out, sweeps["stub"], env, rng, faults)
                same = found.equals(served)
                outcome[f"{kind}: {'as undisturbed' if same else 'LOST'}"] += 1
                print(f"{kind} {number}: {'same' if same else 'LOST'}", flush=True)
                continue
            calls = disturb(sweeps[kind], out, env, rng, faults)
            same = calls is not None and all(
                one.equals(other)
                for one, other in zip(tables(sweeps[kind], out, env), alone[kind], strict=True)
            )
            outcome[f"{kind}: {'as undisturbed' if same else 'LOST'}"] += 1
            print(f"{kind} {number}: {calls} calls, {'same' if same else 'LOST'}", flush=True)
            if os.path.ismount(out):
                subprocess.run(["umount", str(out)], check=True)
    print(f"\nseed {arguments.seed}, {arguments.seconds:g} s\n\n| fault | injected |\n|---|---|")
    print("\n".join(f"| {kind} | {count} |" for kind, count in sorted(faults.items())))
    print(f"| all | {sum(faults.values())} |\n\n| sweeps of two runs | number |\n|---|---|")
    print("\n".join(f"| {kind} | {count} |" for kind, count in sorted(outcome.items())))
    return sum(count for kind, count in outcome.items() if "LOST" in kind)


if __name__ == "__main__":
    raise SystemExit(1 if main() else 0)
