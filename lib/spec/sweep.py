"""Read a W&B sweep: its parameters, and the cells of its grid, one per run.

Used by ``lib.agent``, which starts the runs, and ``analysis``, which checks that none is missing.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.spec.errors import UserError
from lib.spec.files import read_yaml

Scalar = str | int | float | bool | None
EXAMPLE = "see sweeps/gtsrb.yaml for an example"
GOALS = ("minimize", "maximize")
SAMPLED = "drawn by the server for each run"  # placeholder for the values of a distribution


class SweepError(UserError):
    """Raised for a sweep that cannot be used."""


@dataclass(frozen=True)
class Sweep:
    """The content of a sweep's YAML.

    ``parameters``: values by name in the YAML's order; nested names are joined by dots. ``where``:
    the file or other source of the sweep, for messages. ``unclear``: messages about numbers that
    YAML reads as text; runs of such a sweep can be analyzed, but not started. ``sampled``: names of
    parameters that are drawn from a distribution for each run, by methods other than ``grid``.
    """

    name: str
    parameters: dict[str, list[Any]]
    method: str = "grid"
    program: str = ""
    metric: dict[str, Any] = field(default_factory=dict)
    where: str = ""
    raw: dict[str, Any] = field(default_factory=dict)
    unclear: list[str] = field(default_factory=list)
    sampled: list[str] = field(default_factory=list)

    @property
    def varied(self) -> list[str]:
        """The names of the parameters with more than one value, in the YAML's order."""
        return [name for name, values in self.parameters.items() if len(values) > 1]

    @property
    def fixed(self) -> dict[str, Any]:
        """The parameters with a single value, by name."""
        return {n: values[0] for n, values in self.parameters.items() if len(values) == 1}

    def grid(self) -> list[dict[str, Any]]:
        """Return all combinations in W&B's order: names sorted, the first varies slowest."""
        names = sorted(self.parameters)
        levels = [self.parameters[name] for name in names]
        return [dict(zip(names, values, strict=True)) for values in itertools.product(*levels)]

    def nested(self, cell: dict[str, Any]) -> dict[str, Any]:
        """Return a cell's values as W&B passes them to a run: nested as in the YAML.

        Names with a dot in the YAML are not split.
        """
        return _nested(self.raw["parameters"], cell) if "parameters" in self.raw else dict(cell)

    def require_clear(self) -> None:
        """Raise a SweepError if a level is a number that YAML reads as text, such as 1e-3."""
        levels = [
            str(item)
            for values in self.parameters.values()
            for value in values
            for item in (value if isinstance(value, list) else [value])
        ]
        for message in self.unclear:
            if any(f": {level} is text" in message for level in levels):
                raise SweepError(message)

    def require_grid(self, purpose: str) -> None:
        """Raise a SweepError unless the method is ``grid``; ``purpose`` names who needs it."""
        if self.method != "grid":
            raise SweepError(
                f"{self.where}: {purpose} needs `method: grid`, got {self.method!r}. For other "
                f"methods W&B's server chooses each run: use `wandb sweep {self.where}` and `wandb "
                "agent`."
            )


def read_sweep(source: Path | Mapping[str, Any], name: str | None = None) -> Sweep:
    """Return the sweep of a YAML file, or of a mapping such as the configuration from a server.

    ``name``: default is the file's stem.

    Raises:
        SweepError: if the file cannot be read, or on a value that W&B does not accept.
    """
    unclear: list[str] = []
    if isinstance(source, Path):
        try:
            raw, where, name = read_yaml(source, unclear), str(source), name or source.stem
        except SweepError:
            raise
        except UserError as error:
            raise SweepError(str(error)) from error
    else:
        raw, name = dict(source), name or "sweep"
        where = f"the sweep {name}"
    parameters = raw.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise SweepError(f"{where}: `parameters:` is missing or not a mapping; {EXAMPLE}")
    method = raw.get("method")
    if method is None:
        raise SweepError(f"{where}: `method:` is missing; write `method: grid`")
    if method not in ("grid", "random", "bayes", "custom"):
        raise SweepError(
            f"{where}: unknown method {method!r}; accepted: grid, random, bayes, custom"
        )
    values = dict(_values(where, parameters, method))
    return Sweep(
        name=name,
        parameters=values,
        method=method,
        program=_text(where, raw, "program"),
        metric=_metric(where, raw),
        where=where,
        raw=raw,
        unclear=unclear,
        sampled=[parameter for parameter, levels in values.items() if SAMPLED in levels],
    )


def same_value(one: Any, other: Any) -> bool:
    """Return whether two values are the same; 1 and 1.0 are, 1 and True or 1 and "1" are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_value, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_value(one[k], other[k]) for k in one)
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return bool(one == other) if numbers or type(one) is type(other) else False


def _key(value: Any) -> tuple[str, Any]:
    """Return a hashable key that is equal for two levels if ``same_value`` is true for them."""
    if isinstance(value, list | tuple):
        return "list", tuple(map(_key, value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number", value
    return type(value).__name__, value


def show_value(value: Any) -> str:
    """Format a level for names and labels: text without quotes, other values as Python or JSON."""
    if isinstance(value, str):
        return value if value.strip() else json.dumps(value)
    return str(value) if isinstance(value, bool | int | float) else json.dumps(value)


def _text(where: str, raw: dict[str, Any], key: str) -> str:
    value = raw.get(key) or ""
    if not isinstance(value, str):
        raise SweepError(f"{where}: {key} must be a string, got {value!r}")
    return value


def _metric(where: str, raw: dict[str, Any]) -> dict[str, Any]:
    value = raw.get("metric") or {}
    if not isinstance(value, dict):
        raise SweepError(
            f"{where}: metric must be a mapping such as {{name: val/error, goal: minimize}}, got "
            f"{value!r}"
        )
    if (goal := value.get("goal")) is not None and goal not in GOALS:
        raise SweepError(f"{where}: unknown metric.goal {goal!r}; accepted: minimize, maximize")
    return value


def _values(
    where: str, parameters: dict[str, Any], method: str, prefix: str = ""
) -> Iterator[tuple[str, list[Any]]]:
    """Yield each parameter's dotted name and its values."""
    for key, parameter in parameters.items():
        name = f"{prefix}{key}"
        if not isinstance(parameter, dict):
            raise SweepError(
                f"{where}: {name} must be a mapping with `value:` or `values:`, got {parameter!r}"
            )
        if "parameters" in parameter:
            if not isinstance(parameter["parameters"], dict) or not parameter["parameters"]:
                raise SweepError(
                    f"{where}: {name}.parameters must be a mapping of names to parameters, got "
                    f"{parameter['parameters']!r}"
                )
            yield from _values(where, parameter["parameters"], method, f"{name}.")
        else:
            yield name, _levels(where, name, parameter, method)


def _nested(
    parameters: Mapping[str, Any], cell: dict[str, Any], prefix: str = ""
) -> dict[str, Any]:
    nested = {}
    for key, parameter in parameters.items():
        name = f"{prefix}{key}"
        if "parameters" in parameter:
            nested[key] = _nested(parameter["parameters"], cell, f"{name}.")
        else:
            nested[key] = cell[name]
    return nested


def flat(
    config: Mapping[str, Any], prefix: str = ""
) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
    """Return a configuration with nested keys joined by dots.

    And the keys that appear both nested and with a dot, with two different values.
    """
    joined: dict[str, Any] = {}
    unlike: dict[str, tuple[Any, Any]] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            parts, more = flat(value, f"{prefix}{key}.")
            unlike |= more
        else:
            parts = {f"{prefix}{key}": value}
        for name, found in parts.items():
            if name in joined and not same_value(joined[name], found):
                unlike[name] = (joined[name], found)
        joined |= parts
    return joined, unlike


def _levels(where: str, name: str, parameter: dict[str, Any], method: str) -> list[Any]:
    if "values" in parameter:
        values = parameter["values"]
        if not isinstance(values, list) or not values:
            raise SweepError(f"{where}: {name}: `values:` must be a list of levels, got {values!r}")
    elif "value" in parameter:
        value = parameter["value"]
        if isinstance(value, list):
            raise SweepError(
                f"{where}: {name}: `value:` takes one level, got the list {value}. Did you mean "
                f'"values: {value}"? If the list is a single level, write "values: [{value}]".'
            )
        values = [value]
    elif {"min", "max"} <= set(parameter) or (method != "grid" and "mu" in parameter):
        values = _range(where, name, parameter, method)
    else:
        raise SweepError(f"{where}: {name} needs `value:`, `values:`, or integer `min:` and `max:`")
    for value in values:
        _check_level(where, name, value)
    if len({_key(value) for value in values}) < len(values):
        raise SweepError(f"{where}: {name} lists a level twice: {values}. Remove the duplicate.")
    return list(values)


def _range(where: str, name: str, parameter: dict[str, Any], method: str) -> list[Any]:
    if method != "grid":
        return [SAMPLED]
    kind = parameter.get("distribution", "int_uniform")
    if kind != "int_uniform" or "q" in parameter:
        raise SweepError(
            f"{where}: {name}: a grid cannot have `distribution: {kind}`"
            f"{' with `q:`' * ('q' in parameter)}; list the levels under `values:`"
        )
    low, high = parameter["min"], parameter["max"]
    if not all(type(end) is int for end in (low, high)) or low > high:
        raise SweepError(
            f"{where}: {name}: in a grid, min and max must be integers with min <= max, got {low} "
            f"and {high}. Other levels can be listed under `values:`."
        )
    return list(range(low, high + 1))


def _check_level(where: str, name: str, value: Any) -> None:
    if isinstance(value, Scalar):
        return
    if isinstance(value, list):
        for item in value:
            _check_level(where, name, item)
        return
    if isinstance(value, dict):
        raise SweepError(
            f"{where}: {name}: a level cannot be a mapping, got {value!r}. Write nested settings "
            f"as {name}: {{parameters: {{...}}}}."
        )
    raise SweepError(
        f"{where}: {name}: levels must be strings, numbers, booleans, null or lists of them, got "
        f"{value!r}"
    )
