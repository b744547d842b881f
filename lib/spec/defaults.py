"""The defaults of a script's hyperparameters, read from its source without running it."""

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
