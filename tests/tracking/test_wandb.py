"""W&B end to end: the real CLI, agents and scripts against the stand-in for its server."""

from pathlib import Path

import pandas as pd
import pytest

from analysis.runs import tables
from lib.spec.machine import cores
from lib.spec.sweep import read_sweep
from lib.tracking import processes
from tests.conftest import call
from tests.fakes.wandb_cli import (
    agents,
    cli,
    ended,
    fetch,
    start_sweep,
    write_stub_sweep,
    write_sweep,
)
from tests.fakes.wandb_server import WandbServer
from tests.fakes.wandb_state import ENTITY


@pytest.mark.parametrize(
    "study",
    [
        "stub",
        pytest.param("demo_gtsrb", marks=pytest.mark.slow),
        pytest.param("demo_unet", marks=pytest.mark.slow),
    ],
)
def test_a_sweep_with_two_agents_gives_the_local_agents_numbers(
    study: str,
    server: WandbServer,
    online: dict[str, str],
    offline: dict[str, str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    small = {"seed": [0, 1], "epochs": 2}
    if study == "stub":
        sweep = write_stub_sweep(tmp_path, batch_norm=[False, True], optimizer="adam", **small)
    else:
        data = request.getfixturevalue({"demo_gtsrb": "signs", "demo_unet": "chests"}[study])
        sweep = write_sweep(tmp_path, study, data, **small)
    path = start_sweep(online, server, sweep)
    with agents(online, path, count=2) as both:
        ended(both)
    plan = read_sweep(sweep)
    cells = plan.grid()
    ran = [
        {key: item["value"] for key, item in run.config.items() if key in cells[0]}
        for run in server.runs.values()
    ]
    assert len(ran) == len(cells)
    assert all(ran.count(cell) == 1 for cell in cells)
    assert {run.state for run in server.runs.values()} == {"finished"}
    seen = [run.attributes for run in server.runs.values()]
    assert {one["jobType"] for one in seen} == {study}
    assert len({one["group"] for one in seen}) == len(cells) / 2, "a group per variant, of 2 seeds"
    first = {
        "stub": "no-bn-seed0",
        "demo_gtsrb": "no-bn-adam-seed0",
        "demo_unet": "relu-transposed-seed0",
    }
    assert first[study] in {one["displayName"] for one in seen}

    out = tmp_path / "server" / study
    from_server = fetch(online, path, sweep, out)
    words = ("-m", "analysis.report", out, "--sweep", sweep, "--out", out)
    done = call(*words, env=offline)
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
        processes.environment(plan, cells[0], folder, 0, 2, [])["WANDB_SWEEP_ID"]
    }
    assert {run.state for run in arrived} == {"finished"}
    names = {run.attributes["displayName"] for run in arrived}
    assert names == {one["displayName"] for one in seen}
    assert all(run.config["seed"]["value"] in (0, 1) and len(run.history) == 2 for run in arrived)


@pytest.mark.slow
def test_media_are_shown_and_do_not_disturb(
    server: WandbServer, online: dict[str, str], signs: Path, chests: Path, tmp_path: Path
) -> None:
    """Pictures arrive, a few hundred kilobytes at most; the study's tables keep to numbers."""
    small = {"epochs": 1, "media": True, "seed": [0]}
    for study, data in (("demo_gtsrb", signs), ("demo_unet", chests)):
        one = {"demo_gtsrb": {"batch_norm": True, "optimizer": "sgd"}}
        one["demo_unet"] = {"upsampling": "nearest", "activation": "elu"}
        sweep = write_sweep(tmp_path, study, data, **small | one[study])
        sweep = sweep.rename(tmp_path / f"{study}_media.yaml")  # of fewer levels than declared
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
