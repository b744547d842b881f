"""Read a script's default hyperparameters and imports from its source, without running it."""

import ast
from pathlib import Path
from typing import Any


def config_defaults(program: Path) -> dict[str, Any]:
    """Return the literal defaults of a script's class ``Config``; empty if it has no such class.

    The agent compares them with those of finished runs. Parsing the source avoids importing torch.
    Defaults that are not literals are skipped.
    """
    try:
        tree = ast.parse(program.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return {}
    defaults: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == "Config":
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and field.value is not None:
                    try:
                        defaults[field.target.id] = ast.literal_eval(field.value)
                    except (ValueError, AttributeError):
                        continue
    return defaults


def uses_tracking(program: Path) -> bool:
    """Return whether a script imports lib.tracking, so that it has checkpoints and a dry run."""
    try:
        tree = ast.parse(program.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return False
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return any(name == "lib.tracking" or name.startswith("lib.tracking.") for name in names)
