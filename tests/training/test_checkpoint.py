"""Checkpoints: what is saved comes back; damage, another run and a full disk are told."""

import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from lib.spec.errors import UserError
from lib.training import checkpoint

IDENTITY = {"seed": 1, "data_sha256": "d"}


def parts(seed: int) -> list:
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return [model, optimizer, torch.Generator().manual_seed(seed)]


def test_state_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    saved = parts(1)
    for epoch in (1, 2, 10):
        checkpoint.save(tmp_path, epoch, IDENTITY, {"history": [epoch]}, saved)
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        "checkpoint-000002.pt",
        "checkpoint-000010.pt",
    ]
    fresh = parts(2)
    assert checkpoint.resume(tmp_path, IDENTITY, fresh) == {"history": [10]}
    torch.testing.assert_close(fresh[0].weight, saved[0].weight, atol=0, rtol=0)
    buffers = [part.state_dict()["state"][0]["momentum_buffer"] for part in (fresh[1], saved[1])]
    torch.testing.assert_close(*buffers, atol=0, rtol=0)
    assert torch.equal(torch.rand(3, generator=fresh[2]), torch.rand(3, generator=saved[2]))


def test_nothing_to_continue(tmp_path: Path) -> None:
    assert checkpoint.resume(tmp_path / "absent", IDENTITY, parts(1)) is None


@pytest.mark.parametrize("content", [b"", b"half a file", None])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture
) -> None:
    for epoch in (1, 2):
        checkpoint.save(tmp_path, epoch, IDENTITY, {"history": [epoch]}, parts(1))
    path = tmp_path / "checkpoint-000002.pt"
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    assert checkpoint.resume(tmp_path, IDENTITY, parts(2)) == {"history": [1]}
    assert "checkpoint-000002.pt is unreadable" in capsys.readouterr().out


def test_another_runs_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, IDENTITY, {}, parts(1))
    with pytest.raises(UserError, match="different: seed"):
        checkpoint.resume(tmp_path, IDENTITY | {"seed": 2}, parts(1))


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk to fill takes the right to mount one")
    try:
        checkpoint.save(disk, 1, IDENTITY, {"history": [1]}, parts(1))
        with pytest.raises(UserError, match=r"(?s)cannot write .*checkpoint-000002.pt"):
            checkpoint.save(disk, 2, IDENTITY, {"big": torch.zeros(1_000_000)}, parts(1))
        assert [p.name for p in disk.iterdir()] == ["checkpoint-000001.pt"]
        assert checkpoint.resume(disk, IDENTITY, parts(2)) == {"history": [1]}
    finally:
        subprocess.run(["umount", str(disk)], check=True)
