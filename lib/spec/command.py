"""The command line that starts a run: a sweep's ``command:``, filled in as W&B's agent does."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from lib.spec.sweep import Sweep, SweepError

DEFAULT = ["${env}", "${interpreter}", "${program}", "${args}"]  # W&B's, where a sweep has none
ENVIRONMENT = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")
MACRO = re.compile(r"\$\{([^}]*)\}")
MACROS = ("env", "interpreter", "program", "args", "args_no_equals", "args_no_hyphens")
MACROS += ("args_no_boolean_flags", "args_json", "args_json_file", "args_append_hydra")
MACROS += ("args_override_hydra",)


def check_command(sweep: Sweep) -> None:
    """Raise a SweepError when the sweep's ``command:`` or ``program:`` cannot be run."""
    words = sweep.raw.get("command")
    if words is not None and not isinstance(words, list):
        raise SweepError(
            f"{sweep.where}: command must be a list, got {words!r}. Write it word by word, such as "
            f"command: {json.dumps(DEFAULT)}"
        )
    for word in words or []:
        if isinstance(word, list | dict):
            raise SweepError(f"{sweep.where}: command holds {word!r}; each word must be text")
        for name in MACRO.findall(str(word)):
            if name not in MACROS and not name.startswith("envvar:"):
                known = ", ".join("${" + known + "}" for known in (*MACROS, "envvar:NAME"))
                raise SweepError(
                    f"{sweep.where}: command holds ${{{name}}}, which W&B does not have; it has "
                    f"{known}"
                )
    if "${program}" in (words or DEFAULT) and not sweep.program:
        raise SweepError(f"{sweep.where} has no `program:`; write the script that a run starts")


def command_line(sweep: Sweep, cell: dict[str, Any], json_file: Path) -> list[str]:
    """Return the words that start the run of ``cell``, as W&B's agent would.

    But for two: ${interpreter} is this Python, not the first `python` of the PATH. ``json_file``:
    where the parameters are, for ${args_json_file}.
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
    found: list[str] = []
    for word in sweep.raw.get("command") or DEFAULT:
        plain = ENVIRONMENT.sub(lambda m: os.environ.get(m[1], m[1]), str(word))
        whole = MACRO.fullmatch(plain)
        found += macros.get(whole[1], []) if whole else [plain]
    return found
