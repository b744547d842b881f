"""A W&B sweep: its YAML as values, the runs that its grid plans, and the command that starts one.

Both sides read sweeps here: ``lib.agent`` starts the runs, ``analysis`` checks that they are there.
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
SAMPLED = "drawn by the server for each run"  # in place of the values of a range


class SweepError(UserError):
    """A sweep that cannot be used; says which file and key, what was given and what is accepted."""


@dataclass(frozen=True)
class Sweep:
    """A sweep as its YAML has it.

    ``parameters``: values by name in the YAML's order; nested names are joined by dots. ``where``
    is the file, or what else the sweep was read from, for messages. ``unclear``: in words, numbers
    that YAML reads as text, which a sweep that is still to be run should not have. ``sampled``: the
    parameters whose values are drawn again for each run, by methods other than ``grid``.
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
        """The names of the parameters that have more than one value, in the YAML's order."""
        return [name for name, values in self.parameters.items() if len(values) > 1]

    @property
    def fixed(self) -> dict[str, Any]:
        """The parameters that have one value."""
        return {n: values[0] for n, values in self.parameters.items() if len(values) == 1}

    def grid(self) -> list[dict[str, Any]]:
        """Return every combination in W&B's order: names sorted, the first varying slowest."""
        names = sorted(self.parameters)
        levels = [self.parameters[name] for name in names]
        return [dict(zip(names, values, strict=True)) for values in itertools.product(*levels)]

    def nested(self, cell: dict[str, Any]) -> dict[str, Any]:
        """Return a cell's values as W&B hands them to a run: nested where the YAML nests them.

        A name that is written with a dot stays as it is.
        """
        return _nested(self.raw["parameters"], cell) if "parameters" in self.raw else dict(cell)

    def require_clear(self) -> None:
        """Raise a SweepError when a level is a number that is text to YAML, such as 1e-3."""
        levels = [
            str(one)
            for values in self.parameters.values()
            for value in values
            for one in (value if isinstance(value, list) else [value])
        ]
        for reason in self.unclear:
            if any(f": {level} is text" in reason for level in levels):
                raise SweepError(reason)

    def require_grid(self, purpose: str) -> None:
        """Raise a SweepError unless the method is ``grid``: others need a server to choose runs."""
        if self.method != "grid":
            raise SweepError(
                f"{self.where}: {purpose} needs `method: grid`, got {self.method!r}. The runs of "
                f"other methods are chosen by W&B's server while the sweep runs: use `wandb sweep "
                f"{self.where}` and `wandb agent`."
            )


def read_sweep(source: Path | Mapping[str, Any], name: str | None = None) -> Sweep:
    """Return the sweep of a YAML file, or of a mapping such as a server's configuration.

    ``name``: default is the file's stem.

    Raises:
        SweepError: on a key or value that W&B's sweeps do not have, or an unclear one.
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
        raise SweepError(f"{where} has no `parameters:`; {EXAMPLE}")
    method = raw.get("method")
    if method not in ("grid", "random", "bayes", "custom"):
        raise SweepError(f"{where}: method {method!r} is unknown; W&B has grid, random and bayes")
    found = dict(_values(where, parameters, method))
    return Sweep(
        name=name,
        parameters=found,
        method=method,
        program=_text(where, raw, "program"),
        metric=_metric(where, raw),
        where=where,
        raw=raw,
        unclear=unclear,
        sampled=[name for name, values in found.items() if SAMPLED in values],
    )


def same_value(one: Any, other: Any) -> bool:
    """Compare two values by kind and content: 1 equals 1.0, but neither True nor "1"."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_value, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_value(one[k], other[k]) for k in one)
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return bool(one == other) if numbers or type(one) is type(other) else False


def _key(value: Any) -> tuple[str, Any]:
    """Return what is equal for values that ``same_value`` calls the same: for sets of levels."""
    if isinstance(value, list | tuple):
        return "list", tuple(map(_key, value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number", value
    return type(value).__name__, value


def show_value(value: Any) -> str:
    """Show a level in words and labels: text as it is, all else as Python and YAML write it."""
    if isinstance(value, str):
        return value if value.strip() else json.dumps(value)
    return str(value) if isinstance(value, bool | int | float) else json.dumps(value)


def _text(where: str, raw: dict[str, Any], key: str) -> str:
    value = raw.get(key) or ""
    if not isinstance(value, str):
        raise SweepError(f"{where}: {key} must be text, got {value!r}")
    return value


def _metric(where: str, raw: dict[str, Any]) -> dict[str, Any]:
    value = raw.get("metric") or {}
    if not isinstance(value, dict):
        raise SweepError(
            f"{where}: metric must be a mapping such as {{name: val/error, goal: minimize}}, got "
            f"{value!r}"
        )
    if (goal := value.get("goal")) is not None and goal not in GOALS:
        raise SweepError(f"{where}: metric.goal {goal!r} is unknown; accepted: minimize, maximize")
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
                    f"{where}: {name}.parameters must be a mapping of names to values, got "
                    f"{parameter['parameters']!r}"
                )
            yield from _values(where, parameter["parameters"], method, f"{name}.")
        else:
            yield name, _of_parameter(where, name, parameter, method)


def _nested(
    parameters: Mapping[str, Any], cell: dict[str, Any], prefix: str = ""
) -> dict[str, Any]:
    found = {}
    for key, parameter in parameters.items():
        name = f"{prefix}{key}"
        if "parameters" in parameter:
            found[key] = _nested(parameter["parameters"], cell, f"{name}.")
        else:
            found[key] = cell[name]
    return found


def _of_parameter(where: str, name: str, parameter: dict[str, Any], method: str) -> list[Any]:
    if "values" in parameter:
        values = parameter["values"]
        if not isinstance(values, list) or not values:
            raise SweepError(f"{where}: {name}: `values:` must be a list of levels, got {values!r}")
    elif "value" in parameter:
        value = parameter["value"]
        if isinstance(value, list):
            raise SweepError(
                f"{where}: {name}: `value:` takes one level, got the list {value}. Did you mean "
                f'"values: {value}"? To fix a list as the level, write "values: [{value}]".'
            )
        values = [value]
    elif {"min", "max"} <= set(parameter) or (method != "grid" and "mu" in parameter):
        values = _range(where, name, parameter, method)
    else:
        raise SweepError(f"{where}: {name} needs `value:`, `values:`, or whole `min:` and `max:`")
    for value in values:
        _check_level(where, name, value)
    if len({_key(value) for value in values}) < len(values):
        raise SweepError(f"{where}: {name} lists a level twice: {values}. Each level counts once.")
    return list(values)


def _range(where: str, name: str, parameter: dict[str, Any], method: str) -> list[Any]:
    if method != "grid":
        return [SAMPLED]
    low, high = parameter["min"], parameter["max"]
    if not all(type(end) is int for end in (low, high)) or low > high:
        raise SweepError(
            f"{where}: {name}: a grid takes a range of whole numbers, min no larger than max, got "
            f"{low} to {high}. List the levels under `values:`."
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
