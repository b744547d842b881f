"""The declaration of a study, analysis/studies/<name>.yaml: what is fixed before the runs."""

import difflib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lib.spec.errors import UserError
from lib.spec.files import read_yaml

SEED = "seed"  # the replicate's usual name in a config
# The replicate's name where runs are numbered in the order of their creation; no config key's.
REPEAT = "(repeat)"

# Keys that decide what is claimed; the others are words, figures and pictures.
DECLARING = ("metric", "score", "seed", "sweeps", "factors", "arms", "primary", "smallest_effect")
DECLARING += ("alpha", "looks", "failure", "free", "published_scores", "block", "block_scale")
DECLARING += ("compare", "unit")


class StudyError(UserError):
    """A sweep or declaration that cannot be analyzed; says what is wrong and what is accepted."""


def _each_once(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("a name is repeated, which would count it twice in Holm's correction")
    return names


Names = Annotated[list[str], Field(min_length=1), AfterValidator(_each_once)]
Level = str | int | float | bool | None | list


class Failure(BaseModel):
    """When a finished run counts as failed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    worse_than: float  # in the metric's own unit


class Control(BaseModel):
    """The level that each other level of its factor is compared with."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    control: Level


class Repeat(BaseModel):
    """That the replicates are runs of a variant in the order of their creation."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    repeat: Literal[True]


class Declaration(BaseModel):
    """The keys of a declaration; all but ``metric`` may be left out."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    question: str = ""
    metric: str | dict[str, Any]
    # Which epoch's score counts: last, {at_best: val/error} or {mean_last: 5}.
    score: str | dict[str, Any] = "last"
    # The config key of the replicate; {repeat: true}: there is none, a variant was run repeatedly.
    seed: str | Repeat = SEED
    step: str | None = None  # the history key of the curves' axis; default: found by itself
    sweeps: Names | None = None  # the sweeps whose runs are pooled; default: the one of its name
    # Config keys and their levels, baseline first; default: what the sweep varies.
    factors: dict[str, list[Level]] | None = None
    # Named combinations of config values instead of factors, baseline first.
    arms: dict[str, dict[str, Level]] | None = None
    primary: Names | None = None  # contrasts tested as one family; default: all
    # Of a factor's levels: all pairs, or {control: level}, each other level against that one.
    compare: Literal["pairs"] | Control = "pairs"
    # Config keys that are compared within and averaged over, such as a data set or environment.
    block: list[str] = []
    block_scale: Literal["raw", "rank", "relative"] = "raw"  # on which blocks are averaged
    unit: Literal["seed", "block", "fold"] = "seed"  # what the values of ``seed`` are
    # The smallest effect of interest, in the metric's own unit.
    smallest_effect: Annotated[float, Field(gt=0)] | None = None
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05  # family-wise, two-sided
    # Planned looks, {10: 0.02, 20: 0.03}: α at each number of seeds, at most alpha together.
    looks: dict[int, Annotated[float, Field(gt=0, lt=1)]] | None = None
    # {worse_than: 0.5}: a finished run with a worse score has failed, as diverged ones have.
    failure: Failure | None = None
    free: list[str] = []  # config keys in which runs may differ
    # Published scores by their names, for a sweep that varies only the seed.
    published_scores: dict[str, float] = {}
    # Summary keys of the same runs with words, each with one more step of the recipe; the last is
    # the metric.
    cumulative_steps: dict[str, str] = {}
    cross_validation: str | None = None  # the sweep that tests every radiograph once
    target_value: float | None = None  # of the validation metric, for the figure of epochs until it
    tuning: list[str] = []  # sweeps in which the learning rates were chosen, on validation
    labels: dict[str, str] = {}  # words for a factor, a factor=level, an arm or the sweep
    notes: str | list[str] = []  # paragraphs for the report
    class_names: Literal["gtsrb"] | None = None  # whose classes the labels count
    data_source: str = ""  # citation of the images that a figure shows

    @property
    def replicate(self) -> str:
        """The name of the replicate: its config key, or ``REPEAT``."""
        return REPEAT if self.repeats else self.seed

    @property
    def repeats(self) -> bool:
        """Whether the replicates are runs in the order of their creation."""
        return isinstance(self.seed, Repeat)


def declaring(declaration: Declaration) -> dict[str, Any]:
    """Return the keys that decide what is claimed, without those that have their default."""
    return declaration.model_dump(include=set(DECLARING), exclude_defaults=True)


def study_hash(declaration: Declaration, varied: dict[str, list[Any]]) -> str:
    """Return the hash of the declaring keys and of what the sweeps vary, 12 hexadecimal digits.

    ``varied``: the levels and seeds by parameter; so the number of seeds is declared too.
    """
    text = json.dumps([declaring(declaration), varied], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_declaration(path: Path) -> Declaration:
    """Return the declaration in a YAML file.

    Raises:
        StudyError: on an unknown key or a wrong value; names all of them.
    """
    try:
        values = read_yaml(path)
    except UserError as error:
        raise StudyError(str(error)) from error
    try:
        return Declaration.model_validate(values)
    except ValidationError as error:
        raise StudyError(f"{path}:\n  " + "\n  ".join(_faults(error))) from error


def _faults(error: ValidationError) -> list[str]:
    faults = []
    for one in error.errors():
        place, own = ".".join(map(str, one["loc"])), str(one["loc"][-1])
        if one["type"] == "extra_forbidden":
            nested = {"compare": Control, "seed": Repeat}.get(str(one["loc"][0]), Failure)
            known = (Declaration if len(one["loc"]) == 1 else nested).model_fields
            near = difflib.get_close_matches(own, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"accepted: {', '.join(known)}"
            faults.append(f"{place}: unknown key; {hint}")
        elif place == "metric" and one["type"] == "missing":
            faults.append(f"{place}: missing; write the summary key of the score, as test/error")
        elif one["type"] == "missing":
            faults.append(f"{place}: missing")
        else:
            faults.append(f"{place} = {one['input']!r}: {one['msg']}")
    return faults
