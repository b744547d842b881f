"""The challenge: its distortions, network and moving average, and the script stopped midway."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import train_gtsrb_challenge
from lib.data import augment_strong, gtsrb
from lib.data.augment import FLIP_SAFE
from lib.models.gtsrb_resnet import ChallengeNet, normalize
from lib.tracking import wandb_run
from lib.training import metrics, optim
from tests.conftest import call
from tests.fakes.runs import Recorder, without_clock
from train_gtsrb_challenge import Config

OFF = {"affine": 0.0, "perspective": 0.0, "light": 0.0, "color": 0.0, "blur": 0.0, "cutout": 0.0}
ALL = {"affine": 1.0, "perspective": 0.1, "light": 0.5, "color": 0.1, "blur": 0.8, "cutout": 0.3}


@pytest.fixture
def images() -> torch.Tensor:
    """All classes, 258 images of noise."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (258, 3, 32, 32), dtype=torch.uint8, generator=generator)


def distorted(
    images: torch.Tensor, mirror: augment_strong.Mirror, **strengths: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return images, labels before and labels after."""
    labels = torch.arange(len(images)) % 43
    generator = torch.Generator().manual_seed(0)
    return (*augment_strong.distort(images, labels, generator, mirror, **OFF | strengths), labels)


def test_without_strengths_an_image_stays_as_it_is(images: torch.Tensor) -> None:
    varied, after, before = distorted(images, "none")
    torch.testing.assert_close(varied, images.float() / 255, atol=1e-5, rtol=0)
    assert torch.equal(after, before)


@pytest.mark.parametrize("name", ALL)
def test_each_strength_changes_images_and_leaves_the_other_draws_alone(
    images: torch.Tensor, name: str
) -> None:
    plain, labels, _ = distorted(images, "map")
    varied, same, _ = distorted(images, "map", **{name: ALL[name]})
    assert torch.equal(labels, same), "the same images are mirrored"
    changed = (varied - plain).abs().amax((1, 2, 3)) > 1e-3
    assert changed.float().mean() > 0.3
    assert varied.min() >= 0
    assert varied.max() <= 1


def test_mirror_images_have_the_label_of_what_they_show(images: torch.Tensor) -> None:
    pairs = {a: b for pair in augment_strong.MIRROR_PAIRS for a, b in (pair, pair[::-1])}
    for mirror, allowed in [("same", {c: c for c in FLIP_SAFE}), ("map", pairs)]:
        allowed = allowed | {c: c for c in FLIP_SAFE}
        varied, after, before = distorted(images, mirror)
        pixels = images.float() / 255
        for image, whole, old, new in zip(
            varied, pixels, before.tolist(), after.tolist(), strict=True
        ):
            flipped = torch.allclose(image, whole.flip(-1), atol=1e-5)
            assert flipped or torch.allclose(image, whole, atol=1e-5)
            assert not flipped or old in allowed
            assert new == (allowed[old] if flipped else old)
        assert len(set(allowed) & set(before.tolist())) == len(allowed)


def test_warp_turns_shifts_and_zooms_as_it_says(images: torch.Tensor) -> None:
    pixels = images[:4].float() / 255
    one, none = torch.ones(4), torch.zeros(2, 4)

    def warped(degrees: float = 0, right: float = 0, zoom: float = 1) -> torch.Tensor:
        shift, zooms = torch.stack([right * one, 0 * one]), zoom * torch.stack([one, one])
        return augment_strong.warp(pixels, degrees * one, shift, zooms, 0 * one, none)

    close = {"atol": 1e-4, "rtol": 0}
    torch.testing.assert_close(warped(degrees=90), torch.rot90(pixels, 1, (2, 3)), **close)
    torch.testing.assert_close(warped(right=4 / 32)[..., 4:], pixels[..., :-4], **close)
    border = pixels[..., :1].expand(-1, -1, -1, 4)
    torch.testing.assert_close(warped(right=4 / 32)[..., :4], border, **close)
    halved = torch.nn.functional.avg_pool2d(pixels, 2)
    torch.testing.assert_close(warped(zoom=0.5)[..., 8:24, 8:24], halved, **close)


def test_the_first_view_is_the_image_and_the_others_are_near(images: torch.Tensor) -> None:
    smooth = augment_strong.mix_blurred(images.float(), torch.ones(len(images))).to(torch.uint8)
    seen = [augment_strong.view(smooth, which) for which in augment_strong.VIEWS]
    assert torch.equal(seen[0], smooth.float() / 255)
    assert len(seen) == 9
    for other in seen[1:]:
        assert 0.001 < (other - seen[0]).abs().mean() < 0.2


def test_normalized_images_forget_brightness_and_contrast(images: torch.Tensor) -> None:
    pixels = images.float() / 255
    normal = normalize(pixels)
    torch.testing.assert_close(normal.mean((1, 2, 3)), torch.zeros(258), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.std((1, 2, 3), correction=0), torch.ones(258))
    torch.testing.assert_close(normalize(0.3 * pixels + 0.1), normal, atol=1e-4, rtol=0)
    assert torch.equal(normalize(torch.full((1, 3, 32, 32), 0.5)), torch.zeros(1, 3, 32, 32))


def test_the_network_has_the_size_that_its_docstring_says() -> None:
    model = ChallengeNet(normalize=True, dropout=0.2, activation="relu")
    size = metrics.size(model, (3, 32, 32))
    assert size == {"parameters": 694_283, "macs": 53_190_720}
    assert model(torch.rand(2, 3, 48, 48)).shape == (2, 43)


def test_the_moving_average_forgets_the_first_weights() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    average = optim.moving_average(model, 0.5)
    expected = None
    for step, value in enumerate([3.0, 5.0, 9.0, 1.0, 7.0, 2.0, 4.0, 8.0, 6.0, 1.0]):
        torch.nn.init.constant_(model.weight, value)
        average.update_parameters(model)
        share = 1 - min(0.5, (1 + step) / (10 + step))
        expected = value if expected is None else expected + share * (value - expected)
        assert average.module.weight.item() == pytest.approx(expected)


def test_one_cycle_rises_for_a_fifth_and_falls_to_nothing() -> None:
    optimizer = optim.sgd([torch.nn.Parameter(torch.zeros(1))], 0.1, 0.9)
    scheduler = optim.schedule_lr(optimizer, "one_cycle", 100)
    rates = []
    for _ in range(100):
        rates.append(optim.current_lr(scheduler))
        optimizer.step()
        scheduler.step()
    assert np.argmax(rates) == 20
    assert max(rates) == pytest.approx(0.1)
    assert np.all(np.diff(rates[:20]) > 0)
    assert np.all(np.diff(rates[20:]) < 0)
    assert rates[-1] < 0.0001


def train(folder: Path, data: Path, stopped: bool = False, **settings: float) -> Recorder:
    recorder = Recorder()
    run = wandb_run.Run("id", folder, recorder, stopped_at=float(stopped))
    settings = {"val_fraction": 0.34, "epochs": 2, "batch_size": 32, "views": 2} | settings
    cfg = Config(data=str(data), **settings)
    train_gtsrb_challenge.train(cfg, gtsrb.load(cfg.data, cfg.input_size), run)
    return recorder


def test_stopped_it_continues_bit_for_bit(signs: Path, tmp_path: Path) -> None:
    """Dropout, too, whose draws come from torch's own generator."""
    whole = train(tmp_path / "whole", signs)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", signs, stopped=True)
    torch.rand(7)
    again = train(tmp_path / "broken", signs)
    assert again.summary.pop("resumed_from_epoch") == 1
    assert whole.summary.pop("resumed_from_epoch") == 0
    assert [*map(without_clock, again.rows)] == [*map(without_clock, whole.rows)]
    assert np.isfinite(whole.rows[-1]["val/loss"])
    assert again.summary == whole.summary
    scores = [np.load(tmp_path / run / "test_scores.npz") for run in ("whole", "broken")]
    assert all(np.array_equal(scores[0][key], scores[1][key]) for key in scores[0])
    wrong = (scores[0]["predicted"] != scores[0]["labels"]).mean()
    assert whole.summary["test/error"] == pytest.approx(wrong)


def test_all_images_may_be_trained_on(signs: Path, tmp_path: Path) -> None:
    recorder = train(tmp_path, signs, val_fraction=0.0)
    assert np.isnan(recorder.rows[-1]["val/error"])
    assert not recorder.summary["diverged"]
    assert 0 <= recorder.summary["test/error"] <= 1


def test_images_may_have_another_size(signs: Path, tmp_path: Path) -> None:
    recorder = train(tmp_path, signs, input_size=20, epochs=1)
    assert 0 <= recorder.summary["test/error"] <= 1
    assert recorder.summary["macs"] < 53_190_720 / 2
    saved = np.load(tmp_path / "test_scores.npz")
    assert saved["mistaken_images"].shape == (len(saved["mistakes"]), 3, 20, 20)


def test_a_diverged_run_has_the_worst_score(signs: Path, tmp_path: Path) -> None:
    recorder = train(tmp_path, signs, sgd_lr=1.0e30)
    assert recorder.summary["diverged"]
    assert recorder.summary["test/error"] == 1
    assert (np.load(tmp_path / "test_scores.npz")["predicted"] == -1).all()


def test_from_the_sweep_to_the_tables(signs: Path, offline: dict[str, str], tmp_path: Path) -> None:
    """The real script under the local agent, fetched; without references there is no report."""
    sweep, out = tmp_path / "recipe.yaml", tmp_path / "runs"
    parameters = {"seed": {"values": [0, 1]}, "data": {"value": str(signs)}}
    fixed = {"epochs": 1, "batch_size": 64, "views": 2, "val_fraction": 0, "media": True}
    parameters |= {name: {"value": value} for name, value in fixed.items()}
    plan = {"program": "train_gtsrb_challenge.py", "method": "grid", "parameters": parameters}
    sweep.write_text(yaml.safe_dump(plan | {"metric": {"name": "train/error", "goal": "minimize"}}))
    done = call("-m", "lib.agent", sweep, "--out", out, "--workers", "2", env=offline)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results"
    done = call("-m", "analysis.fetch", out, "--sweep", sweep, "--out", folder)
    assert "2 finished, of 2 expected" in done.stdout, done.stderr
    table = pd.read_csv(folder / "test_images.csv")
    assert list(table)[:4] == ["item", "label", "width", "in_training"]
    runs = pd.read_csv(folder / "runs.csv")
    errors = [(table[f"predicted.{run}"] != table["label"]).mean() for run in runs["run_id"]]
    assert errors == pytest.approx(list(runs["summary.test/error"]))
    for rule in ("_last_weights", "_at_best_val", "_mean_last_5"):
        assert runs[f"summary.test/error{rule}"].between(0, 1).all()
    done = call("-m", "analysis.report", folder, "--sweep", sweep)
    assert "there is nothing to compare" in done.stderr
    assert "media" not in (folder / "history.csv").read_text(), "pictures are no numbers"
