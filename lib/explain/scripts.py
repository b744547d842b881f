"""Load training scripts by name; each defines Config, network(cfg), input_shape(cfg) and more."""

import importlib
import re
from types import ModuleType

from lib.spec.errors import UserError
from lib.spec.study import ROOT

SHORT = {"gtsrb": "train_gtsrb", "unet": "train_unet"}


def load(name: str) -> ModuleType:
    """Return the module of the script ``name``, such as train_gtsrb, in the project's folder.

    Raises:
        UserError: if there is no such script, or it does not define Config, network, input_shape.
    """
    if not re.fullmatch(r"train_\w+", name) or not (ROOT / f"{name}.py").is_file():
        scripts = ", ".join(sorted(path.stem for path in ROOT.glob("train_*.py")))
        raise UserError(f"script {name!r} not found; accepted: {scripts}")
    module = importlib.import_module(name)
    if missing := [n for n in ("Config", "network", "input_shape") if not hasattr(module, n)]:
        raise UserError(f"{name}.py must define {', '.join(missing)} for its network to be traced")
    return module
