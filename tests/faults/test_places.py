"""Where a run's files are: folders that are named by times or ids, and a shared cache."""

import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import torch

from lib.data.cache import cached
from lib.spec.files import FINISHED
from lib.tracking import finished, offline_file, processes
from lib.training.seeding import sha256
from tests.conftest import call

STUB = "tests/fakes/stub.py"


def stub(env: dict[str, str], run_id: str) -> subprocess.CompletedProcess:
    return call(STUB, env=env | {"WANDB_RUN_ID": run_id})


def test_the_times_in_folder_names_may_decrease(offline: dict[str, str], tmp_path: Path) -> None:
    """They are local: a run that moves to another time zone resumes in an earlier one."""
    root = Path(offline["WANDB_DIR"])
    broken = root / "wandb" / "offline-run-20990101_000000-one" / "run-one.wandb"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(offline_file.MAGIC)
    os.utime(broken, (1, 1))
    assert stub(offline, "one").returncode == 0
    own = offline_file.file_of(root, "one")
    assert own != broken
    assert finished.read(root / "one")["file"] == f"{own.parent.name}/{own.name}"
    assert processes.mark_done(root / "one", {}) == ""
    os.utime(broken, (2e9, 2e9))
    assert processes.mark_done(root / "one", {}) == "", "the script's own marker names its file"
    (root / "one" / FINISHED).unlink()
    os.utime(own, (3e9, 3e9))
    assert processes.mark_done(root / "one", {}) == "", "of another script: the last one written"


def test_a_run_id_that_cannot_be_a_folders_name(offline: dict[str, str], tmp_path: Path) -> None:
    done = stub(offline, "../../up")
    assert done.returncode == 1
    assert "WANDB_RUN_ID must be 1 to 128 letters, digits, - or _" in done.stderr
    assert stub(offline, "").returncode == 0, "as if it were not set"
    assert not (tmp_path.parent / "up").exists()


def test_a_cache_leaves_the_file_that_another_process_writes(tmp_path: Path) -> None:
    """Two sizes of the images in one folder: the second waits, since it removes leftovers."""
    writing = tmp_path / ".a.pt.123.tmp"
    made = []

    def build() -> dict[str, Any]:
        writing.touch()
        other.start()
        other.join(0.5)
        assert writing.exists()
        assert not made
        return {"x": torch.zeros(1), "sha256": sha256(torch.zeros(1))}

    def build_other() -> dict[str, Any]:
        made.append(True)
        return {"x": torch.zeros(1), "sha256": sha256(torch.zeros(1))}

    arguments = (tmp_path / "b.pt", "s", build_other, ["x"])
    other = threading.Thread(target=cached, args=arguments)
    cached(tmp_path / "a.pt", "s", build, ["x"])
    other.join(30)
    assert made == [True]
    assert not writing.exists()
