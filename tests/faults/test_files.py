"""Damaged, cut, full: files that a run or a study left, and what becomes of them."""

import errno
import json
import os
import random
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import torch

from analysis.runs import per_item
from analysis.runs.tables import TableError
from lib import agent
from lib.data.cache import cached
from lib.spec import files
from lib.spec.errors import UserError
from lib.spec.files import FINISHED
from lib.tracking import finished, offline_file, processes
from lib.training import checkpoint
from lib.training.seeding import sha256
from tests.conftest import call
from tests.fakes.wandb_cli import write_stub_sweep

STUB = "tests/fakes/stub.py"


def stub(env: dict[str, str], run_id: str, *flags: str) -> subprocess.CompletedProcess:
    return call(STUB, *flags, env=env | {"WANDB_RUN_ID": run_id})


# 1. Finished only with a whole history.


def test_a_cut_file_is_not_whole(offline: dict[str, str]) -> None:
    assert stub(offline, "one", "--epochs", "5").returncode == 0
    root = Path(offline["WANDB_DIR"])
    file = offline_file.file_of(root, "one")
    content, marker = file.read_bytes(), finished.read(root / "one")
    assert offline_file.is_whole(file, 5)
    assert not offline_file.is_whole(file, 6)
    assert marker["bytes"] == len(content)
    for cut in [*range(0, len(content), 97), len(content) - 1]:
        file.write_bytes(content[:cut])
        assert not offline_file.is_whole(file), cut
        assert not finished.is_kept(root / "one", finished.offline_files(root))
    place = len(content) // 2
    file.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
    assert not offline_file.is_whole(file)


def test_a_run_whose_file_was_cut_is_made_again(offline: dict[str, str], tmp_path: Path) -> None:
    sweep, out = write_stub_sweep(tmp_path, seed=[0], epochs=3), tmp_path / "out"
    words = ("-m", "lib.agent", sweep, "--out", out)
    assert "1 of 1 run finished" in call(*words, env=offline).stdout
    (run_id,) = finished.offline_files(out)
    file = offline_file.file_of(out, run_id)
    file.write_bytes(file.read_bytes()[:-200])
    done = call(*words, env=offline)
    assert "1 of 1 run finished" in done.stdout
    assert "resuming from" in (out / run_id / "log.txt").read_text()
    assert offline_file.is_whole(offline_file.file_of(out, run_id), 3)


@pytest.mark.parametrize(("quietly", "share"), [(False, 0), (False, 0.5), (True, 0.5)])
def test_a_flipped_bit_in_a_finished_file(
    quietly: bool, share: float, offline: dict[str, str], tmp_path: Path
) -> None:
    """The agent sees it where the file says that it was written; else fetching does."""
    sweep, out = write_stub_sweep(tmp_path, seed=[0], epochs=3), tmp_path / "out"
    words = ("-m", "lib.agent", sweep, "--out", out)
    assert call(*words, env=offline).returncode == 0
    (run_id,) = finished.offline_files(out)
    file = offline_file.file_of(out, run_id)
    content, about = bytearray(file.read_bytes()), file.stat()
    content[int(share * len(content)) or 5] ^= 4  # 5: in the file's head
    file.write_bytes(bytes(content))
    if quietly:
        os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
        fetch = ("-m", "analysis.fetch", out, "--sweep", sweep, "--out", tmp_path / "tables")
        said = call(*fetch, env=offline).stdout
        assert f"run {run_id} is marked as finished, but its file in" in said
        marker = out / run_id / FINISHED
        assert f"Delete {marker} and run the sweep's command again" in said
        marker.unlink()
    assert call(*words, env=offline).returncode == 0
    assert offline_file.is_whole(offline_file.file_of(out, run_id), 3)
    assert finished.is_kept(out / run_id, finished.offline_files(out))


def test_a_copied_study_is_still_finished(offline: dict[str, str], tmp_path: Path) -> None:
    """Its files are as they were, but written at another time."""
    assert stub(offline, "one").returncode == 0
    copy = shutil.copytree(offline["WANDB_DIR"], tmp_path / "copy", copy_function=shutil.copyfile)
    files = finished.offline_files(copy)
    marker, file = finished.read(copy / "one"), files["one"]
    assert marker["written_ns"] != file.stat().st_mtime_ns
    assert finished.is_kept(copy / "one", files)


def test_a_full_disk_is_no_good_end(offline: dict[str, str], tmp_path: Path) -> None:
    """W&B only logs that it cannot write; the run then ends with what to do, and continues."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk to fill takes the right to mount one")
    env = offline | {"WANDB_DIR": str(disk)}
    try:
        done = stub(env, "full", "--epochs", "400", "--checkpoint-every", "100")
        assert done.returncode == 1
        assert "cannot write" in done.stderr or "Is the disk full?" in done.stderr, done.stderr
        assert finished.read(disk / "full") is None
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        done = stub(env, "full", "--epochs", "400", "--checkpoint-every", "100")
        assert done.returncode == 0, done.stderr
        assert offline_file.is_whole(offline_file.file_of(disk, "full"), 400)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# 2, 3, 9. Damaged checkpoints and caches.


def save(folder: Path, *epochs: int) -> None:
    state = {"model": torch.nn.Linear(20, 20)}
    for epoch in epochs:
        checkpoint.save(folder, epoch, {"seed": 1}, {"history": [epoch]}, state)


def damage(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    place = len(content) // 2
    if kind == "flipped":
        content[place] ^= 1
    elif kind == "zeroed":
        content[place : place + 64] = bytes(64)
    elif kind == "cut":
        del content[place:]
    elif kind == "empty":
        content.clear()
    path.write_bytes(bytes(content))


def foreign(path: Path) -> None:
    """Write an archive with right checksums whose pickle is none."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("checkpoint/data.pkl", b"\x80\x02cos\nsystem\nq\x00.")
        archive.writestr("checkpoint/version", b"3\n")


@pytest.mark.parametrize("kind", ["flipped", "zeroed", "cut", "empty", "foreign"])
def test_two_damaged_checkpoints_neither_stop_nor_displace_new_ones(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture
) -> None:
    save(tmp_path, 7, 8)
    for path in checkpoint.paths(tmp_path):
        foreign(path) if kind == "foreign" else damage(path, kind)
    state = {"model": torch.nn.Linear(20, 20)}
    assert checkpoint.resume(tmp_path, {"seed": 1}, state) is None
    assert capsys.readouterr().out.count("cannot read") == 2
    assert len(list(tmp_path.glob("*.damaged"))) == 2  # kept, for whoever wants to look
    save(tmp_path, 1, 2, 3)
    assert [path.stem[-1] for path in checkpoint.paths(tmp_path)] == ["2", "3"]
    assert checkpoint.resume(tmp_path, {"seed": 1}, state) == {"history": [3]}


@pytest.mark.parametrize("kind", ["flipped", "zeroed", "cut", "empty", "foreign", "other pixels"])
def test_a_damaged_cache_is_built_again(tmp_path: Path, kind: str) -> None:
    built = []

    def build() -> dict[str, Any]:
        built.append(1)
        images = torch.arange(5000)
        return {"images": images, "sha256": sha256(images)}

    path = tmp_path / "cache" / "x.pt"
    whole = cached(path, "s", build, ["images"])
    cached(path, "s", build, ["images"])
    assert len(built) == 1
    if kind == "other pixels":  # under a right checksum
        torch.save(whole | {"images": torch.arange(5000) + 1, "source": "s"}, path)
    else:
        foreign(path) if kind == "foreign" else damage(path, kind)
    again = cached(path, "s", build, ["images"])
    assert len(built) == 2
    assert torch.equal(again["images"], whole["images"])
    assert torch.equal(cached(path, "s", build, ["images"])["images"], whole["images"])


# 11. Damaged outputs per item.


@pytest.mark.parametrize("kind", ["flipped", "zeroed", "cut", "empty", "text", "huge"])
def test_damaged_outputs_are_reported_and_read_again(tmp_path: Path, kind: str) -> None:
    path = tmp_path / per_item.FILES / "r" / per_item.SCORES
    path.parent.mkdir(parents=True)
    values = np.random.default_rng(0).random(5000)
    np.savez_compressed(path, items=[str(i) for i in range(5000)], score=values)
    assert per_item.to_fetch_again(tmp_path / per_item.FILES) == set()
    if kind == "huge":  # a few kilobytes that say they hold two gigabytes
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("score.npy", bytes(2**21))
        content = bytearray(path.read_bytes())
        place = content.index(b"PK\x01\x02") + 24
        content[place : place + 4] = (2**31 - 1).to_bytes(4, "little")
        path.write_bytes(content)
    elif kind == "text":
        path.write_text("no archive")
    else:
        damage(path, kind)
    with pytest.raises(TableError, match="is damaged"):
        per_item.outputs(path)
    if kind != "huge":
        assert per_item.to_fetch_again(tmp_path / per_item.FILES) == {"r"}
    path.unlink()  # somebody deleted it, so that it is fetched again
    assert per_item.to_fetch_again(tmp_path / per_item.FILES) == {"r"}


def test_random_damage_never_passes(tmp_path: Path) -> None:
    """A thousand flipped bytes of an archive: each is seen, or changes no value."""
    path = tmp_path / "s.npz"
    values = np.random.default_rng(0).random(200)
    np.savez_compressed(path, items=[str(i) for i in range(200)], score=values)
    content, rng, seen = path.read_bytes(), random.Random(0), 0
    for _ in range(300):
        place = rng.randrange(len(content))
        changed = bytearray(content)
        changed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            _, found, _ = per_item.outputs(path)
        except TableError:
            seen += 1
            continue
        np.testing.assert_array_equal(found.to_numpy(), values)
    assert seen > 200


# 16, 17, 20. Locks, leftovers, full disks.


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_file_systems_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def acquire(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock.UnixFileLock, "_acquire", acquire)
    with files.locked(tmp_path / "lock", "busy"):
        assert (tmp_path / "lock.soft").exists()
        with pytest.raises(filelock.Timeout):
            files.lock_of(tmp_path / "lock").acquire(timeout=0)
    assert not (tmp_path / "lock.soft").exists()
    held = agent.study_lock(tmp_path)
    with held, pytest.raises(UserError, match="another agent is running in"):
        agent.study_lock(tmp_path).__enter__()


def test_other_faults_of_locks_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acquire(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(filelock.UnixFileLock, "_acquire", acquire)
    with pytest.raises(UserError, match="cannot write to"), files.locked(tmp_path / "l", "busy"):
        pass


def test_leftovers_of_killed_writers_go(offline: dict[str, str]) -> None:
    folder = Path(offline["WANDB_DIR"]) / "run"
    folder.mkdir(parents=True)
    (folder / ".checkpoint-000003.pt.4711.tmp").write_bytes(b"half")
    (folder / ".mine.tmp").write_bytes(b"not ours")
    assert stub(offline, "run", "--epochs", "1").returncode == 0
    assert sorted(p.name for p in folder.glob(".*")) == [".mine.tmp"]


def test_several_files_are_written_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [tmp_path / name for name in ("a", "b", "c")]
    files.write_all(dict.fromkeys(names, b"old"))
    calls = []

    def fsync(_: int) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UserError, match=r"cannot write .*/c: .*No space left"):
        files.write_all(dict.fromkeys(names, b"new"))
    assert [path.read_bytes() for path in names] == [b"old"] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


# 7. Continued under another commit, version or number of threads.


def test_what_made_each_part_of_a_run_is_kept() -> None:
    from lib.training.loop import joined

    parts = [{"git_commit": "a", "threads": "1"}, {"git_commit": "b", "threads": "1"}]
    assert joined(parts) == {"git_commit": "a then b", "threads": "1"}
    assert joined([*parts, parts[0]])["git_commit"] == "a then b then a"


# 19, 25. Logs of any size, studies of any size.


def test_the_end_of_a_large_log_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "r" / "log.txt"
    log.parent.mkdir()
    with open(log, "wb") as file:
        file.truncate(300 * 2**20)  # sparse
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + b"x" * 5000 + b"\nthe last line\n")
    message = processes._failure(log, 1, "")
    assert message.endswith("the last line")
    assert len(message) < 8000


def test_many_finished_runs_are_looked_over_once(tmp_path: Path) -> None:
    for i in range(300):
        name = f"{i:08x}"
        place = tmp_path / "wandb" / f"offline-run-20260101_000000-{name}"
        place.mkdir(parents=True)
        (place / f"run-{name}.wandb").write_bytes(b"x" * 9)
        (tmp_path / name).mkdir()
        finished.write(tmp_path / name, {}, {}, place / f"run-{name}.wandb")
    found = finished.offline_files(tmp_path)
    assert len(found) == 300
    assert all(processes.is_finished(tmp_path / name, found) for name in found)
    shutil.rmtree(found["00000007"].parent)
    found = finished.offline_files(tmp_path)
    assert not processes.is_finished(tmp_path / "00000007", found)
    assert not (tmp_path / "00000007" / FINISHED).exists()


def test_markers_of_earlier_versions(offline: dict[str, str]) -> None:
    assert stub(offline, "old", "--epochs", "2").returncode == 0
    root = Path(offline["WANDB_DIR"])
    marker = root / "old" / FINISHED
    values = json.loads(marker.read_text())
    marker.write_text(json.dumps({k: values[k] for k in ("summary", "config")}))
    assert finished.is_kept(root / "old", finished.offline_files(root))
    file = offline_file.file_of(root, "old")
    file.write_bytes(file.read_bytes()[:-100])
    assert not finished.is_kept(root / "old", finished.offline_files(root))
