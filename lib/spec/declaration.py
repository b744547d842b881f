"""Read the declaration of a study, analysis/studies/<name>.yaml: what is pre-specified."""

import difflib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lib.spec.errors import UserError
from lib.spec.files import read_yaml

SEED = "seed"  # default config key of the replicate
# Name of the replicate if runs are numbered in the order of their creation. Not a config key.
REPEAT = "(repeat)"

# Keys that affect the claims; they are hashed. The other keys only affect texts and figures.
DECLARING = ("metric", "score", "seed", "sweeps", "factors", "arms", "primary", "smallest_effect")
DECLARING += ("alpha", "looks", "failure", "free", "published_scores", "block", "block_scale")
DECLARING += ("compare", "unit")


class StudyError(UserError):
    """Raised for a sweep or declaration that cannot be analyzed."""


def _each_once(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("each name may be listed once: Holm's correction would count it twice")
    return names


Names = Annotated[list[str], Field(min_length=1), AfterValidator(_each_once)]
Level = str | int | float | bool | None | list


class Failure(BaseModel):
    """The criterion by which a finished run counts as failed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    worse_than: float  # in the unit in which the metric is logged


class Control(BaseModel):
    """The control level, with which all other levels of its factor are compared."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    control: Level


class Repeat(BaseModel):
    """The value {repeat: true}: replicates are a variant's runs in the order of their creation."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    repeat: Literal[True]


class Declaration(BaseModel):
    """The keys of a declaration; all except ``metric`` are optional."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    question: str = ""
    metric: str | dict[str, Any]
    # The epoch that gives a run's score: last, {at_best: val/error} or {mean_last: 5}.
    score: str | dict[str, Any] = "last"
    # Config key of the replicate; {repeat: true} if variants were run repeatedly without one.
    seed: str | Repeat = SEED
    step: str | None = None  # history key of the curves' x axis; default: detected
    sweeps: Names | None = None  # names of the sweeps to pool; default: the study's name
    # Levels by config key, baseline first; default: the parameters that the sweep varies.
    factors: dict[str, list[Level]] | None = None
    # Named combinations of config values instead of factors, baseline first.
    arms: dict[str, dict[str, Level]] | None = None
    primary: Names | None = None  # contrasts tested as one family; default: all
    # Which levels of a factor are compared: all pairs, or {control: level}: all others with it.
    compare: Literal["pairs"] | Control = "pairs"
    # Config keys of blocks, such as data sets or environments. Variants are compared within each
    # block, and the differences are averaged over blocks.
    block: list[str] = []
    block_scale: Literal["raw", "rank", "relative"] = "raw"  # scale on which blocks are averaged
    unit: Literal["seed", "block", "fold"] = "seed"  # kind of replicate that ``seed`` numbers
    # The smallest effect of interest, in the unit in which the metric is logged.
    smallest_effect: Annotated[float, Field(gt=0)] | None = None
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05  # family-wise, two-sided
    # Planned looks, {10: 0.02, 20: 0.03}: the α spent at each number of seeds, in total at most
    # ``alpha``.
    looks: dict[int, Annotated[float, Field(gt=0, lt=1)]] | None = None
    # {worse_than: 0.5}: runs with a worse score count as failed, like diverged runs.
    failure: Failure | None = None
    free: list[str] = []  # config keys in which runs may differ
    # Published scores by name, for a sweep that varies only the seed.
    published_scores: dict[str, float] = {}
    # Labels by summary key. Each key is a score of the same runs with one more step of the recipe
    # than the key before; the last key is the metric.
    cumulative_steps: dict[str, str] = {}
    cross_validation: str | None = None  # name of the sweep that tests every radiograph once
    target_value: float | None = None  # of the validation metric, for the figure "epochs until"
    tuning: list[str] = []  # names of sweeps that chose the learning rates on validation
    labels: dict[str, str] = {}  # display names of factors, factor=level, arms or the study
    notes: str | list[str] = []  # paragraphs for the report
    class_names: Literal["gtsrb"] | None = None  # data set whose class names are shown
    data_source: str = ""  # citation for the images in figures

    @property
    def replicate(self) -> str:
        """The name of the replicate: its config key, or ``REPEAT``."""
        return REPEAT if self.repeats else self.seed

    @property
    def repeats(self) -> bool:
        """Whether the replicates are runs in the order of their creation."""
        return isinstance(self.seed, Repeat)


def declaring(declaration: Declaration) -> dict[str, Any]:
    """Return the keys in DECLARING whose values differ from the defaults."""
    return declaration.model_dump(include=set(DECLARING), exclude_defaults=True)


def study_hash(declaration: Declaration, varied: dict[str, list[Any]]) -> str:
    """Return a hash of the declaring keys and the varied parameters, 12 hexadecimal digits.

    ``varied``: levels and seeds by parameter. So the hash fixes the number of seeds too.
    """
    text = json.dumps([declaring(declaration), varied], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_declaration(path: Path) -> Declaration:
    """Return the declaration in a YAML file.

    Raises:
        StudyError: listing all unknown keys and wrong values.
    """
    try:
        values = read_yaml(path)
    except UserError as error:
        raise StudyError(str(error)) from error
    try:
        return Declaration.model_validate(values)
    except ValidationError as error:
        raise StudyError(f"{path}:\n  " + "\n  ".join(_messages(error))) from error


def _messages(error: ValidationError) -> list[str]:
    """Return a message per invalid key."""
    messages = []
    for item in error.errors():
        place, key = ".".join(map(str, item["loc"])), str(item["loc"][-1])
        if item["loc"][0] == "compare":
            messages.append(
                f"compare: must be pairs or the control level, such as `compare: {{control: adam}}`"
                f", got {item['input']!r}"
            )
        elif item["type"] == "extra_forbidden":
            nested = {"seed": Repeat}.get(str(item["loc"][0]), Failure)
            accepted = (Declaration if len(item["loc"]) == 1 else nested).model_fields
            near = difflib.get_close_matches(key, accepted, n=1)
            hint = f"did you mean {near[0]}?" if near else f"accepted: {', '.join(accepted)}"
            messages.append(f"{place}: unknown key; {hint}")
        elif place == "metric" and item["type"] == "missing":
            messages.append(f"{place}: missing; set it to the score's summary key, like test/error")
        elif item["type"] == "missing":
            messages.append(f"{place}: missing")
        else:
            messages.append(f"{place} = {item['input']!r}: {item['msg']}")
    return list(dict.fromkeys(messages))
