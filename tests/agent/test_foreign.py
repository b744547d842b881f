"""Scripts that know nothing of this project, under the local agent as under W&B's."""

import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps import utils as wandb_utils

from analysis.runs.tables import read_tables
from lib.spec.command import check_command, command_line, literal_flags
from lib.spec.sweep import SweepError, read_sweep
from lib.tracking import processes, run_names
from tests.conftest import ROOT, call, command
from tests.fakes.wandb_cli import agents, ended, start_sweep
from tests.fakes.wandb_server import WandbServer

# As people write them: argparse and wandb, values on the command line.
SCRIPT = """\
import argparse, json, sys
import wandb

if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
    values = json.loads(sys.argv[1])
else:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=9.0)
    parser.add_argument("--seed", type=int, default=9)
    parser.add_argument("--warmup", default="unset", nargs="?", const="yes")
    words = [w if w.startswith("-") or "=" not in w else f"--{w}" for w in sys.argv[1:]]
    values = vars(parser.parse_args(words))
run = wandb.init(config=values)
for epoch in (1, 2):
    run.log({"epoch": epoch, "val/error": values["lr"] / epoch + 0.001 * values["seed"]})
run.summary["test/error"] = values["lr"] / 2 + 0.001 * values["seed"]
run.finish()
"""
COMMANDS = [
    None,
    ["${env}", "${interpreter}", "${program}", "${args}"],
    ["${env}", "${interpreter}", "${program}", "${args_no_hyphens}"],
    ["${env}", "${interpreter}", "${program}", "${args_no_equals}"],
    ["${env}", "${interpreter}", "${program}", "${args_no_boolean_flags}"],
    ["${interpreter}", "${program}", "${args_json}"],
    ["${interpreter}", "${program}", "${args_json_file}"],
    ["${interpreter}", "${program}", "${args_append_hydra}", "${args_override_hydra}"],
    ["${env}", "${interpreter}", "${program}", "--data", "/x/${envvar:PLACE}/y", "--T_max", 5],
    ["${envvar:NOWHERE}", "--flag"],
]
PARAMETERS = {
    "lr": {"values": [0.1, 1.0e-3]},
    "seed": {"min": 0, "max": 2},
    "warm": {"values": [True, False]},
    "noise": {"values": [None, 0.05]},
    "model.decoder": {"values": [[64, 32], [128]]},
    "optimizer": {"parameters": {"momentum": {"value": 0.9}, "name": {"values": ["a b", "007"]}}},
}


def theirs(sweep: dict[str, Any], values: dict[str, Any], json_file: str) -> list[str]:
    """Return the command line that W&B's agent makes, by its own functions."""
    words = wandb_utils.create_sweep_command(list(sweep.get("command") or []) or None)
    given = {"args": {name: {"value": value} for name, value in values.items()}}
    macros = wandb_utils.create_sweep_command_args(given)
    macros |= {"interpreter": ["python"], "program": [sweep["program"]], "env": ["/usr/bin/env"]}
    macros["args_json_file"] = [json_file]
    found = []
    for word in map(str, words):
        whole = word.startswith("${") and word.endswith("}")
        found += macros.get(word[2:-1]) or [] if whole else [word]
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_is_wandbs(
    command: list | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLACE", "somewhere")
    raw = {"program": "x.py", "method": "grid", "parameters": PARAMETERS}
    raw |= {"command": list(command)} if command else {}
    sweep = read_sweep(raw)
    check_command(sweep)
    for cell in sweep.grid()[::7]:
        own = command_line(sweep, cell, tmp_path / "p.json")
        nested = sweep.nested(cell)
        assert nested["optimizer"]["momentum"] == 0.9
        assert "model.decoder" in nested
        expected = theirs(raw, nested, str(tmp_path / "p.json"))
        python = [word for word in own if Path(word).name.startswith("python")]
        own = ["python" if word in python else word for word in own]
        assert own == expected


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"command": "python x.py"}, "command must be a list of words, got 'python x.py'"),
        ({"command": ["${python}"]}, "command has the unknown macro ${python}"),
        ({"command": [["a"]]}, "each word of command must be a string or number"),
        ({"program": ""}, "`program:` is missing"),
        ({"program": None, "command": []}, "`program:` is missing"),
    ],
)
def test_commands_that_cannot_be_are_refused(raw: dict, message: str) -> None:
    base = {"program": "x.py", "method": "grid", "parameters": {"a": {"value": 1}}}
    with pytest.raises(SweepError) as error:
        check_command(read_sweep(base | raw))
    assert message in str(error.value)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Give a folder with somebody's script."""
    (tmp_path / "train.py").write_text(SCRIPT)
    return tmp_path


def write(folder: Path, name: str, **keys: Any) -> Path:
    parameters = {"lr": {"values": [0.1, 0.01]}, "seed": {"values": [0, 1]}}
    raw = {"program": str(folder / "train.py"), "method": "grid", "parameters": parameters}
    raw |= {"metric": {"name": "val/error", "goal": "minimize"}} | keys
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def test_a_foreign_script_runs_and_is_fetched(project: Path, offline: dict[str, str]) -> None:
    """Success is exit code 0; a second call has nothing to do; a lost run starts again."""
    sweep, out = write(project, "plain"), project / "out"
    words = ("-m", "lib.agent", sweep, "--workers", "2", "--out", out)
    done = call(*words, env=offline)
    assert "4 of 4 runs finished" in done.stdout, done.stdout + done.stderr
    last = shlex.split(done.stdout.splitlines()[-1])
    assert last[0] == "next:"
    assert call(*last[2:], env=offline).returncode == 0  # as printed, but for the interpreter
    assert (out / "analysis" / "report.html").exists()
    before = sorted(out.glob("wandb/offline-run-*"))
    assert "4 of 4 runs finished" in call(*words, env=offline).stdout
    assert sorted(out.glob("wandb/offline-run-*")) == before
    fetch = ("-m", "analysis.fetch", out, "--sweep", sweep, "--out", project / "tables")
    assert call(*fetch, env=offline).returncode == 0
    runs, _ = read_tables(project / "tables")
    scores = dict(
        zip(
            zip(runs["config.lr"], runs["config.seed"], strict=True),
            runs["summary.test/error"],
            strict=True,
        )
    )
    assert scores == {(lr, s): lr / 2 + 0.001 * s for lr in (0.1, 0.01) for s in (0, 1)}
    text = (project / "train.py").read_text()
    (project / "train.py").write_text(f"class Config:\n    width: int = 8\n\n\n{text}")
    lost = runs["run_id"][0]
    shutil.rmtree(next(out.glob(f"wandb/offline-run-*-{lost}")))
    done = call(*words, env=offline)
    assert f"restarting 1 unfinished run from the beginning: {lost}" in done.stdout
    assert "4 of 4 runs finished" in done.stdout


@pytest.mark.parametrize(
    "form",
    [
        "${args_no_hyphens}",
        pytest.param("${args_json}", marks=pytest.mark.slow),
        pytest.param("${args_no_equals}", marks=pytest.mark.slow),
    ],
)
def test_each_form_of_arguments_reaches_the_script(
    project: Path, offline: dict[str, str], form: str
) -> None:
    one = {"lr": {"value": 0.5}, "seed": {"values": [3]}}
    command = ["${env}", "python", "${program}", form]
    sweep = write(project, "form", parameters=one, command=command)
    done = call("-m", "lib.agent", sweep, "--out", project / "out", env=offline)
    assert "1 of 1 run finished" in done.stdout, done.stdout
    fetch = ("-m", "analysis.fetch", project / "out", "--sweep", sweep, "--out", project / "t")
    assert call(*fetch, env=offline).returncode == 0
    runs, _ = read_tables(project / "t")
    assert runs["summary.test/error"].tolist() == [0.253]


FORMS = [
    None,
    "${args}",
    "${args_no_hyphens}",
    "${args_no_equals}",
    "${args_no_boolean_flags}",
    "${args_json}",
]


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_both_agents_give_a_script_the_same(
    project: Path,
    server: WandbServer,
    online: dict[str, str],
    offline: dict[str, str],
    form: str | None,
) -> None:
    """W&B's agent against the stand-in, and the local one: the same scores for the same YAML."""
    command = {"command": ["${env}", "python", "${program}", form]} if form else {}
    sweep = write(project, "form", project="p", **command)
    path = start_sweep(online, server, sweep)
    with agents(online, path) as one:
        ended(one)
    ours = call("-m", "lib.agent", sweep, "--out", project / "out", env=offline)
    assert "4 of 4 runs finished" in ours.stdout, ours.stdout
    found = []
    for source, env in ((path, online), (project / "out", offline)):
        out = project / f"tables{len(found)}"
        fetch = ("-m", "analysis.fetch", source, "--sweep", sweep, "--out", out)
        assert call(*fetch, env=env).returncode == 0
        runs, _ = read_tables(out)
        columns = ["config.lr", "config.seed", "summary.test/error"]
        found.append(sorted(runs[columns].itertuples(index=False, name=None)))
    assert found[0] == found[1]
    assert found[0] == [(lr, s, lr / 2 + 0.001 * s) for lr in (0.01, 0.1) for s in (0, 1)]


def test_a_script_that_logs_nothing_has_failed(project: Path, offline: dict[str, str]) -> None:
    (project / "train.py").write_text("print('done')\n")
    one = {"seed": {"values": [3]}}
    done = call(
        "-m", "lib.agent", write(project, "s", parameters=one), "--out", project / "o", env=offline
    )
    assert done.returncode == 1
    assert (
        f"exited with code 0 but wrote no W&B file below {project / 'o'}. Does the script call "
        "wandb.init(), without `dir=` and `mode=`?" in done.stdout
    )
    assert os.path.exists(project / "o")


def test_runs_of_a_killed_agent_are_waited_for(tmp_path: Path, offline: dict[str, str]) -> None:
    """Two processes never write the same run, also if the script has no lock of its own."""
    events = tmp_path / "events.txt"
    (tmp_path / "train.py").write_text(
        "import time\n"
        f"with open({str(events)!r}, 'a', buffering=1) as file:\n"
        "    print('start', file=file)\n"
        "    time.sleep(4)\n"
        "    print('end', file=file)\n"
    )
    sweep, out = write(tmp_path, "orphans", parameters={"seed": {"values": [0]}}), tmp_path / "out"
    words = ("-m", "lib.agent", sweep, "--workers", "2", "--out", out)
    agent = subprocess.Popen(command(*words), cwd=ROOT, env=offline)
    while not events.exists() or "start" not in events.read_text():
        assert agent.poll() is None
        time.sleep(0.02)
    agent.kill()
    agent.wait()
    done = call(*words, env=offline)
    assert events.read_text().split() == ["start", "end", "start", "end"]
    assert f"runs that a killed agent started in {out} are still running" in done.stdout
    assert "Waiting" not in call(*words, env=offline).stdout


def test_runs_that_choose_their_own_folder_are_brought_in(
    tmp_path: Path, offline: dict[str, str]
) -> None:
    """Lightning passes dir="." to wandb.init; W&B's agent does not mind."""
    (tmp_path / "train.py").write_text(SCRIPT.replace("init(config", 'init(dir=".", config'))
    sweep = write(tmp_path, "own", parameters={"lr": {"value": 0.1}, "seed": {"values": [0]}})
    words = command("-m", "lib.agent", sweep, "--out", tmp_path / "out")
    env = offline | {"PYTHONPATH": str(ROOT)}
    for _ in range(2):  # the second call has nothing to do
        done = subprocess.run(
            words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert "1 of 1 run finished" in done.stdout, done.stdout + done.stderr
        assert len(list((tmp_path / "out").glob("wandb/offline-run-*"))) == 1
        assert not list(tmp_path.glob("wandb/offline-run-*"))
        assert "has changed since" not in done.stdout
    (tmp_path / "train.py").write_text("print('corrected')")
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert "train.py has changed since 1 run finished: " in done.stdout
    assert "1 of 1 run finished" in done.stdout


def test_a_second_ctrl_c_ends_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = subprocess.Popen(["bash", "-c", "trap '' TERM; echo ready; sleep 60"], stdout=-1)
    assert deaf.stdout.readline() == b"ready\n"
    wait = subprocess.Popen.wait

    def pressed(process: subprocess.Popen, timeout: float | None = None) -> int:
        if timeout is not None:
            raise KeyboardInterrupt
        return wait(process)

    monkeypatch.setattr(subprocess.Popen, "wait", pressed)
    with pytest.raises(KeyboardInterrupt):
        processes._stop([deaf])
    assert deaf.poll() is not None


def test_settings_in_the_command_belong_to_the_recipe(tmp_path: Path) -> None:
    """Else a sweep with "--epochs=4" could not be continued: the script's default is another."""
    words = ["${env}", "${interpreter}", "${program}", "--epochs=4", "--batch-size", 256]
    words += ["--nesterov", "--data=${envvar:DATA}", "${args}"]
    sweep = read_sweep(write(tmp_path, "flags", command=words))
    assert literal_flags(sweep) == {"epochs": 4, "batch_size": 256}


def test_the_seeds_of_a_variant_share_a_group() -> None:
    found = run_names.names(["lr", "random_seed"], {"lr": 0.1, "random_seed": 3}, "s")
    assert found == ("lr0.1-seed3", "lr=0.1", "s")
    found = run_names.names(["data_seed", "seed"], {"data_seed": 1, "seed": 3}, "s")
    assert found == ("ds1-seed3", "data_seed=1", "s")
