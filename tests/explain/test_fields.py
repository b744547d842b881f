"""Inside trained networks: gradients lie in the theoretical field; the report has its section."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import train_gtsrb
import train_gtsrb_challenge
import train_unet
from analysis.figures import catalogue, networks
from analysis.pages import render
from analysis.runs.load import load_data
from analysis.runs.tables import TableError
from lib import describe
from lib.data import gtsrb, jsrt
from lib.explain import trained
from lib.explain.receptive_field import trace
from lib.models.gtsrb_cnn import CNN
from lib.spec.errors import UserError
from lib.tracking import finished, wandb_run
from tests import factories
from tests.conftest import call
from tests.fakes.runs import Recorder


@pytest.fixture(scope="module")
def sign_run(signs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train one epoch on drawn signs; give the run's folder."""
    folder = tmp_path_factory.mktemp("signs") / "bnsgd00"
    cfg = train_gtsrb.Config(data=str(signs), epochs=1, batch_norm=True, val_fraction=0.3)
    recorder = Recorder()
    train_gtsrb.train(cfg, gtsrb.load(signs), wandb_run.Run("id", folder, recorder))
    finished.write(folder, recorder.summary, dataclasses.asdict(cfg))
    return folder


@pytest.fixture(scope="module")
def lung_runs(chests: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Train one epoch on drawn chests with two ways of upsampling; give the runs' folders."""
    folders = []
    for upsampling in ("transposed", "nearest"):
        folder = tmp_path_factory.mktemp("lungs") / upsampling
        cfg = train_unet.Config(
            data=str(chests), image_size=64, depth=3, width=8, epochs=1, upsampling=upsampling
        )
        recorder = Recorder()
        train_unet.train(cfg, jsrt.load(chests, 64), wandb_run.Run("id", folder, recorder))
        finished.write(folder, recorder.summary, dataclasses.asdict(cfg))
        folders.append(folder)
    return folders


def test_gradients_stay_inside_the_theoretical_field() -> None:
    torch.manual_seed(0)
    model = CNN(False, "elu").eval()
    images = torch.rand(4, 3, 28, 28)
    traced = trace(CNN(False, "elu"), (3, 28, 28))
    for name, operation in trained.places(traced).items():
        field = trained.effective_field(model, images, operation)
        theory = traced[operation].field
        low, high = theory.low[theory.middle], theory.high[theory.middle] + 1
        assert field[low:high, low:high].sum() == pytest.approx(field.sum()), name
        assert field.sum() > 0
    assert list(trained.places(traced)) == [
        "convolution 1",
        "convolution 2",
        "max-pooling 1",
        "convolution 3",
        "max-pooling 2",
    ]


def test_a_linear_networks_field_is_its_weight() -> None:
    convolution = torch.nn.Conv2d(1, 1, 3, bias=False)
    field = trained.effective_field(convolution, torch.rand(5, 1, 9, 9), 0)
    np.testing.assert_allclose(field[3:6, 3:6], convolution.weight[0, 0].abs().detach(), rtol=1e-6)


def test_the_area_is_the_fewest_pixels_that_hold_the_mass() -> None:
    field = np.zeros((10, 10))
    field[:2, :2] = [[90, 4], [2, 1]]
    field[9, 9] = 3
    assert networks.area(field) == (3, 3.0)  # 90 + 4 + 3 of 100


def test_the_last_epochs_weights_are_looked_at(sign_run: Path, signs: Path) -> None:
    run = trained.load_run(sign_run, str(signs))
    before, after = run.before, run.after
    assert run.cfg.batch_norm is True
    saved = torch.load(sorted(sign_run.glob("checkpoint-*.pt"))[-1], weights_only=False)
    for name, value in after.state_dict().items():
        assert torch.equal(value, saved["state"]["model"][name])
    model = train_gtsrb.network(train_gtsrb.Config(batch_norm=True))
    for name, value in before.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), "the start is the script's own"


def test_signs_reach_the_report(signs: Path, sign_run: Path, tmp_path: Path) -> None:
    sweep_path = factories.write_sweep(tmp_path / "made_up.yaml")
    folder = tmp_path / "s"
    factories.write_study(folder, *factories.tables(sweep_path))
    done = call("-m", "lib.fields", sign_run, "--data", signs, "--out", folder)
    assert done.returncode == 0, done.stderr
    factories.report(folder, sweep_path)
    data = load_data(factories.study(sweep_path), folder)
    both = {picture.name: picture for picture in catalogue._of_networks(data)}
    assert list(both) == ["fig11_receptive_fields", "fig12_filters_and_maps"]
    for picture in both.values():
        assert render.save(folder / "figures", picture, {})
    sidecar = json.loads((folder / "figures" / "fig11_receptive_fields.json").read_text())
    assert sidecar["runs"] == ["bnsgd00"]
    assert set(sidecar["networks"]["bnsgd00"]) == {"git_commit", "data_sha256"}
    text = (folder / "report.md").read_text()
    assert "32 · 4 · 4 = 512" in text
    assert both["fig11_receptive_fields"].explained == networks.OF_FIELDS
    table = text[text.index("| layer ") :].split("\n\n")[0]
    assert {len(re.findall(r"\|", row)) for row in table.splitlines()} == {11}
    html = (folder / "report.html").read_text()
    assert "<h2>Network of run bnsgd00</h2>" in html
    assert "is after features.0 convolution and before features.2 ELU" in html


def test_lungs_have_a_flat_image(chests: Path, lung_runs: list[Path], tmp_path: Path) -> None:
    done = call("-m", "lib.fields", *lung_runs, "--data", chests, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    found, arrays = networks.read(tmp_path)
    assert [one["run"] for one in found] == ["transposed", "nearest"]
    assert list(found[0]["fields"]) == ["bottleneck", "output"]
    for when in ("before", "after"):
        grid, even = (arrays[f"{run}/flat/{when}"] for run in ("transposed", "nearest"))
        assert grid.std() > 1e-4
        assert np.ptp(even) == 0, "copied pixels are alike wherever no border reaches"
        np.testing.assert_allclose(grid[:-4, :-4], grid[4:, 4:], atol=1e-6)  # two levels: 4×4
    path = factories.grid(tmp_path / "s.yaml", {"upsampling": ["transposed", "nearest"]}, 2)
    figure = networks.checkerboards(found, arrays, factories.study(path))
    caption, runs = networks.checkerboards_caption(found, arrays), networks.run_ids(found)
    assert len(figure.axes) == 4 + 2  # and a color bar per row
    assert runs == ["transposed", "nearest"]
    assert "n = 2 networks" in caption
    assert len(networks.described(tmp_path)) == 2


def test_batch_norm_before_training_has_the_images_statistics(
    lung_runs: list[Path], chests: Path
) -> None:
    before = trained.load_run(lung_runs[0], str(chests)).before
    images = torch.rand(8, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    trained.calibrate_batch_norm(before, images)
    seen = {}
    for name, module in before.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda _m, _i, o, n=name: seen.update({n: o.clone()}))
    before(images)
    assert len(seen) == 10
    for output in seen.values():
        assert output.mean((0, 2, 3)).abs().max() < 0.01
        assert output.var((0, 2, 3)).max() < 1.01


def test_runs_that_show_nothing_and_other_data_are_refused(
    sign_run: Path, signs: Path, tmp_path: Path
) -> None:
    for changes, words in (
        ({"diverged": True}, "diverged, its weights are useless"),
        ({"data_sha256": "0" * 64}, "was trained on other data"),
    ):
        copy = tmp_path / words[:4] / sign_run.name
        shutil.copytree(sign_run, copy)
        done = finished.read(copy)
        finished.write(copy, done["summary"] | changes, done["config"])
        with pytest.raises(UserError, match=words):
            trained.inspect_run(copy, str(signs), {})


def test_a_dead_layer_has_no_gradient() -> None:
    assert networks.area(np.zeros((4, 4))) == (0, np.inf)


@pytest.mark.parametrize("content", ["[]", '{"networks": 5}', '{"networks": [{}]}', "{"])
def test_damaged_descriptions_are_reported(tmp_path: Path, content: str) -> None:
    (tmp_path / networks.NAME).write_text(content)
    np.savez(tmp_path / networks.ARRAYS, **{"b/x": np.zeros(2)})
    with pytest.raises(TableError, match="is damaged"):
        networks.read(tmp_path)


@pytest.mark.slow
def test_damage_is_reported(tmp_path: Path, sign_run: Path, signs: Path) -> None:
    with pytest.raises(UserError, match="has not finished"):
        trained.load_run(tmp_path, str(signs))
    finished.write(tmp_path / "empty", {}, {})
    with pytest.raises(UserError, match="has no checkpoint, or the newest cannot be read"):
        trained.load_run(tmp_path / "empty", str(signs))
    bad = call("-m", "lib.fields", tmp_path, "--data", signs, "--out", tmp_path / "o")
    assert bad.returncode == 1
    assert "Traceback" not in bad.stderr
    assert networks.read(tmp_path) == ([], {})
    (tmp_path / networks.NAME).write_text('{"networks": [{"run": "a"}]}')
    np.savez(tmp_path / networks.ARRAYS, **{"b/x": np.zeros(2)})
    with pytest.raises(TableError, match="contain different runs"):
        networks.read(tmp_path)
    for damaged in (b"half", b""):
        (tmp_path / networks.ARRAYS).write_bytes(damaged)
        with pytest.raises(TableError, match="is damaged"):
            networks.read(tmp_path)
    (tmp_path / "file").write_text("not a folder")
    bad = call("-m", "lib.fields", sign_run, "--data", signs, "--out", tmp_path / "file")
    assert bad.returncode == 1
    assert "Traceback" not in bad.stderr


def test_a_network_that_cannot_be_followed_is_refused(
    signs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The challenge's network normalizes its input, which no receptive field describes."""
    folder, recorder = tmp_path / "run", Recorder()
    cfg = train_gtsrb_challenge.Config(data=str(signs), epochs=1, views=1, val_fraction=0.3)
    run = wandb_run.Run("id", folder, recorder)
    train_gtsrb_challenge.train(cfg, train_gtsrb_challenge.load_data(cfg), run)
    finished.write(folder, recorder.summary, dataclasses.asdict(cfg))
    with pytest.raises(UserError, match="mean in the network: its effect on receptive fields"):
        trained.inspect_run(folder, str(signs), {})
    with pytest.raises(SystemExit):
        describe.main(["challenge"])
    assert "choose from gtsrb, unet" in capsys.readouterr().err.replace("'", "")
