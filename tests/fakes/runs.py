"""What tests of the training scripts share: a stand-in for W&B's run, and runs as fetched."""

import subprocess
import time
from pathlib import Path
from typing import Any

from analysis.runs import wandb_offline
from analysis.runs.record import Fetched
from tests.conftest import ROOT, command

CLOCK = {"seconds", "images_per_second"}


class Recorder:
    """Replace W&B's run: keep what is logged."""

    def __init__(self) -> None:
        self.rows: list[dict] = []
        self.summary: dict[str, Any] = {}

    def log(self, row: dict) -> None:
        """Keep a history row."""
        self.rows.append(dict(row))

    def save(self, *_: object, **__: object) -> None:
        """Keep nothing."""


def fetched(env: dict[str, str], run_id: str) -> Fetched:
    """Read one offline run below the environment's WANDB_DIR."""
    folder = Path(env["WANDB_DIR"])
    _, runs = wandb_offline.fetch_folder(folder, {}, folder.with_name("files"))
    return next(run for run in runs if run.run_id == run_id)


def without_clock(row: dict) -> dict:
    """Leave out what differs from one execution to the next."""
    return {key: value for key, value in row.items() if key not in CLOCK | {"run_id", "created"}}


def start(
    script: str, env: dict[str, str], run_id: str, log: Path, *flags: str
) -> subprocess.Popen:
    """Start a script as a process of its own whose output goes to ``log``."""
    with open(log, "w") as file:
        return subprocess.Popen(
            command(script, *flags),
            cwd=ROOT,
            env=env | {"WANDB_RUN_ID": run_id},
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def wait_for(log: Path, text: str, process: subprocess.Popen) -> None:
    """Wait until ``text`` is in ``log``: while the process lives, for two minutes at most."""
    deadline = time.monotonic() + 120
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"{text!r} did not come: {log.read_text()}"
        time.sleep(0.02)
