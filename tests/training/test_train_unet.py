"""What the lung script does that the sign script does not; the rest is tested on both."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import train_unet
from lib.data import jsrt
from lib.spec.errors import UserError
from lib.tracking import wandb_run
from tests.conftest import call
from tests.fakes.runs import Recorder, fetched, without_clock
from train_unet import Config

SMALL = {"image_size": 32, "depth": 3, "width": 4, "batch_size": 4, "adam_lr": 0.01}


def train(folder: Path, data: Path, stopped: bool = False, **values: object) -> Recorder:
    cfg, recorder = Config(**(SMALL | {"data": str(data)} | values)), Recorder()
    run = wandb_run.Run("id", folder, recorder, stopped_at=float(stopped))
    train_unet.train(cfg, jsrt.load(cfg.data, cfg.image_size), run)
    return recorder


def test_it_learns_and_saves_what_the_figures_need(chests: Path, tmp_path: Path) -> None:
    recorder = train(tmp_path, chests, epochs=12, dice_weight=1.0, save_overlays=True)
    assert recorder.summary["test/jaccard"] > 0.7
    with np.load(tmp_path / "test_overlays.npz") as file:
        arrays = dict(file)
    scores = np.load(tmp_path / "test_scores.npz")
    assert arrays["names"].tolist() == scores["names"].tolist()
    assert all(int(name[-1]) % 2 == 1 for name in arrays["names"])
    truth, predicted = arrays["truth"], arrays["predicted"]
    jaccard = (truth & predicted).sum((1, 2, 3)) / (truth | predicted).sum((1, 2, 3))
    np.testing.assert_allclose(jaccard, scores["jaccard"], rtol=1e-12)
    assert arrays["images"].dtype == np.uint8
    rows = recorder.rows
    best = max(row["val/jaccard"] for row in rows)
    assert rows[recorder.summary["best_epoch"] - 1]["val/jaccard"] == best


def test_stopped_it_resumes_bit_for_bit(chests: Path, tmp_path: Path) -> None:
    """In this process; the sign script's test kills real ones."""
    whole = train(tmp_path / "whole", chests, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", chests, stopped=True, epochs=2)
    again = train(tmp_path / "broken", chests, epochs=2)
    assert again.summary.pop("resumed_from_epoch") == 1
    assert whole.summary.pop("resumed_from_epoch") == 0
    assert [*map(without_clock, again.rows)] == [*map(without_clock, whole.rows)]
    assert again.summary == whole.summary


def test_divergence_is_an_outcome(chests: Path, tmp_path: Path) -> None:
    recorder = train(tmp_path, chests, epochs=3, adam_lr=1e30, batch_norm=False, save_overlays=True)
    assert recorder.summary["diverged"] is True
    assert len(recorder.rows) < 3
    for name in ("jaccard", "dice", "jaccard_at_best_val", "dice_at_best_val"):
        assert recorder.summary[f"test/{name}"] == 0
    assert not np.load(tmp_path / "test_overlays.npz")["predicted"].any()


def test_without_validation_the_last_epoch_is_the_best(chests: Path, tmp_path: Path) -> None:
    recorder = train(tmp_path, chests, epochs=2, val_fraction=0.0)
    assert all(math.isnan(row["val/jaccard"]) for row in recorder.rows)
    assert recorder.summary["best_epoch"] == 2
    assert recorder.summary["test/dice"] == recorder.summary["test/dice_at_best_val"]


def test_runs_of_one_seed_are_pairs(chests: Path, tmp_path: Path) -> None:
    variants = [{}, {"upsampling": "nearest"}, {"activation": "elu", "rotation": 0.0}, {"seed": 1}]
    summaries = [
        train(tmp_path / str(i), chests, epochs=1, **variant).summary
        for i, variant in enumerate(variants)
    ]
    for hashed in ("split_sha256", "order_sha256"):
        first, *same, other = (summary[hashed] for summary in summaries)
        assert first == same[0] == same[1] != other


def test_a_side_that_does_not_fit_is_reported_before_data_is_read(offline: dict[str, str]) -> None:
    flags = ["--data", "no/such/folder", "--image-size", "100"]
    done = call("train_unet.py", *flags, env=offline)
    assert done.returncode == 1
    assert "Use a multiple of 16, such as 96 or 112" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_pixel_is_too_little_for_batch_normalization(chests: Path, tmp_path: Path) -> None:
    n = len(train_unet.split_data(Config(data=str(chests)), jsrt.load(str(chests), 32))[0])
    small = {"image_size": 16, "depth": 5, "epochs": 1, "batch_norm": True}
    with pytest.raises(UserError, match=f"{n} training images leave a batch of one"):
        train(tmp_path / "a", chests, **small, batch_size=n - 1)
    assert len(train(tmp_path / "b", chests, **small, batch_size=n).rows) == 1
    small |= {"batch_norm": False}
    assert len(train(tmp_path / "c", chests, **small, batch_size=n - 1).rows) == 1


def test_missing_data_is_reported(offline: dict[str, str]) -> None:
    done = call("train_unet.py", "--data", "no/such/folder", env=offline)
    assert done.returncode == 1
    assert "no/such/folder not found" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_hyperparameter_counts(chests: Path, tmp_path: Path) -> None:
    """One step with each value changed gives another loss: no flag is forgotten."""
    changed = {"dice_weight": 1.0, "batch_norm": False, "activation": "elu", "width": 5}
    changed |= {"upsampling": "nearest", "depth": 2, "rotation": 20.0, "shift": 0.3, "scale": 0.4}
    changed |= {"brightness": 1.0, "contrast": 0.9, "seed": 3, "fold": "even", "batch_size": 2}
    changed |= {"val_fraction": 0.3, "adam_lr": 0.02, "adam_eps": 0.1, "image_size": 16}
    changed["precision"] = "bfloat16"
    base = Config(**SMALL, data=str(chests), epochs=2)
    untried = {"data", "epochs", "schedule", "save_overlays", "media", "checkpoint_every"}
    assert {field.name for field in dataclasses.fields(Config)} == set(changed) | untried
    values = [{}, *({name: value} for name, value in changed.items()), {"schedule": "cosine"}]
    losses = []
    for i, value in enumerate(values):
        merged = {name: getattr(base, name) for name in SMALL} | {"epochs": 2} | value
        losses.append(train(tmp_path / str(i), chests, **merged).rows[-1]["train/loss"])
    assert len(set(losses)) == len(values)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_it_trains_too(chests: Path, tmp_path: Path) -> None:
    recorder = train(tmp_path, chests, epochs=1)
    assert recorder.summary["device"] == torch.cuda.get_device_name()


@pytest.mark.real_data
@pytest.mark.slow
def test_real_lungs_are_found(real_chests: Path, offline: dict[str, str]) -> None:
    flags = [
        "--image-size",
        "64",
        "--width",
        "8",
        "--depth",
        "4",
        "--epochs",
        "8",
        "--batch-size",
        "4",
        "--adam-lr",
        "0.003",
    ]
    env = offline | {"WANDB_RUN_ID": "real"}
    done = call("train_unet.py", "--data", real_chests, *flags, env=env, timeout=1800)
    assert done.returncode == 0, done.stderr
    assert fetched(env, "real").row["summary.test/jaccard"] > 0.85
