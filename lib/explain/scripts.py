"""The training scripts, by name: each exports Config, network(cfg), input_shape(cfg) and more."""

import importlib
import re
from types import ModuleType

from lib.spec.errors import UserError
from lib.spec.study import ROOT

SHORT = {
    "gtsrb": "train_gtsrb",
    "unet": "train_unet",
    "challenge": "train_gtsrb_challenge",
}


def load(name: str) -> ModuleType:
    """Return the script ``name``, a module in the project's folder such as train_gtsrb.

    Raises:
        UserError: when there is no such script, or it exports no ``network``.
    """
    if not re.fullmatch(r"train_\w+", name) or not (ROOT / f"{name}.py").is_file():
        scripts = ", ".join(sorted(path.stem for path in ROOT.glob("train_*.py")))
        raise UserError(f"there is no script {name!r}; accepted: {scripts}")
    module = importlib.import_module(name)
    if lacking := [n for n in ("Config", "network", "input_shape") if not hasattr(module, n)]:
        raise UserError(f"{name}.py does not define {', '.join(lacking)}, which this needs")
    return module
