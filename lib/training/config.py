"""Read hyperparameters strictly: from flags, from a W&B sweep, always into one frozen dataclass."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

import tyro
from pydantic import ConfigDict, TypeAdapter, ValidationError

from lib.spec.errors import UserError

T = TypeVar("T")

STRICT = ConfigDict(strict=True, allow_inf_nan=False)


class ConfigError(UserError):
    """A hyperparameter that the script does not accept; says which, what was given and what is."""


def parse(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build the dataclass ``cls`` from ``values``; absent keys take their defaults.

    Types are strict: no text for a number, no 1 for True, no 2.5 for an int; an int may stand for a
    float (W&B writes 1.0 as 1). NaN and infinities are refused. All faults are reported at once.

    Raises:
        ConfigError: naming each faulty key, its value and what is allowed.
    """
    hints = get_type_hints(cls, include_extras=True)
    faults, checked = [], {}
    for key, value in values.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(hints)}"
            faults.append(f"{key} = {value!r}: unknown key; {hint}")
            continue
        try:
            checked[key] = TypeAdapter(hints[key], config=STRICT).validate_python(value)
        except ValidationError as error:
            faults.append(f"{key} = {value!r}: {_allowed(error, value)}")
    if faults:
        raise ConfigError("invalid configuration\n  " + "\n  ".join(faults))
    return cls(**checked)


def from_flags(cls: type[T], argv: Sequence[str] | None = None) -> T:
    """Parse command-line flags (``--epochs 3 --batch-norm True``); ``argv`` defaults to sys.argv.

    Raises:
        SystemExit: on an unknown flag or a value that ``parse`` refuses, or after ``--help``.
    """
    flags = tyro.cli(cls, args=argv, config=(tyro.conf.FlagConversionOff,))
    try:
        return parse(cls, dataclasses.asdict(flags))
    except ConfigError as error:
        raise SystemExit(f"error: {error}") from error


def overridden(flags: Any, final: Any, argv: Sequence[str]) -> list[str]:
    """Say which flags that ``argv`` gives a sweep replaced, one line each."""
    given = {word.split("=")[0].lstrip("-").replace("-", "_") for word in argv}
    return [
        f"{name}: the sweep's {getattr(final, name)!r} replaces the flag's {getattr(flags, name)!r}"
        for name in (field.name for field in dataclasses.fields(flags))
        if name in given and getattr(flags, name) != getattr(final, name)
    ]


def _allowed(error: ValidationError, value: Any) -> str:
    fault = error.errors()[0]["msg"].replace("Input should be", "should be", 1)
    if isinstance(value, str) and _is_number(value):
        example = f"{float(value):.1e}" if "e" in value.lower() else value
        fault += (
            f"; this is text, not a number: in YAML write {example} (with a dot, without quotes)"
        )
    return fault


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
