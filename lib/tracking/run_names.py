"""Choose a run's name, group and job type in W&B."""

from collections.abc import Sequence
from typing import Any

from lib.spec.declaration import SEED


def names(varied: Sequence[str], cell: dict[str, Any], study: str) -> tuple[str, str, str]:
    """Return name, group and job type of the run of ``cell``, in a sweep that varies ``varied``.

    The name is short, like bn-sgd-seed3. The group is the full variant, like "batch_norm=True,
    optimizer=sgd", so that W&B can plot its seeds together. The job type is the study. A varied
    parameter with "seed" in its name is the seed.
    """
    seeds = [name for name in sorted(varied) if "seed" in name.lower()]
    seed = SEED if SEED in varied or not seeds else seeds[0]
    factors = [name for name in sorted(varied) if name != seed]
    group = ", ".join(f"{name}={cell[name]}" for name in factors)
    words = [_word(name, cell[name]) for name in factors]
    if seed in cell:
        words.append(f"{SEED}{cell[seed]}")
    return "-".join(words) or study, group or study, study


def _word(factor: str, level: Any) -> str:
    """Return a short word for a level: bn or no-bn for batch_norm, al0.1 for adam_lr = 0.1, sgd."""
    initials = "".join(word[:1] for word in factor.split("_")) if "_" in factor else factor
    if isinstance(level, bool):
        return initials if level else f"no-{initials}"
    if isinstance(level, int | float):
        return f"{initials}{level:g}"
    return level if isinstance(level, str) else f"{initials}-{level}"
