"""What a script's source says without running it: its hyperparameters' defaults, its imports."""

import ast
from pathlib import Path
from typing import Any


def config_defaults(program: Path) -> dict[str, Any]:
    """Return the literal defaults of the class ``Config`` in a script; nothing where it has none.

    The agent needs them to know what a run would use, and must not import torch for it. A default
    that is no literal is left out.
    """
    try:
        tree = ast.parse(program.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return {}
    found: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == "Config":
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and field.value is not None:
                    try:
                        found[field.target.id] = ast.literal_eval(field.value)
                    except (ValueError, AttributeError):
                        continue
    return found


def uses_tracking(program: Path) -> bool:
    """Say whether a script imports lib.tracking: then it keeps checkpoints and can run dry."""
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
