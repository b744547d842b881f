"""Unreadable sources: the others are read, and the message says what is wrong."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from analysis.runs import per_item
from analysis.runs.collect import collect
from analysis.runs.record import FetchError
from analysis.runs.sources import Request, resolve
from analysis.runs.tables import read_tables
from tests import factories
from tests.conftest import call, offline_environment
from tests.fakes.wandb_server import WandbServer
from tests.fakes.wandb_state import ENTITY, Run, Sweep

GARBAGE = b"no W&B file at all" * 40


@pytest.fixture(scope="module")
def three_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make three offline runs of the stub."""
    env = offline_environment(tmp_path_factory.mktemp("three"))
    for seed in range(3):
        words = ("tests/fakes/stub.py", "--seed", str(seed), "--epochs", "2")
        assert call(*words, env=env | {"WANDB_RUN_ID": f"r{seed}"}).returncode == 0
    return Path(env["WANDB_DIR"])


@pytest.fixture
def runs(three_runs: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Give a folder with three offline runs of the stub, to be damaged, and their sweep."""
    folder = shutil.copytree(three_runs, tmp_path / "runs", symlinks=True)
    return folder, factories.grid(tmp_path / "s.yaml", {}, 3)


def fetched(folder: Path, sweep: Path, out: Path) -> str:
    study, sources, place = resolve(Request([str(folder)], sweep=sweep, out=out))
    return collect(sources, place, study)


def file_of(folder: Path, run: str) -> Path:
    return next(folder.glob(f"wandb/offline-run-*-{run}/*.wandb"))


@pytest.mark.parametrize("content", [GARBAGE, b"", b":W&B"])
def test_one_unreadable_run_does_not_keep_the_others_from_it(
    runs: tuple[Path, Path], tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture
) -> None:
    folder, sweep = runs
    file_of(folder, "r0").write_bytes(content)  # the first one
    message = ""
    try:
        fetched(folder, sweep, tmp_path / "out")
    except FetchError as error:
        message = str(error)
    found, _ = read_tables(tmp_path / "out")
    assert found["run_id"].tolist() == ["r1", "r2"]
    message += capsys.readouterr().out
    assert "r0" in message
    assert "cannot read" in message or "skipping" in message


def test_nothing_but_garbage(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """The good message, and the earlier tables as they were."""
    folder, sweep = runs
    fetched(folder, sweep, tmp_path / "out")
    before = (tmp_path / "out" / "runs.csv").read_bytes()
    for run in ("r0", "r1", "r2"):
        file_of(folder, run).write_bytes(GARBAGE)
    with pytest.raises(FetchError, match="cannot read") as error:
        fetched(folder, sweep, tmp_path / "new")
    assert "Delete the folder of each of these files" in str(error.value)
    assert not (tmp_path / "new" / "runs.csv").exists()
    fetched(folder, sweep, tmp_path / "out")  # they are known already
    assert (tmp_path / "out" / "runs.csv").read_bytes() == before


def test_a_filter_that_fits_no_run(runs: tuple[Path, Path], tmp_path: Path) -> None:
    folder, sweep = runs
    asked = Request([str(folder)], sweep=sweep, out=tmp_path / "out")
    study, sources, out = resolve(asked)
    with pytest.raises(FetchError, match=r"no runs in .* with the filter \{\"config.seed\": 9\}"):
        collect(sources, out, study, filters={"config.seed": 9})


@pytest.mark.slow
def test_a_damaged_output_is_brought_back(
    offline: dict[str, str], signs: Path, tmp_path: Path
) -> None:
    flags = ("--data", signs, "--epochs", "1", "--val-fraction", "0.34")
    env = offline | {"WANDB_RUN_ID": "real"}
    assert call("train_gtsrb.py", *flags, env=env).returncode == 0
    sweep, out = factories.grid(tmp_path / "s.yaml", {}, 1), tmp_path / "out"
    fetched(Path(offline["WANDB_DIR"]), sweep, out)
    path = out / per_item.FILES / "real" / per_item.SCORES
    whole, table = path.read_bytes(), (out / per_item.NAME).read_bytes()
    path.write_bytes(whole[:3000])
    fetched(Path(offline["WANDB_DIR"]), sweep, out)
    assert path.read_bytes() == whole
    path.unlink()
    fetched(Path(offline["WANDB_DIR"]), sweep, out)
    assert (path.read_bytes(), (out / per_item.NAME).read_bytes()) == (whole, table)


@pytest.fixture
def sweep_on_server(
    server: WandbServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[], tuple[str, Path]]:
    """Give a sweep of four runs on the stand-in, one of which saved a file."""
    for key, value in (server.environment() | {"HOME": str(tmp_path)}).items():
        monkeypatch.setenv(key, value)
    sweep = factories.grid(tmp_path / "s.yaml", {}, 4)
    server.sweeps["s0"] = Sweep("s0", "p", sweep.read_text(), [])
    for seed in range(4):
        server.runs[f"r{seed}"] = Run(
            f"r{seed}",
            "p",
            {"displayName": f"r{seed}"},
            sweep="s0",
            config={"seed": {"value": seed}},
            summary={"test/error": 0.1 * seed},
            history={0: json.dumps({"epoch": 1, "val/error": 0.5, "_step": 0})},
            files={per_item.SCORES: b"x"} if seed == 2 else {},
            state="finished",
        )
    return f"{ENTITY}/p/s0", sweep


@pytest.mark.slow
def test_a_file_storage_that_fails_is_not_waited_for_for_ever(
    sweep_on_server: tuple[str, Path], server: WandbServer, tmp_path: Path
) -> None:
    source, sweep = sweep_on_server
    server.runs["r2"].files = {per_item.SCORES: b"x"}
    server.faults.file_errors = True
    study, sources, out = resolve(Request([source], sweep=sweep, out=tmp_path / "out"))
    begun = time.monotonic()
    with pytest.raises(FetchError, match=r"failed to download test_scores.npz of .*/r2") as error:
        collect(sources, out, study)
    assert time.monotonic() - begun < 90
    assert "Runs read so far are saved" in str(error.value)
    assert server.faults.happened["file errors"] > 0
    assert read_tables(out)[0]["run_id"].tolist() == ["r0", "r1"]
    assert yaml.safe_load(sweep.read_text())["method"] == "grid"
