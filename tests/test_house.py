"""The rules of the house: who imports whom, how long a script may be, what a sweep must be."""

import ast
import importlib
import re
from pathlib import Path

import pytest
import yaml

from analysis import grid
from lib import agent
from lib.training import config
from tests.conftest import ROOT

SOURCES = [p for folder in ("lib", "analysis") for p in sorted((ROOT / folder).glob("*.py"))]
SCRIPTS = sorted(ROOT.glob("train_*.py"))
WANDB_DOORS = ("lib/tracking.py", "lib/media.py", "analysis/fetch.py", "analysis/offline.py")
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports, anywhere in it; project modules with their names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=lambda p: p.name)
def test_imports_go_one_way(path: Path) -> None:
    tops = {name.split(".")[0] for name in imports(path)}
    if path.parent.name == "lib":
        assert not tops & {"analysis", *(script.stem for script in SCRIPTS)}
    if path.parent.name == "analysis":
        assert not tops & {"lib", "torch", "torchvision", *(script.stem for script in SCRIPTS)}
        own = {name for name in imports(path) if name.startswith(("analysis.", "analysis"))}
        if path.stem in ("grid", "rank_tests"):
            assert not own - {"analysis.grid"}
    if "wandb" in tops:
        assert path.relative_to(ROOT).as_posix() in WANDB_DOORS


@pytest.mark.parametrize("folder", ["lib", "analysis"])
def test_no_circles(folder: str) -> None:
    graph = {
        path.stem: {name.split(".")[1] for name in imports(path) if name.startswith(f"{folder}.")}
        & {p.stem for p in SOURCES}
        for path in SOURCES
        if path.parent.name == folder
    }
    while graph:
        leaves = {name for name, needs in graph.items() if not needs & set(graph)}
        assert leaves, f"modules that import each other in a circle: {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in leaves}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_scripts_are_short_and_their_functions_too(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 200
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 65, f"{node.name} is too long to read at once"


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_sweeps_are_valid_and_as_large_as_they_say(path: Path) -> None:
    sweep = agent.read_sweep(path)
    script = importlib.import_module(Path(sweep["program"]).stem)
    cells = agent.cells(sweep)
    for cell in cells:
        config.parse(script.Config, cell)
    text = path.read_text()
    assert re.search(rf"# Runs: .*= {len(cells)},", text), "the header's number of runs is wrong"
    assert text.startswith("# Question: ")
    assert "# Cost: " in text
    assert set(sweep) <= {"program", "method", "project", "name", "command", "metric", "parameters"}
    assert sweep["name"] == path.stem
    assert "${args}" not in str(sweep["command"])
    study = grid.load_study(grid.load_sweep(path))
    assert study.direction in ("lower", "higher")


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_agent_and_analysis_read_the_same_grid(path: Path) -> None:
    sweep = grid.load_sweep(path)
    planned = {
        tuple(
            sorted(
                (dict(zip(sweep.factors, cell, strict=True)) | sweep.fixed | {"seed": s}).items()
            )
        )
        for cell in sweep.cells
        for s in sweep.seeds
    }
    assert planned == {tuple(sorted(c.items())) for c in agent.cells(agent.read_sweep(path))}


def test_the_grids_order_is_wandbs() -> None:
    sweep = {
        "parameters": {"b": {"values": [1, 2]}, "a": {"values": ["x", "y"]}, "c": {"value": 0}}
    }
    order = [(cell["a"], cell["b"]) for cell in agent.cells(sweep)]
    assert order == [("x", 1), ("x", 2), ("y", 1), ("y", 2)]


@pytest.mark.parametrize("path", sorted(grid.STUDIES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_study_has_its_sweep(path: Path) -> None:
    sweep = grid.load_sweep(ROOT / "sweeps" / path.name)
    study = grid.load_study(sweep)
    factors = yaml.safe_load(path.read_text()).get("labels", {})
    assert {name.split("=")[0] for name in factors} <= {*sweep.factors, sweep.name}
    assert study.question
