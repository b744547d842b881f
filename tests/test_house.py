"""The rules of the house: who imports whom, what a sweep must be, what adding something touches."""

import ast
import importlib
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from lib.spec.declaration import StudyError
from lib.spec.load import load_study
from lib.spec.metric_declaration import metric
from lib.spec.study import Places
from lib.spec.sweep import read_sweep
from lib.tracking.processes import run_id
from lib.training import config
from tests import factories
from tests.conftest import ROOT, call

SOURCES = [p for folder in ("lib", "analysis") for p in sorted((ROOT / folder).rglob("*.py"))]
SCRIPTS = sorted(ROOT.glob("train_*.py"))
WANDB_DOORS = ("lib/tracking/", "analysis/runs/", "analysis/wandb_report.py")
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
STUDIES = sorted(Places().studies.glob("*.yaml"))
LAYERS = ("runs", "statistics", "figures", "pages")  # each imports from those before it
COMMANDS = sorted(path.stem for path in (ROOT / "analysis").glob("[a-z]*.py"))


def module_name(path: Path) -> str:
    """Return a file's dotted name."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports, anywhere in it; project modules with their names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


def test_runs_of_two_sweeps_do_not_meet_in_one_project() -> None:
    """A run's id is a hash of its settings; in one project, two sweeps must not share it."""
    found: dict[tuple, str] = {}
    for path in sorted((ROOT / "sweeps").glob("*.yaml")):
        sweep = read_sweep(path)
        for cell in sweep.grid():
            key = (sweep.raw.get("project") or sweep.name, run_id(sweep, cell))
            assert key not in found, (path, found.get(key))
            found[key] = path.name


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=module_name)
def test_imports_go_one_way(path: Path) -> None:
    found, name = imports(path), module_name(path)
    tops = {one.split(".")[0] for one in found}
    scripts = {script.stem for script in SCRIPTS}
    assert not tops & scripts, "nothing imports a script by name"
    if name.startswith("lib"):
        assert "analysis" not in tops
    if name.startswith("lib.spec"):
        assert not tops & {"torch", "torchvision", "wandb"}
        assert not {one for one in found if re.match(r"lib\.(?!spec)", one)}
    if name.startswith("analysis"):
        assert not tops & {"torch", "torchvision"}
        assert not {one for one in found if re.match(r"lib(\.(?!spec).*)?$", one)}
        layer = name.partition(".")[2].partition(".")[0]
        if layer in LAYERS:
            above = [*LAYERS[LAYERS.index(layer) + 1 :], *COMMANDS]
            above = tuple(f"analysis.{one}" for one in above)
            assert not {one for one in found if one.startswith(above)}
    if "wandb" in tops:
        assert path.relative_to(ROOT).as_posix().startswith(WANDB_DOORS)


def test_no_circles() -> None:
    names = {module_name(path) for path in SOURCES}
    graph = {module_name(path): imports(path) & names for path in SOURCES}
    while graph:
        leaves = {name for name, needs in graph.items() if not (needs - {name}) & set(graph)}
        assert leaves, f"modules that import each other in a circle: {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in leaves}


def test_no_analysis_command_loads_torch() -> None:
    """In a fresh process; importing them all takes seconds, with torch it would be twice that."""
    names = ", ".join(f"analysis.{name}" for name in COMMANDS)
    code = f"import sys, {names}; print({{'torch', 'torchvision', 'wandb'}} & set(sys.modules))"
    assert call("-c", code).stdout == "set()\n"


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_sweeps_are_valid_and_as_large_as_they_say(path: Path) -> None:
    sweep = read_sweep(path)
    script = importlib.import_module(Path(sweep.program).stem)
    cells = sweep.grid()
    for cell in cells:
        config.parse(script.Config, cell)
    text = path.read_text()
    number = re.search(r"# Runs: .*= (\d+),", text) or re.search(r"# Runs: 1 variant x (\d+)", text)
    assert int(number[1]) == len(cells), "the header's number of runs is wrong"
    assert text.startswith("# Question: ")
    assert "# Cost: " in text
    known = {"program", "method", "project", "name", "command", "metric", "parameters"}
    assert set(sweep.raw) <= known
    assert sweep.raw["name"] == path.stem
    assert "${args}" not in str(sweep.raw["command"])
    assert load_study(path.stem).metric.goal in ("minimize", "maximize")


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_every_declaration_fits_its_sweep(path: Path) -> None:
    assert load_study(path.stem).declared


def test_a_new_factor_needs_the_script_and_the_sweep_only(tmp_path: Path) -> None:
    """A field in Config and a list in the YAML; the analysis names and tests it by itself."""
    source = (ROOT / "tests" / "fakes" / "stub.py").read_text()
    script = tmp_path / "script.py"
    script.write_text(source.replace("    lr: Pos", "    warm_up: bool = False\n    lr: Pos"))
    path = factories.grid(tmp_path / "new.yaml", {"warm_up": [False, True]}, 6)
    path.write_text(path.read_text().replace("train_gtsrb.py", str(script)))
    scores = {(on,): [0.1 - 0.02 * on + 0.001 * s for s in range(6)] for on in (False, True)}
    folder = factories.write_study(tmp_path / "s", *factories.scored(path, scores))
    (row,) = factories.report(folder, path)["contrasts"]
    assert (row["name"], row["grade"]) == ("warm_up", "preliminary_support")
    assert (
        "warm_up = True gives a lower (better) test error than warm_up = False" in row["sentence"]
    )


RETURN = {
    "key": "eval/return_mean",
    "label": "episodic return",
    "goal": "maximize",
    "decimals": 1,
    "bounds": [-1000, 5000],
}


def test_a_new_metric_needs_the_declaration_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Through report, figures, LaTeX, plan and calibrate; a higher return is better."""
    path = factories.grid(tmp_path / "rl.yaml", {"algo": ["ppo", "sac"]}, 6, "train/x")
    declared = {"metric": RETURN, "smallest_effect": 100.0}
    rng = np.random.default_rng(0)
    scores = {("ppo",): (rng.normal(-200, 20, 6)).tolist()}
    scores[("sac",)] = (rng.normal(2500, 20, 6)).tolist()
    runs, history = factories.scored(path, scores, "eval/return_mean")
    folder = factories.write_study(tmp_path / "s", runs, history)
    (row,) = factories.report(folder, path, draw=True, **declared)["contrasts"]
    assert row["grade"] == "meaningful"
    said = (
        "algo = sac gives a higher (better) episodic return than algo = ppo, by more than 100.0: "
    )
    assert row["sentence"].startswith(f"{said}+2,697.4 [95 % CI +")
    assert "percentage" not in (folder / "report.md").read_text()
    assert "Episodic return per variant" in (folder / "tables.tex").read_text()
    study = factories.study(path, **declared)
    assert study.metric.worst_value == -1000
    found = ["x", str(path), "--study", str(study.places.declaration("rl"))]
    plan = importlib.import_module("analysis.plan")
    monkeypatch.setattr("sys.argv", [*found, "--pilot", str(folder), "--effect", "150"])
    plan.main()
    assert "power for a main effect of 150.0: 1.00" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*found, "--studies", "5", "--seeds", "7"])
    importlib.import_module("analysis.calibrate").main()
    assert "| 7 | no effect | " in capsys.readouterr().out
    runs.loc[0, "summary.eval/return_mean"] = 9000.0
    factories.write_study(folder, runs, history)
    assert "9000 is outside the metric's bounds" in factories.refusal(folder, path, **declared)


SGD = {"batch_norm": True, "optimizer": "sgd"}


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"smallest_effect": 1.5}, "must be smaller than the range of test/error"),
        ({"metric": {"key": "test/error", "goal": "maximize"}}, "One of them is wrong"),
        ({"labels": {"momentum": "m"}}, "labels: 'momentum' not found in this study"),
        ({"labels": {"batch_norm=maybe": "m"}}, "Did you mean"),
        ({"margin": 1}, "margin: unknown key"),
        ({"free": "data"}, "free = 'data'"),
        ({"factors": {"lr": [1]}}, "factors.lr is not a parameter of the sweep"),
        ({"factors": {"optimizer": ["adam", "lion"]}}, "= 'lion' is not a level in the sweep"),
        ({"factors": {"optimizer": ["adam", "sgd"]}}, "varies batch_norm, which must be declared"),
        ({"metric": "test/novelty"}, None),
        ({"metric": {"key": "test/score"}}, None),
        (
            {"metric": {"key": "x", "bounds": [1, 0]}},
            "bounds must be [lower, higher], got [1.0, 0.0]",
        ),
        ({"metric": {"key": "x", "scale": "logit"}}, "scale logit needs bounds"),
        ({"metric": {"name": "x"}}, "metric: key"),
        ({"seed": "replicate"}, "do not include `replicate`"),
        ({"score": "median"}, "unknown score 'median'"),
        ({"alpha": "0.05"}, "alpha = '0.05'"),
        ({"primary": ["optimizer", "optimizer"]}, "each name may be listed once"),
        ({"factors": {"batch_norm": [False, False], "optimizer": ["sgd"]}}, "equal levels"),
        ({"arms": {"a": {"batch_norm": True}, "b": {"optimizer": "sgd"}}}, "the same keys"),
        ({"arms": {"a": SGD, "b": SGD}}, "at least two arms, all different"),
        ({"arms": {"a": SGD}}, "at least two arms"),
        (
            {"score": {"at_best": "val/accuracy"}},
            "the same metric on validation data, such as val/err",
        ),
        ({"score": {"at_best": "test/error"}}, "selects the epoch by the score that it reports"),
    ],
)
def test_declarations_are_strict(tmp_path: Path, declared: dict, words: str | None) -> None:
    path = factories.write_sweep(tmp_path / "s.yaml")
    if words is None:  # the goal is the sweep's
        assert factories.study(path, **declared).metric.goal == "minimize"
        return
    with pytest.raises(StudyError) as error:
        factories.study(path, **declared)
    assert words in str(error.value)


def test_labels_may_be_spelled_as_yaml_or_python(tmp_path: Path) -> None:
    path = factories.write_sweep(tmp_path / "s.yaml")
    study = factories.study(path, labels={"batch_norm=true": "BN", "batch_norm=False": "plain"})
    assert study.variant_label((True, "sgd")) == "BN, optimizer = sgd"
    assert study.level_label("batch_norm", False) == "plain"


def test_metrics_know_their_numbers() -> None:
    error, dice = metric("test/error"), metric("val_dice")
    assert (error.show(0.01384), error.show_signed(-0.0138), error.axis) == (
        "1.38",
        "−1.38",
        "Test error (%)",
    )
    assert error.show_amount(0.005) == "0.50 percentage points"
    assert (error.show_quoted(0.0029), error.quoted_axis) == ("99.71", "Test accuracy (%)")
    assert (dice.title, dice.show(0.98), dice.sign) == ("validation Dice coefficient", "0.9800", 1)
    np.testing.assert_allclose(error.rescale(np.array([0.01, 0.1])), [0, 1])
    np.testing.assert_allclose(dice.rescale(np.array([0.5])), [0])
    assert metric("loss", "minimize").rescale(np.array([1.0])) is None
    percent = metric({"key": "test/acc", "bounds": [0, 100], "unit": "%"})
    assert (percent.show(93.217), percent.goal) == ("93.22", "maximize")
    assert (percent.scale, percent.worst_value) == ("identity", 0)


def test_no_source_file_is_ignored_by_git() -> None:
    """Folders of ours are called data and runs, as what git is to ignore is."""
    words = ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "*.py"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    ours = ("lib/", "analysis/", "tests/", "train_", "sweeps/")
    assert [name for name in done.stdout.splitlines() if name.startswith(ours)] == []


def test_every_module_can_be_imported() -> None:
    """Also those that only `make bench` uses."""
    for path in (ROOT / "tests" / "bench").glob("[a-z]*.py"):
        importlib.import_module(f"tests.bench.{path.stem}")
