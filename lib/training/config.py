"""Validate hyperparameters from flags or a W&B sweep into a frozen dataclass."""

import contextlib
import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

import tyro
from pydantic import ConfigDict, TypeAdapter, ValidationError

from lib.spec.errors import UserError
from lib.spec.files import with_a_dot

T = TypeVar("T")

STRICT = ConfigDict(strict=True, allow_inf_nan=False)


class ConfigError(UserError):
    """Raised for hyperparameters that the script does not accept."""


def parse(cls: type[T], values: Mapping[str, Any]) -> T:
    """Return the dataclass ``cls`` with ``values``; missing keys take their defaults.

    Types are strict: text is not accepted for a number, 1 not for True, 2.5 not for an int. An int
    is accepted for a float, because W&B writes 1.0 as 1. NaN and infinities are rejected.

    Raises:
        ConfigError: listing all invalid keys, their values and what is accepted.
    """
    hints = get_type_hints(cls, include_extras=True)
    problems, valid = [], {}
    for key, value in values.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"accepted: {', '.join(hints)}"
            problems.append(f"{key} = {value!r}: unknown key; {hint}")
            continue
        try:
            valid[key] = TypeAdapter(hints[key], config=STRICT).validate_python(value)
        except ValidationError as error:
            problems.append(f"{key} = {value!r}: {_accepted(error, value, hints[key])}")
    if not problems:
        try:
            return cls(**valid)
        except UserError as error:  # values that do not fit together
            problems.append(str(error))
    raise ConfigError("invalid configuration\n  " + "\n  ".join(problems))


def from_flags(cls: type[T], argv: Sequence[str] | None = None) -> T:
    """Parse command-line flags (``--epochs 3 --batch-norm True``); ``argv`` defaults to sys.argv.

    Raises:
        SystemExit: on an unknown flag or an invalid value, or after ``--help``.
    """
    try:
        flags = tyro.cli(cls, args=argv, config=(tyro.conf.FlagConversionOff,))
        return parse(cls, dataclasses.asdict(flags))
    except UserError as error:
        raise SystemExit(f"error: {error}") from error


def overridden(flags: Any, final: Any, argv: Sequence[str]) -> list[str]:
    """Return a message for each flag in ``argv`` whose value a sweep replaced."""
    given = {word.split("=")[0].lstrip("-").replace("-", "_") for word in argv}
    return [
        f"{name}: the sweep's {getattr(final, name)!r} replaces the flag's {getattr(flags, name)!r}"
        for name in (field.name for field in dataclasses.fields(flags))
        if name in given and getattr(flags, name) != getattr(final, name)
    ]


def _accepted(error: ValidationError, value: Any, kind: Any) -> str:
    """Return what is accepted instead of ``value``, with a hint if it is a number as text.

    ``kind``: the key's type.
    """
    message = error.errors()[0]["msg"].replace("Input should be", "should be", 1)
    number = _number(value, kind) if isinstance(value, str) else None
    if number is not None:
        shown = with_a_dot(number) if isinstance(number, float) else number
        message += f"; this is text, in YAML write {shown} for the number (without quotes)"
    return message


def _number(text: str, kind: Any) -> int | float | None:
    """Return the number that ``text`` means, if it is one that a key of type ``kind`` accepts."""
    try:
        value = float(text)
    except ValueError:
        return None
    for number in [int(value), value] if value.is_integer() else [value]:
        with contextlib.suppress(ValidationError):
            return TypeAdapter(kind, config=STRICT).validate_python(number)
    return None
