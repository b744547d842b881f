"""Fill-in sweeps are written as the sweeps that they complete: nested, and each with its script."""

from pathlib import Path

import pandas as pd
import yaml

from analysis.runs import missing
from lib.spec.load import hashes_of
from lib.spec.sweep import read_sweep
from tests import factories

NESTED = """\
program: train.py
method: grid
metric: {name: test/error, goal: minimize}
parameters:
  optimizer:
    parameters:
      name: {values: [adam, sgd]}
      lr: {value: 0.1}
  betas: {values: [[0.9, 0.99]]}
  seed: {values: [0, 1, 2, 3, 4, 5]}
"""


def rows(cells: list[dict], lost: str) -> pd.DataFrame:
    """Return a table of runs of the cells, without run ``lost``."""
    runs = [
        factories.run_row(f"r{i}", c, {"test/error": 0.1 + i / 99}) for i, c in enumerate(cells)
    ]
    table = factories.runs_table(runs)
    return table[table["run_id"] != lost]


def history(runs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"run_id": runs["run_id"], "epoch": 1, "test/error": 0.5})


def test_nested_settings_stay_nested(tmp_path: Path) -> None:
    """A script reads config["optimizer"]["name"], not config["optimizer.name"]."""
    path = tmp_path / "s.yaml"
    path.write_text(NESTED)
    runs = rows(read_sweep(path).grid(), "r7")
    data = factories.data(factories.study(path), runs, history(runs), folder=tmp_path)
    (written,) = missing.write(data)
    sweep = read_sweep(written)
    assert sweep.nested(sweep.grid()[0]) == {
        "optimizer": {"name": "sgd", "lr": 0.1},
        "betas": [0.9, 0.99],
        "seed": 1,
    }
    original = read_sweep(path)
    assert sweep.grid() == [cell for cell in original.grid() if cell not in original.grid()[:7]][:1]


def test_a_level_that_is_a_list_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(NESTED.replace("[[0.9, 0.99]]", "[[0.9, 0.99], [0.8, 0.9]]"))
    cells = read_sweep(path).grid()
    runs = rows(cells, "r13")
    data = factories.data(factories.study(path), runs, history(runs), folder=tmp_path)
    (written,) = missing.write(data)
    assert read_sweep(written).grid() == [cells[13]]


def test_a_missing_run_of_pooled_sweeps_keeps_its_own_script(tmp_path: Path) -> None:
    text = NESTED.replace("values: [adam, sgd]", "value: {name}").replace("0.1", "{lr}")
    for name, lr in (("adam", 0.1), ("sgd", 0.01)):
        one = (
            text.replace("{name}", name).replace("{lr}", str(lr)).replace("train.py", f"{name}.py")
        )
        (tmp_path / f"{name}.yaml").write_text(one)
    (tmp_path / "studies").mkdir()
    arms = {name: {"optimizer.name": name} for name in ("adam", "sgd")}
    declared = {"metric": "test/error", "sweeps": ["adam", "sgd"], "arms": arms}
    declared["free"] = ["optimizer.lr"]
    (tmp_path / "studies" / "both.yaml").write_text(yaml.safe_dump(declared))
    study = missing_study(tmp_path)
    cells = [cell for name in arms for cell in read_sweep(tmp_path / f"{name}.yaml").grid()]
    runs = rows(cells, "r8")
    data = factories.data(study, runs, history(runs), folder=tmp_path)
    (written,) = missing.write(data)
    raw = yaml.safe_load(written.read_text())
    assert raw["program"] == "sgd.py"
    (cell,) = read_sweep(written).grid()
    assert (cell["optimizer.name"], cell["optimizer.lr"], cell["seed"]) == ("sgd", 0.01, 2)


def missing_study(folder: Path) -> object:
    from lib.spec.load import load_study

    return load_study("both", factories.places(folder))


def test_free_settings_of_pooled_sweeps_are_no_factors(tmp_path: Path) -> None:
    for name in ("one", "two"):
        text = NESTED.replace(
            "seed: {values: [0, 1, 2", f"out: {{value: {name}}}\n  seed: {{values: [0, 1, 2"
        )
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "studies").mkdir()
    declared = {"metric": "test/error", "sweeps": ["one", "two"], "free": ["out"]}
    (tmp_path / "studies" / "both.yaml").write_text(yaml.safe_dump(declared))
    assert missing_study(tmp_path).factors == {"optimizer.name": ["adam", "sgd"]}


def test_a_nested_config_belongs_to_its_study(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(NESTED)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "s.yaml").write_text("metric: test/error\n")
    config = {"optimizer": {"name": "sgd", "lr": 0.1}, "betas": [0.9, 0.99], "seed": 3}
    found = hashes_of("train.py", config, factories.places(tmp_path))
    assert found.startswith("s:")
    flat = {"optimizer.name": "sgd", "optimizer.lr": 0.1, "betas": [0.9, 0.99], "seed": 3}
    assert hashes_of("train.py", flat, factories.places(tmp_path)) == found
