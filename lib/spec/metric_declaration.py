"""Read a metric from a declaration or a sweep; presets by the key's last word.

metric("test/error")                              a preset
metric({"key": "eval/return_mean", "label": "episodic return", "goal": "maximize", ...})
"""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lib.spec.errors import UserError
from lib.spec.metric import PHRASES, Goal, Metric, Scale, last_word, split_part

_FRACTION = {"bounds": (0.0, 1.0)}
_OVERLAP = {"goal": "maximize", **_FRACTION, "worst": 0.0, "scale": "logit"}
_PERCENT = {"unit": "%", "display_factor": 100.0, "decimals": 2}
_POSITIVE = {"bounds": (0.0, math.inf), "goal": "minimize", "scale": "log"}
PRESETS: dict[str, dict[str, Any]] = {  # by a key's last word
    "error": {**_FRACTION, **_PERCENT, "goal": "minimize", "worst": 1.0, "scale": "log"}
    | {"label": "error", "complement": "accuracy", "item_score": "wrong"},
    "accuracy": {**_OVERLAP, **_PERCENT, "label": "accuracy", "item_score": "right"},
    "f1": {**_OVERLAP, "label": "F1 score"},
    "auc": {**_OVERLAP, "label": "AUC"},
    "jaccard": {**_OVERLAP, "label": "Jaccard index", "item_score": "jaccard"},
    "dice": {**_OVERLAP, "label": "Dice coefficient", "item_score": "dice"},
    "loss": {"goal": "minimize", "label": "loss"},
    "perplexity": {"goal": "minimize", "label": "perplexity", "decimals": 2, "scale": "log"}
    | {"bounds": (1.0, math.inf)},
    "bleu": {"goal": "maximize", "label": "BLEU", "decimals": 2, "bounds": (0.0, 100.0)}
    | {"worst": 0.0},
    "return": {"goal": "maximize", "label": "return", "decimals": 1},
    "rmse": {**_POSITIVE, "label": "RMSE"},
    "mse": {**_POSITIVE, "label": "MSE"},
    "mae": {**_POSITIVE, "label": "MAE"},
}


class _Declared(BaseModel):
    """The form of ``metric:`` in a declaration if it is a mapping."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    key: Annotated[str, Field(min_length=1)]
    label: str | None = None
    goal: Goal | None = None
    unit: str | None = None
    decimals: Annotated[int, Field(ge=0, le=12)] | None = None
    display_factor: Annotated[float, Field(gt=0)] | None = None
    bounds: Annotated[list[float | None], Field(min_length=2, max_length=2)] | None = None
    worst: float | None = None
    resolution: Annotated[float, Field(gt=0)] | None = None
    scale: Scale | None = None


def metric(declared: str | dict[str, Any], goal: str | None = None) -> Metric:
    """Return the metric that a declaration or a sweep names.

    ``declared``: a key whose last word is that of a preset, or a mapping with ``key`` and fields
    that replace the preset's. ``goal``: the sweep's, used if neither of them has one.

    Raises:
        UserError: on an unknown field, a wrong value, a missing goal, or contradicting values.
    """
    values = {"key": declared} if isinstance(declared, str) else declared
    try:
        given = _Declared.model_validate(values).model_dump(exclude_none=True)
    except ValidationError as error:
        problems = "; ".join(map(_problem, error.errors()))
        if "name" in values and "key" not in values:
            problems += f". Did you mean {{key: {values['name']}, …}}? (A sweep has `name:`)"
        raise UserError(
            f"metric: {problems}. Accepted: a key such as test/error, or a mapping with the fields "
            f"{', '.join(_Declared.model_fields)}"
        ) from error
    key = given["key"]
    preset = PRESETS.get(last_word(key), {})
    if "bounds" in given:
        low, high = given["bounds"]
        ends = (-math.inf if low is None else low, math.inf if high is None else high)
        given["bounds"] = ends
        if not ends[0] < ends[1]:
            raise UserError(f"metric {key}: bounds must be [lower, higher], got {[low, high]}")
        # Fields of the preset that assume a fraction do not apply to other bounds.
        preset = preset if preset.get("bounds") == ends else _without_bounds(preset)
    if "display_factor" in given:
        preset = {name: value for name, value in preset.items() if name != "unit"}
    if given.get("goal", preset.get("goal")) != preset.get("goal"):
        preset = {name: value for name, value in preset.items() if name != "worst"}
    if "label" in preset:
        preset = preset | {"label": _qualified(key, preset["label"])}
    fields = {"label": _plain_label(key), "goal": goal} | preset | given
    fields["whole_label"] = "label" in given
    source = "preset" if preset else "default"
    fields["decimals_by"] = "declaration" if "decimals" in given else source
    if fields["goal"] not in ("minimize", "maximize"):
        raise UserError(
            f"metric {key}: goal is missing, and no preset ({', '.join(PRESETS)}) is called "
            f"{last_word(key)!r}. Write metric: {{key: {key}, goal: minimize}} or maximize"
        )
    built = Metric(**fields)
    low, high = built.bounds
    if built.scale == "logit" and not (low >= 0 and high <= 1):
        raise UserError(f"metric {key}: scale logit needs bounds within [0, 1], got {[low, high]}")
    if built.scale == "log" and low < 0:
        raise UserError(f"metric {key}: scale log needs a lower bound of 0 or more, got {low}")
    if built.worst is not None and built.outside(np.array([built.worst])).any():
        raise UserError(f"metric {key}: worst must be within {[low, high]}, got {built.worst}")
    return built


def _problem(error: Mapping[str, Any]) -> str:
    """Return one of pydantic's errors as text."""
    place = ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["type"] == "extra_forbidden":
        return f"{place}: unknown field"
    return f"{place} = {error['input']!r}: {error['msg']}"


def _without_bounds(preset: dict[str, Any]) -> dict[str, Any]:
    """Return a preset without the fields that depend on its bounds."""
    dependent = ("bounds", "worst", "scale", "display_factor", "complement", "item_score")
    return {key: value for key, value in preset.items() if key not in dependent}


def _qualified(key: str, label: str) -> str:
    """Return a preset's label with the words before its name: "balanced accuracy"."""
    words = re.split(r"[/_.\s-]+", split_part(key)[1])
    if words[0].lower() == "loss":  # also a part of a loss, as in loss_dice
        return " ".join(words)
    phrase = PHRASES.get(last_word(key), ())
    named = tuple(word.lower() for word in words[-len(phrase) :]) == phrase
    return " ".join([*words[: -len(phrase) if phrase and named else -1], label])


def _plain_label(key: str) -> str:
    return " ".join(re.split(r"[/_.\s]+", split_part(key)[1]))
