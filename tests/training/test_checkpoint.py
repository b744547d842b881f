"""Checkpoints: what is saved comes back; damage, another run, a full disk: a clear message."""

import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from lib.spec.errors import UserError
from lib.training import checkpoint

CONFIG_KEY = {"seed": 1, "data_sha256": "d"}


def parts(seed: int) -> dict:
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    generator = torch.Generator().manual_seed(seed)
    return {"model": model, "optimizer": optimizer, "order": generator}


def test_state_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    saved = parts(1)
    for epoch in (1, 2, 10):
        checkpoint.save(tmp_path, epoch, CONFIG_KEY, {"history": [epoch]}, saved)
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        "checkpoint-000002.pt",
        "checkpoint-000010.pt",
    ]
    fresh = parts(2)
    assert checkpoint.resume(tmp_path, CONFIG_KEY, fresh) == {"history": [10]}
    torch.testing.assert_close(fresh["model"].weight, saved["model"].weight, atol=0, rtol=0)
    optimizers = (part["optimizer"].state_dict() for part in (fresh, saved))
    buffers = [state["state"][0]["momentum_buffer"] for state in optimizers]
    torch.testing.assert_close(*buffers, atol=0, rtol=0)
    draws = [torch.rand(3, generator=part["order"]) for part in (fresh, saved)]
    assert torch.equal(*draws)


def test_nothing_to_continue(tmp_path: Path) -> None:
    assert checkpoint.resume(tmp_path / "absent", CONFIG_KEY, parts(1)) is None


@pytest.mark.parametrize("content", [b"", b"half a file", None])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture
) -> None:
    for epoch in (1, 2):
        checkpoint.save(tmp_path, epoch, CONFIG_KEY, {"history": [epoch]}, parts(1))
    path = tmp_path / "checkpoint-000002.pt"
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    assert checkpoint.resume(tmp_path, CONFIG_KEY, parts(2)) == {"history": [1]}
    assert "checkpoint-000002.pt: truncated" in capsys.readouterr().out


def test_a_flipped_bit_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for epoch in (1, 2):
        checkpoint.save(tmp_path, epoch, CONFIG_KEY, {"history": [epoch]}, parts(1))
    path = tmp_path / "checkpoint-000002.pt"
    content, weight = path.read_bytes(), parts(1)["model"].weight.detach().numpy().tobytes()
    place = content.index(weight) + 2
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert checkpoint.resume(tmp_path, CONFIG_KEY, parts(2)) == {"history": [1]}
    assert "checkpoint-000002.pt: the checksum of" in capsys.readouterr().out


def test_another_runs_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, CONFIG_KEY, {}, parts(1))
    with pytest.raises(UserError, match="written with different seed"):
        checkpoint.resume(tmp_path, CONFIG_KEY | {"seed": 2}, parts(1))


def test_a_checkpoint_of_another_program_is_refused(tmp_path: Path) -> None:
    torch.save({"config_key": CONFIG_KEY, "model": {}}, tmp_path / "checkpoint-000003.pt")
    for read in (lambda: checkpoint.resume(tmp_path, CONFIG_KEY, parts(1)), checkpoint.newest):
        with pytest.raises(UserError, match="not a checkpoint of this version"):
            read() if read is not checkpoint.newest else read(tmp_path)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk to fill takes the right to mount one")
    try:
        checkpoint.save(disk, 1, CONFIG_KEY, {"history": [1]}, parts(1))
        with pytest.raises(UserError, match=r"(?s)cannot write .*checkpoint-000002.pt"):
            checkpoint.save(disk, 2, CONFIG_KEY, {"big": torch.zeros(1_000_000)}, parts(1))
        assert [p.name for p in disk.iterdir()] == ["checkpoint-000001.pt"]
        assert checkpoint.resume(disk, CONFIG_KEY, parts(2)) == {"history": [1]}
    finally:
        subprocess.run(["umount", str(disk)], check=True)
