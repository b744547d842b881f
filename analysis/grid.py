"""What was planned: the sweep YAML's cells and seeds, and what the study declares beforehand."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

STUDIES = Path(__file__).parent / "studies"
SEED = "seed"
SPLITTING = ("fold", "val_fraction")  # factors that change the split, and mean to
REFERENCE = "reference"  # stands for the factor where runs are compared with a published score

# Which of a run's epochs gives its score; none of them looks at the test set.
RULES = {
    "last": "last epoch",
    "best_on_validation": "epoch best on validation",
    "mean_last_5": "mean of the last five epochs",
}
SUFFIXES = {"last": "", "best_on_validation": "_at_best_val", "mean_last_5": "_mean_last_5"}


class GridError(ValueError):
    """A sweep or study file that cannot be analysed; says what is wrong and what is allowed."""


@dataclass(frozen=True)
class Sweep:
    """A grid sweep: ``factors`` (name -> levels, in the YAML's order), ``seeds``, the rest fixed.

    A factor is a parameter with several values, other than the seed.
    """

    name: str
    factors: dict[str, list[Any]]
    seeds: list[int]
    fixed: dict[str, Any]
    metric: dict[str, str]

    @property
    def cells(self) -> list[tuple]:
        """Every combination of levels, in the order of ``factors``."""
        return list(itertools.product(*self.factors.values()))

    def label(self, cell: tuple) -> str:
        """Name a cell: ``batch_norm=True, optimizer=sgd``; without factors by the sweep's name."""
        return ", ".join(f"{n}={v}" for n, v in zip(self.factors, cell, strict=True)) or self.name


def _each_once(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("a contrast stands twice, which would count it twice in Holm's correction")
    return names


class Study(BaseModel):
    """What a study declares before it runs; one YAML per study in analysis/studies/."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    question: str = ""
    # Summary key of the score at the last epoch; fractions only: a worst value exists, and a logit.
    metric: Annotated[str, Field(pattern=r"^(test|val)/(error|accuracy|jaccard|dice)$")]
    direction: Literal["lower", "higher"]  # which is better
    score_rule: Literal["last", "best_on_validation", "mean_last_5"] = "last"
    smallest_effect: Annotated[float, Field(gt=0)] | None = None  # in the metric's own unit
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05  # family-wise, two-sided
    # Names of the primary contrasts; None: all of them.
    family: Annotated[list[str], Field(min_length=1), AfterValidator(_each_once)] | None = None
    data_source: str = ""  # citation of the images that a figure shows
    tuning: list[str] = []  # the sweeps in which its learning rates were chosen, on validation
    class_names: Literal["gtsrb"] | None = None  # whose classes the labels count; None: numbers
    threshold: float | None = None  # of the validation metric, for the figure of epochs until it
    folds: str | None = None  # the sweep that tests every radiograph, for the published table
    labels: dict[str, str] = {}  # words for "factor" and "factor=level" in sentences and figures
    # Published scores by their words, in the metric's unit, for a sweep that varies only the seed.
    references: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    # Columns of scores of the same runs, with words, each with one step more of the recipe than the
    # one before; the last is the metric.
    steps: dict[str, str] = {}
    declared: bool = False  # set by load_study: whether a file declared this before the runs

    @property
    def percent(self) -> bool:
        """Whether people are shown the metric in percent: errors are, Jaccard and Dice are not."""
        return self.metric.endswith("error")

    @property
    def quantity(self) -> str:
        """The metric's quantity in words: error, Jaccard index, Dice coefficient."""
        name = self.metric.split("/")[-1]
        return {"jaccard": "Jaccard index", "dice": "Dice coefficient"}.get(name, name)

    def score_column(self, rule: str | None = None) -> str:
        """Return the summary key that holds the score by ``rule`` (default: the declared one)."""
        return self.metric + SUFFIXES[rule or self.score_rule]

    def level_label(self, factor: str, level: Any) -> str:
        """Return the words for a level; a reference is its own."""
        if factor == REFERENCE:
            return self.labels.get(level, level)
        return self.labels.get(f"{factor}={level}", f"{factor} = {level}")

    def factor_label(self, factor: str) -> str:
        """Return the words for a factor."""
        return self.labels.get(factor, factor)


def load_sweep(path: str | Path) -> Sweep:
    """Read the plan from a sweep YAML.

    Raises:
        GridError: when it is no grid over listed values, lacks a seed list, or repeats a value.
    """
    path = Path(path)
    raw = _read_yaml(path)
    parameters = raw.get("parameters")
    if raw.get("method") != "grid" or not isinstance(parameters, dict):
        raise GridError(
            f"{path}: the analysis knows what to expect only from `method: grid` with `parameters`"
        )
    lists, fixed = {}, {}
    for name, parameter in parameters.items():
        if not isinstance(parameter, dict) or not {"value", "values"} & set(parameter):
            raise GridError(f"{path}: {name} needs `value:` or a list `values:`")
        values = parameter.get("values", [parameter.get("value")])
        if not isinstance(values, list) or not values:
            raise GridError(f"{path}: {name} needs a list with a value in it, not {values!r}")
        if not all(isinstance(value, str | int | float) for value in values):
            raise GridError(f"{path}: {name} may hold text, numbers, true, false; not {values!r}")
        if len({repr(value) for value in values}) < len(values):
            raise GridError(f"{path}: {name} lists a value twice: {values}")
        if name == SEED or len(values) > 1:
            lists[name] = values
        else:
            fixed[name] = values[0]
    seeds = lists.pop(SEED, None)
    if seeds is None:
        raise GridError(f"{path}: no `seed` among the parameters; without replicates no statistics")
    return Sweep(path.stem, lists, seeds, fixed, raw.get("metric") or {})


def load_study(sweep: Sweep, folder: Path | None = None) -> Study:
    """Return the declaration <sweep's stem>.yaml, or the default one from the sweep's metric.

    Default: test/ and the metric's quantity, its goal as direction, last epoch, alpha 0.05, no
    smallest effect, all main effects and two-way interactions.

    Raises:
        GridError: on an unknown key, a wrong value or a score that selects on the test set.
    """
    path = (folder or STUDIES) / f"{sweep.name}.yaml"
    if path.exists():
        values = _read_yaml(path) | {"declared": True}
    else:
        if not {"name", "goal"} <= set(sweep.metric):
            raise GridError(
                f"{sweep.name} has neither {path} nor a `metric:` with name and goal in its YAML"
            )
        goal = {"minimize": "lower", "maximize": "higher"}.get(sweep.metric["goal"])
        quantity = sweep.metric["name"].split("/")[-1]
        values = {"metric": f"test/{quantity}", "direction": goal}
    if values.get("score_rule") in ("best_on_test", "best"):
        raise GridError(
            f"{path}: score_rule {values['score_rule']!r} would select the epoch on the test set, "
            f"which makes the test score an optimistic one; use {', '.join(RULES)}"
        )
    try:
        return Study(**values)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, e['loc']))} = {e['input']!r}: {e['msg']}" for e in error.errors()
        ]
        raise GridError(f"{path}:\n  " + "\n  ".join(faults)) from error


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise GridError(f"cannot read {path}: {error}") from error
    if not isinstance(raw, dict):
        raise GridError(f"{path} is not a mapping of names to values")
    return raw
