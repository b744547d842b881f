"""Build the command line of a run from a sweep's ``command:``, as W&B's agent does."""

import itertools
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from lib.spec.sweep import Sweep, SweepError

DEFAULT = ["${env}", "${interpreter}", "${program}", "${args}"]  # W&B's
ENVIRONMENT = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")
MACRO = re.compile(r"\$\{([^}]*)\}")
MACROS = ("env", "interpreter", "program", "args", "args_no_equals", "args_no_hyphens")
MACROS += ("args_no_boolean_flags", "args_json", "args_json_file", "args_append_hydra")
MACROS += ("args_override_hydra",)


def check_command(sweep: Sweep) -> None:
    """Raise a SweepError if the sweep's ``command:`` or ``program:`` is missing or invalid."""
    words = sweep.raw.get("command")
    if words is not None and not isinstance(words, list):
        raise SweepError(
            f"{sweep.where}: command must be a list of words, got {words!r}. Example: command: "
            f"{json.dumps(DEFAULT)}"
        )
    for word in words or []:
        if isinstance(word, list | dict):
            raise SweepError(
                f"{sweep.where}: each word of command must be a string or number, got {word!r}"
            )
        for name in MACRO.findall(str(word)):
            if name not in MACROS and not name.startswith("envvar:"):
                accepted = ", ".join("${" + macro + "}" for macro in (*MACROS, "envvar:NAME"))
                raise SweepError(
                    f"{sweep.where}: command has the unknown macro ${{{name}}}; accepted: "
                    f"{accepted}"
                )
    if "${program}" in (words or DEFAULT) and not sweep.program:
        raise SweepError(
            f"{sweep.where}: `program:` is missing; set it to the training script, such as train.py"
        )


def command_line(sweep: Sweep, cell: dict[str, Any], json_file: Path) -> list[str]:
    """Return the command line of the run of ``cell``, as W&B's agent builds it.

    One difference: ${interpreter} is this Python, not the first `python` in PATH. ``json_file``:
    the path of the file with the parameters, for ${args_json_file}.
    """
    values = sweep.nested(cell)
    flags = [f"{name}={value}" for name, value in values.items()]
    without_false = [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in values.items()
        if value is not False
    ]
    macros = {
        "env": [] if sys.platform == "win32" else ["/usr/bin/env"],
        "interpreter": [sys.executable],
        "program": [sweep.program],
        "args": [f"--{flag}" for flag in flags],
        "args_no_equals": [part for n, v in values.items() for part in (f"--{n}", str(v))],
        "args_no_hyphens": flags,
        "args_no_boolean_flags": without_false,
        "args_json": [json.dumps(values)],
        "args_json_file": [str(json_file)],
        "args_append_hydra": [f"+{flag}" for flag in flags],
        "args_override_hydra": [f"++{flag}" for flag in flags],
    }
    words: list[str] = []
    for word in sweep.raw.get("command") or DEFAULT:
        expanded = ENVIRONMENT.sub(lambda m: os.environ.get(m[1], m[1]), str(word))
        macro = MACRO.fullmatch(expanded)
        words += macros.get(macro[1], []) if macro else [expanded]
    return words


def literal_flags(sweep: Sweep) -> dict[str, Any]:
    """Return the settings that the sweep's ``command:`` gives literally: "--epochs=4", "--lr 1".

    By the name of the Config's field (batch_size of --batch-size); values are read as YAML.
    """
    words = [str(word) for word in sweep.raw.get("command") or []]
    found = {}
    for word, following in itertools.pairwise([*words, "--"]):
        if not word.startswith("--") or MACRO.search(word):
            continue
        name, sign, text = word.removeprefix("--").partition("=")
        if not sign and following.startswith(("--", "${")):
            continue
        text = text if sign else following
        try:
            found[name.replace("-", "_")] = yaml.safe_load(text)
        except yaml.YAMLError:  # not meant as YAML, such as "{x"
            found[name.replace("-", "_")] = text
    return found
