"""Runs of other people's scripts on a server: what they log, how their configuration is shaped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from analysis import report as report_module
from analysis.runs.collect import collect
from analysis.runs.record import FetchError
from analysis.runs.sources import Request, resolve
from analysis.runs.tables import read_tables
from lib.spec.errors import UserError
from tests.fakes.wandb_server import WandbServer
from tests.fakes.wandb_state import ENTITY, Run, Sweep

NAN = "NaN"  # as the service gives it
SCORES = {
    (algo, seed): round(0.05 - 0.01 * (algo == "b") + 0.0007 * ((5 * seed) % 7), 6)
    for algo in "ab"
    for seed in range(6)
}
# One run: its configuration, summary and history rows.
Shape = Callable[[str, int, float], tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]]


def rows(key: str, steps: list[float], value: float, name: str = "val/error") -> list[dict]:
    return [{key: step, name: value + 0.01 / (i + 1)} for i, step in enumerate(steps)]


def plain(algo: str, seed: int, v: float, **config: Any) -> tuple[dict, dict, list]:
    return (
        {"algo": algo, "seed": seed, "epochs": 2} | config,
        {"test/error": v},
        rows("epoch", [1, 2], v),
    )


def lightning(algo: str, seed: int, v: float) -> tuple[dict, dict, list]:
    history = [
        row | {"trainer/global_step": 10 * i + 10}
        for i, row in enumerate(rows("epoch", [0, 1, 2], v))
    ]
    history.append({"epoch": 3, "trainer/global_step": 30, "test/error": v})
    summary = {"test/error": v, "epoch": 3, "trainer/global_step": 30}
    return {"algo": algo, "seed": seed, "max_epochs": 3}, summary, history


def hugging_face(algo: str, seed: int, v: float) -> tuple[dict, dict, list]:
    history = rows("train/epoch", [0.5, 1.0, 1.5, 2.0], v, "eval/error")
    history = [row | {"train/global_step": 50 * i + 50} for i, row in enumerate(history)]
    return {"algo": algo, "seed": seed, "num_train_epochs": 2}, {"test/error": v}, history


def logged_lr(algo: str, seed: int, v: float) -> tuple[dict, dict, list]:
    config, summary, history = plain(algo, seed, v, lr=0.1)
    return config, summary | {"lr": 0.01}, [row | {"lr": 0.1 / row["epoch"]} for row in history]


def nested(algo: str, seed: int, v: float) -> tuple[dict, dict, list]:
    config = {"seed": seed, "optimizer": {"name": algo, "lr": 0.1}, "epochs": 2}
    return config, *plain(algo, seed, v)[1:]


def named(key: str) -> Shape:
    """Return runs whose factor has the name of one of our own columns."""

    def shape(algo: str, seed: int, v: float) -> tuple[dict, dict, list]:
        return {"seed": seed, key: algo, "epochs": 2}, *plain(algo, seed, v)[1:]

    return shape


def with_history(change: Callable[[list[dict]], list[dict]]) -> Shape:
    def shape(algo: str, seed: int, v: float) -> tuple[dict, dict, list]:
        config, summary, history = plain(algo, seed, v)
        return config, summary, change(history)

    return shape


# name -> a run's shape, the factor, words that are printed
SHAPES: dict[str, tuple[Shape, str, str]] = {
    "plain": (plain, "algo", ""),
    "a key in configuration and summary": (logged_lr, "algo", ""),
    "configuration keys of our names": (
        lambda a, s, v: plain(a, s, v, run_id="x", source="photos", url="tcp://10.0.0.1"),
        "algo",
        "",
    ),
    "a factor named source": (named("source"), "source", ""),
    "a factor named state": (named("state"), "state", ""),
    "a factor named run_id": (named("run_id"), "run_id", ""),
    "a nested configuration": (nested, "optimizer.name", ""),
    "nested and flat": (
        lambda a, s, v: (nested(a, s, v)[0] | {"optimizer.name": a}, *nested(a, s, v)[1:]),
        "optimizer.name",
        "",
    ),
    "a summary that is a mapping": (
        lambda a, s, v: (
            plain(a, s, v)[0],
            {"test/error": {"min": v, "last": v}, "val/error": {"min": v}},
            plain(a, s, v)[2],
        ),
        "algo",
        "",
    ),
    "Lightning": (lightning, "algo", ""),
    "Hugging Face": (hugging_face, "algo", ""),
    "fractions of epochs": (
        lambda a, s, v: (*plain(a, s, v)[:2], rows("epoch", [0.5, 1.0, 1.5, 2.0], v)),
        "algo",
        "",
    ),
    "steps of a simulator": (
        lambda a, s, v: (
            {"algo": a, "seed": s},
            {"test/error": v},
            rows("global_step", [1e3, 2e3, 3e6], v),
        ),
        "algo",
        "",
    ),
    "an epoch that is NaN": (
        with_history(lambda history: [*history, {"epoch": NAN, "val/error": 1}]),
        "algo",
        "dropping 12 history rows: epoch is not a finite number",
    ),
    "text in the history": (
        with_history(lambda history: [row | {"best_model": "ckpt.pt"} for row in history]),
        "algo",
        "dropping history columns that contain text: best_model",
    ),
    "booleans in the history, and a key run_id": (
        with_history(lambda history: [row | {"best": True, "run_id": 7} for row in history]),
        "algo",
        "",
    ),
    "an evaluation before training": (
        with_history(lambda history: [{"epoch": 0, "val/error": 1.0}, *history]),
        "algo",
        "",
    ),
    "a metric in rows without the epoch": (
        with_history(lambda history: [*history, {"test/f1": 0.5}]),
        "algo",
        "without epoch in the same row, so without a curve: test/f1 (12 rows)",
    ),
    "infinity in the history": (
        with_history(lambda history: [history[0] | {"val/loss": "Infinity"}, history[1]]),
        "algo",
        "",
    ),
}


def put(server: WandbServer, name: str, run: tuple[dict, dict, list], state: str) -> None:
    config, summary, history = run
    server.runs[name] = Run(
        name,
        "p",
        {"displayName": name},
        sweep="s0",
        config={key: {"value": value} for key, value in config.items()},
        summary=summary,
        history={i: json.dumps(row | {"_step": i}) for i, row in enumerate(history)},
        files={},
        state=state,
    )


@pytest.fixture
def fill(server: WandbServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable:
    """Give a function that puts a sweep of twelve runs on the server, for a client in here."""
    for key, value in (server.environment() | {"HOME": str(tmp_path)}).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("WANDB_SILENT", "true")

    def filled(shape: Shape, factor: str = "algo") -> str:
        raw = {"method": "grid", "program": "toy.py"}
        raw["metric"] = {"name": "val/error", "goal": "minimize"}
        raw["parameters"] = {factor: {"values": ["a", "b"]}, "seed": {"values": list(range(6))}}
        server.sweeps["s0"] = Sweep("s0", "p", yaml.safe_dump(raw), [])
        for (algo, seed), score in SCORES.items():
            put(server, f"{algo}{seed}", shape(algo, seed, score), "finished")
        return f"{ENTITY}/p/s0"

    return filled


def graded(source: str, out: Path, *allow: str) -> dict[str, Any]:
    """Fetch and report in this process; return the only contrast."""
    study, sources, folder = resolve(Request([source], out=out))
    print(collect(sources, folder, study, step=study.declaration.step))
    (row,) = report_module.report(study, folder, allow, draw=False)["contrasts"]
    return row


QUICK = ["a summary that is a mapping", "Lightning", "nested and flat", "a factor named state"]
QUICK += ["booleans in the history, and a key run_id", "an evaluation before training"]
QUICK += ["a metric in rows without the epoch"]


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SHAPES],
)
def test_a_sweep_of_somebody_elses_script(
    name: str, fill: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shape, factor, message = SHAPES[name]
    row = graded(fill(shape, factor), tmp_path / "out")
    assert row["difference"] == pytest.approx(-0.01)
    assert (row["n"], round(row["p"], 4)) == (6, 0.0312)
    printed = capsys.readouterr().out
    assert "12 finished, of 12 expected" in printed
    assert message in printed


def test_a_crashed_run_that_was_made_again(
    fill: Callable, server: WandbServer, tmp_path: Path
) -> None:
    source = fill(plain)
    put(server, "b3x", plain("b", 3, 0.9), "crashed")
    assert graded(source, tmp_path / "out")["difference"] == pytest.approx(-0.01)
    page = (tmp_path / "out" / "report.md").read_text()
    assert "run b3x is crashed after epoch 2 of 2; it was rerun" in page


def test_a_seed_twice_is_listed(fill: Callable, server: WandbServer, tmp_path: Path) -> None:
    source = fill(plain)
    put(server, "b3", plain("b", 2, 0.05), "finished")
    with pytest.raises(UserError) as error:
        graded(source, tmp_path / "out")
    assert "algo=b, seed=2: 2 runs: b2 (finished), b3 (finished)" in str(error.value)
    assert "algo=b, seed=3: missing" in str(error.value)
    row = graded(source, tmp_path / "out", "seeds")
    assert (row["n"], row["difference"]) == (4, pytest.approx(-0.01))


def test_a_score_that_is_nan_is_a_failed_run(fill: Callable, tmp_path: Path) -> None:
    def shape(algo: str, seed: int, v: float) -> tuple[dict, dict, list]:
        config, summary, history = plain(algo, seed, v)
        return config, {"test/error": NAN} if (algo, seed) == ("b", 3) else summary, history

    row = graded(fill(shape), tmp_path / "out")
    assert (row["n"], row["n_trained"]) == (6, 5)


def test_an_empty_sweep_and_a_server_that_refuses(
    fill: Callable, server: WandbServer, tmp_path: Path
) -> None:
    """The message gives the true reason, and earlier tables stay as they are."""
    source = fill(plain)
    graded(source, tmp_path / "out")
    before = (tmp_path / "out" / "runs.csv").read_bytes()
    runs = dict(server.runs)
    server.runs.clear()
    with pytest.raises(FetchError, match="no runs in the sweep"):
        graded(source, tmp_path / "out")
    server.runs |= runs
    server.faults.refuse = True
    with pytest.raises(FetchError, match=r"permission|on purpose|403"):
        graded(source, tmp_path / "out")
    assert server.faults.happened["refused"] > 0
    assert (tmp_path / "out" / "runs.csv").read_bytes() == before


def test_levels_of_every_kind_survive(fill: Callable, tmp_path: Path) -> None:
    levels = {"a": [64, 32], "b": None}

    def shape(algo: str, seed: int, v: float) -> tuple[dict, dict, list]:
        return {"x": levels[algo], "seed": seed, "epochs": 2}, *plain(algo, seed, v)[1:]

    source = fill(shape, "x")
    declared = tmp_path / "d.yaml"
    declared.write_text("metric: test/error\nfactors: {x: [[64, 32], null]}\n")
    out = tmp_path / "out"
    study, sources, folder = resolve(Request([f"{ENTITY}/p"], declaration=declared, out=out))
    assert sources == []
    assert study.factors == {"x": [(64, 32), None]}
    (row,) = report_module.report(study, folder, draw=False)["contrasts"]
    assert np.isclose(row["difference"], -0.01)
    assert source.endswith("s0")


def test_two_values_of_a_setting_stop_the_study(fill: Callable, tmp_path: Path) -> None:
    """As of a sweep that sets `optimizer.name` for a script that reads config["optimizer"]."""

    def shape(algo: str, seed: int, v: float) -> tuple[dict, dict, list]:
        config, *rest = nested("a", seed, v)
        return config | {"optimizer.name": algo}, *rest

    source = fill(shape, "optimizer.name")
    with pytest.raises(
        FetchError, match=r"run b\d .* has two values of optimizer.name .*: a and b"
    ):
        graded(source, tmp_path / "out")


def test_corrected_runs_are_read_again_on_request(
    fill: Callable, server: WandbServer, tmp_path: Path
) -> None:
    source, out = fill(plain), tmp_path / "out"
    before = graded(source, out)["difference"]
    for name, run in server.runs.items():
        run.summary["test/error"] += 0.02 * name.startswith("b")
    assert graded(source, out)["difference"] == before
    study, sources, _ = resolve(Request([source], out=out))
    collect(sources, out, study, fresh=True)
    (row,) = report_module.report(study, out, draw=False)["contrasts"]
    assert row["difference"] == pytest.approx(before + 0.02)


def test_another_step_reads_all_histories_again(
    fill: Callable, server: WandbServer, tmp_path: Path
) -> None:
    source, out = fill(lightning), tmp_path / "out"
    study, sources, _ = resolve(Request([source], out=out))
    collect(sources, out, study)
    assert read_tables(out)[1].attrs["axis"] == "epoch"
    collect(sources, out, study, step="trainer/global_step")
    _, history = read_tables(out)
    assert history.attrs["axis"] == "trainer/global_step"
    assert set(history["epoch"]) == {10, 20, 30}
    del server.runs["a0"]
    with pytest.raises(FetchError, match="histories of runs a0 over trainer/global_step"):
        collect(sources, out, study, step="epoch")
    collect(sources, out, study, step="epoch", prune=True)
    assert read_tables(out)[1].attrs["axis"] == "epoch"


def test_a_crashed_run_does_not_choose_the_axis(
    fill: Callable, server: WandbServer, tmp_path: Path
) -> None:
    source, out = fill(plain), tmp_path / "out"
    put(server, "b3x", (plain("b", 3, 0.9)[0], {}, [{"batch/loss": 1.0}]), "crashed")
    graded(source, out)
    assert read_tables(out)[1].attrs["axis"] == "epoch"


def test_other_runs_of_a_project_are_counted_not_listed(
    fill: Callable, server: WandbServer, tmp_path: Path
) -> None:
    """Their seeds are not expected of the study, and the way out is named."""
    fill(plain)
    for seed in range(100, 140):
        put(server, f"x{seed}", plain("other", seed, 0.5), "finished")
    declared = tmp_path / "d.yaml"
    declared.write_text("metric: test/error\nfactors: {algo: [a, b]}\n")
    asked = Request([f"{ENTITY}/p"], declaration=declared, out=tmp_path / "out")
    study, _, out = resolve(asked)
    assert study.seeds == list(range(6))
    with pytest.raises(UserError) as error:
        report_module.report(study, out, draw=False)
    lines = [line for line in str(error.value).splitlines() if "match no variant" in line]
    assert lines[0].strip().startswith("runs x100, x101, x102, x103, x104 and 35 others match no")
    assert "for x100: algo = other, expected a or b; seed = 100" in lines[0]
    assert "--filter" in str(error.value)
