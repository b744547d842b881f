"""The scripts end to end: the logging contract, kill and resume, divergence, bad input."""

import dataclasses
import math
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
import yaml

import train_gtsrb
import train_unet
from lib.data import gtsrb
from lib.tracking import finished, wandb_run
from lib.training import checkpoint, loop, provenance
from tests.conftest import call
from tests.fakes.runs import CLOCK, Recorder, fetched, start, wait_for, without_clock
from train_gtsrb import Config

COMMON = [
    "runtime_seconds",
    "best_epoch",
    "parameters",
    "macs",
    "diverged",
    "data_sha256",
    "split_sha256",
]
COMMON += ["order_sha256", "git_commit", "device", "threads", "torch_version", "numpy_version"]
COMMON += ["python_version", "resumed_from_epoch", "test_item"]
SIGNS = {
    "script": "train_gtsrb.py",
    "config": Config,
    "flags": ["--batch-size", "16", "--val-fraction", "0.34", "--batch-norm", "True"],
    "history": ["train/loss", "train/error", "val/loss", "val/error"],
    "summary": ["test/error", "test/error_at_best_val", "test/error_mean_last_5"],
    "arrays": ["names", "labels", "predicted", "probability"],
}
LUNGS = {
    "script": "train_unet.py",
    "config": train_unet.Config,
    "flags": [
        "--image-size",
        "32",
        "--depth",
        "3",
        "--width",
        "4",
        "--batch-size",
        "2",
        "--save-overlays",
        "True",
    ],
    "history": ["train/loss", "val/loss", "val/jaccard", "val/dice"],
    "summary": [
        f"test/{score}{rule}"
        for score in ("jaccard", "dice")
        for rule in ("", "_at_best_val", "_mean_last_5")
    ],
    "arrays": ["names", "jaccard", "dice"],
}


def train(cfg: Config, folder: Path) -> Recorder:
    recorder = Recorder()
    train_gtsrb.train(cfg, gtsrb.load(cfg.data), wandb_run.Run("id", folder, recorder))
    return recorder


@pytest.mark.parametrize(
    "kind", [SIGNS, pytest.param(LUNGS, marks=pytest.mark.slow)], ids=["signs", "lungs"]
)
def test_stopped_and_killed_it_continues_bit_for_bit(
    kind: dict, signs: Path, chests: Path, offline: dict[str, str], tmp_path: Path
) -> None:
    script, data = kind["script"], signs if kind is SIGNS else chests
    flags = ["--data", str(data), "--epochs", "4", "--checkpoint-every", "2", *kind["flags"]]
    undisturbed = call(script, *flags, env=offline | {"WANDB_RUN_ID": "whole"})
    assert undisturbed.returncode == 0, undisturbed.stderr

    log = tmp_path / "log.txt"
    process = start(script, offline, "broken", log, *flags)
    wait_for(log, "epoch 1/4", process)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 1
    assert "run the same command with WANDB_RUN_ID=broken" in log.read_text()
    assert fetched(offline, "broken").row["state"] == "killed"
    process = start(script, offline, "broken", log, *flags)
    wait_for(log, "epoch 3/4", process)
    process.kill()
    process.wait(60)
    # Of the killed attempt W&B may have written nothing yet; then the one before it is the last.
    assert fetched(offline, "broken").row["state"] in ("crashed", "killed")
    again = call(script, *flags, env=offline | {"WANDB_RUN_ID": "broken"})
    assert "resuming from" in again.stdout

    whole, broken = fetched(offline, "whole"), fetched(offline, "broken")
    history = {*kind["history"], "epoch", "lr", *CLOCK}
    assert set(whole.history[0]) == history | {"run_id"}
    assert [row["epoch"] for row in broken.history] == [1, 2, 3, 4]
    for ours, theirs in zip(broken.history, whole.history, strict=True):
        assert without_clock(ours) == without_clock(theirs)
    fields = {f"config.{field.name}" for field in dataclasses.fields(kind["config"])}
    logged = fields | {f"summary.{key}" for key in history | {*COMMON, *kind["summary"]}}
    assert set(whole.row) == {"run_id", "state", "exit_code", "source", "url", "created"} | logged
    resumed = "summary.resumed_from_epoch"
    assert (whole.row[resumed], broken.row[resumed]) == (0, 2)
    for key in logged - {f"summary.{name}" for name in CLOCK | {"runtime_seconds"}} - {resumed}:
        assert whole.row[key] == broken.row[key], key
    assert (whole.row["state"], broken.row["state"]) == ("finished", "finished")

    folder = Path(offline["WANDB_DIR"])
    assert (folder.with_name("files") / "whole" / "test_scores.npz").exists(), "fetched along"
    scores = [np.load(folder / name / "test_scores.npz") for name in ("whole", "broken")]
    for name in kind["arrays"]:
        np.testing.assert_array_equal(scores[0][name], scores[1][name])
    if kind is SIGNS:
        score = np.mean(scores[0]["predicted"] != scores[0]["labels"])
    else:
        score = scores[0]["jaccard"].mean()
    assert whole.row[f"summary.{kind['summary'][0]}"] == pytest.approx(score, abs=1e-12)

    third = call(script, *flags, env=offline | {"WANDB_RUN_ID": "broken"})
    assert third.returncode == 0
    assert "already finished" in third.stdout
    assert len(list(folder.glob("wandb/offline-run-*-broken"))) == 3


def test_a_sweeps_values_win_and_are_said(
    signs: Path, offline: dict[str, str], tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep.yaml"
    values = {"epochs": {"value": 1}, "optimizer": {"value": "sgd"}, "batch_size": {"value": 64}}
    sweep.write_text(yaml.safe_dump({"wandb_version": 1, **values}))
    env = offline | {"WANDB_SWEEP_ID": "abcd1234", "WANDB_SWEEP_PARAM_PATH": str(sweep)}
    env |= {"WANDB_RUN_ID": "swept", "WANDB_PROJECT": "p"}
    done = call("train_gtsrb.py", "--data", signs, "--epochs", "9", "--seed", "5", env=env)
    assert "epochs: the sweep's 1 replaces the flag's 9" in done.stdout
    run = fetched(env, "swept")
    found = [run.row[f"config.{key}"] for key in ("epochs", "optimizer", "seed")]
    assert found == [1, "sgd", 5]
    done = finished.read(Path(env["WANDB_DIR"]) / "swept")
    assert done["summary"]["test/error"] == run.row["summary.test/error"]
    assert {f"config.{k}": v for k, v in done["config"].items()}.items() <= run.row.items()


def test_a_bad_sweep_is_reported_before_data_is_read(
    offline: dict[str, str], tmp_path: Path
) -> None:
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("wandb_version: 1\nsgd_lr: {value: 1e-3}\nlearning_rate: {value: 0.1}\n")
    env = offline | {"WANDB_SWEEP_ID": "abcd1234", "WANDB_SWEEP_PARAM_PATH": str(sweep)}
    done = call("train_gtsrb.py", "--data", "no/such/folder", env=env)
    assert done.returncode == 1
    assert "sgd_lr = '1e-3': should be a valid number" in done.stderr
    assert "learning_rate = 0.1: unknown key" in done.stderr
    assert "no/such/folder" not in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_data_is_reported(offline: dict[str, str]) -> None:
    done = call("train_gtsrb.py", "--data", "no/such/folder", env=offline)
    assert done.returncode == 1
    assert "no traffic signs in" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_an_account_it_says_what_to_do(offline: dict[str, str]) -> None:
    env = {key: value for key, value in offline.items() if key != "WANDB_MODE"}
    env["WANDB_BASE_URL"] = "http://127.0.0.1:9"
    done = call("train_gtsrb.py", "--data", "no/such/folder", env=env)
    assert done.returncode == 1
    assert "set WANDB_MODE=offline" in done.stderr


def test_without_network_it_says_what_to_do(offline: dict[str, str]) -> None:
    env = offline | {"WANDB_MODE": "online", "WANDB_BASE_URL": "http://127.0.0.1:9"}
    env |= {"WANDB_API_KEY": "x" * 40, "WANDB_INIT_TIMEOUT": "5"}
    done = call("train_gtsrb.py", "--data", "no/such/folder", env=env)
    assert done.returncode == 1
    assert "set WANDB_MODE=offline" in done.stderr


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", provenance.git_commit())
    monkeypatch.setenv("PATH", "")
    assert provenance.git_commit() == "unknown"


def test_a_folders_name_is_no_pattern_for_wandb(offline: dict[str, str], tmp_path: Path) -> None:
    script = (
        "from lib.tracking import wandb_run; from tests.fakes.stub import Config\n"
        "with wandb_run.start(Config()) as (cfg, run): run.save_arrays('x.npz', a=[1])"
    )
    root = tmp_path / "a [b]*"
    done = call("-c", script, env=offline | {"WANDB_DIR": str(root), "WANDB_RUN_ID": "r"})
    assert done.returncode == 0, done.stderr
    (saved,) = (file for file in root.rglob("x.npz") if file.parent.name == "files")
    assert saved.samefile(root / "r" / "x.npz")


def test_two_runs_of_one_process_are_both_preempted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    for name in ("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.delenv(name, raising=False)
    wandb.teardown()
    for _ in range(2):
        with wandb_run.start(Config()) as (_, run):
            for number in wandb_run.PREEMPTING:
                assert callable(signal.getsignal(number))
            os.kill(os.getpid(), signal.SIGHUP)
            assert run.stop_requested
            signal.alarm(0)


def test_under_wandbs_agent_files_still_go_to_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_MODE", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))  # as the agent does where nobody set it
    wandb.teardown()  # W&B keeps the settings that an earlier test of this process gave it
    with wandb_run.start(Config()) as (_, run):
        run.summarize({"test/error": 0.5})
    assert run.folder == Path("runs") / run.id
    assert finished.read(tmp_path / run.folder) is None, "W&B has kept nothing"
    assert "W&B is disabled, so its history is not kept" in capsys.readouterr().out


def test_divergence_is_an_outcome(signs: Path, tmp_path: Path) -> None:
    cfg = Config(data=str(signs), epochs=3, optimizer="sgd", sgd_lr=1e30, val_fraction=0.34)
    recorder = train(cfg, tmp_path)
    assert len(recorder.rows) == 1
    assert math.isnan(recorder.rows[0]["train/loss"])
    assert recorder.summary["diverged"] is True
    for rule in ("", "_at_best_val", "_mean_last_5"):
        assert recorder.summary[f"test/error{rule}"] == 1
    assert (np.load(tmp_path / "test_scores.npz")["predicted"] == -1).all()
    again = train(cfg, tmp_path)  # a finished run that is started again stays what it was
    assert again.summary["diverged"] is True
    assert len(again.rows) == 1


def test_divergence_in_the_very_last_step_is_seen(tmp_path: Path) -> None:
    """The loss was finite before that step, and no validation loss comes after it."""
    model = torch.nn.BatchNorm1d(2)
    bookkeeping = loop.Loop(wandb_run.Run("id", tmp_path, Recorder()), {}, {}, 2, 1, None, {})
    bookkeeping.end_epoch({"train/loss": 0.5, "val/loss": math.nan}, model)
    assert not bookkeeping.diverged
    model.bias.data[1] = math.inf
    bookkeeping.end_epoch({"train/loss": 0.5, "val/loss": math.nan}, model)
    assert bookkeeping.diverged
    assert bookkeeping.best_epoch == 1, "the weights before"


def test_long_epochs_are_saved_more_often(
    signs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, save = [], checkpoint.save

    def count(folder: Path, epoch: int, *rest: object) -> None:
        saved.append(epoch)
        save(folder, epoch, *rest)

    monkeypatch.setattr(checkpoint, "save", count)
    cfg = Config(data=str(signs), epochs=3, checkpoint_every=10)
    train(cfg, tmp_path / "short")
    assert saved == [3]
    monkeypatch.setattr(loop, "GRACE_S", 0)
    train(cfg, tmp_path / "long")
    assert saved == [3, 1, 2, 3]


def test_without_validation_the_last_epoch_is_the_best(signs: Path, tmp_path: Path) -> None:
    cfg = Config(data=str(signs), epochs=2, val_fraction=0.0)
    recorder = train(cfg, tmp_path)
    assert all(math.isnan(row["val/error"]) for row in recorder.rows)
    assert recorder.summary["best_epoch"] == 2
    assert recorder.summary["test/error"] == recorder.summary["test/error_at_best_val"]
    assert recorder.summary["diverged"] is False


def test_runs_of_one_seed_are_pairs(signs: Path, tmp_path: Path) -> None:
    base = Config(data=str(signs), epochs=1, val_fraction=0.34)
    variants = [
        dataclasses.replace(base, batch_norm=True, activation="relu"),
        dataclasses.replace(base, optimizer="sgd", rotation=0.0, schedule="cosine"),
        dataclasses.replace(base, seed=1),
    ]
    first, *others = (
        train(cfg, tmp_path / str(i)).summary for i, cfg in enumerate([base, *variants])
    )
    for hashed in ("split_sha256", "order_sha256"):
        assert others[0][hashed] == others[1][hashed] == first[hashed] != others[2][hashed]
    assert len({summary["data_sha256"] for summary in (first, *others)}) == 1


def test_the_best_epoch_is_the_first_of_lowest_validation_error(
    signs: Path, tmp_path: Path
) -> None:
    cfg = Config(data=str(signs), epochs=5, val_fraction=0.34, optimizer="sgd", batch_size=16)
    recorder = train(cfg, tmp_path)
    errors = [row["val/error"] for row in recorder.rows]
    assert recorder.summary["best_epoch"] == 1 + errors.index(min(errors))


def test_the_mean_of_the_last_five_epochs(
    signs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = []

    def evaluate(model: object, part: gtsrb.Images, indices: torch.Tensor, cfg: Config) -> tuple:
        result = undisturbed(model, part, indices, cfg)
        if part.tracks[0] == -1:  # the test part
            tested.append(result[1])
        return result

    undisturbed = train_gtsrb.evaluate
    monkeypatch.setattr(train_gtsrb, "evaluate", evaluate)
    cfg = Config(data=str(signs), epochs=7, val_fraction=0.34, optimizer="sgd", batch_size=16)
    summary = train(cfg, tmp_path).summary
    *tail, last, best = tested
    assert len(tail) == 5
    assert tail[-1] == last == summary["test/error"]
    assert best == summary["test/error_at_best_val"]
    assert summary["test/error_mean_last_5"] == pytest.approx(np.mean(tail))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_it_trains_too(signs: Path, tmp_path: Path) -> None:
    recorder = train(Config(data=str(signs), epochs=1, val_fraction=0.34), tmp_path)
    assert recorder.summary["device"] == torch.cuda.get_device_name()


@pytest.mark.real_data
@pytest.mark.slow
def test_real_signs_are_learnt(real_signs: Path, offline: dict[str, str]) -> None:
    flags = ["--epochs", "1", "--optimizer", "sgd", "--sgd-lr", "0.03", "--batch-norm", "True"]
    env = offline | {"WANDB_RUN_ID": "real", "OMP_NUM_THREADS": str(os.cpu_count())}
    done = call("train_gtsrb.py", "--data", real_signs, *flags, env=env, timeout=1800)
    assert done.returncode == 0, done.stderr
    assert fetched(env, "real").row["summary.test/error"] < 0.2
