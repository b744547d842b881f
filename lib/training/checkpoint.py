"""Keep a run's state on disk so that it continues bit for bit where it stopped."""

import re
from pathlib import Path
from typing import Any

import torch

from lib.spec.errors import UserError
from lib.spec.files import read_torch, write_atomically

KEEP = 2  # newest checkpoints
FREE = ("checkpoint_every", "save_overlays", "media")  # settings that change no number


def save(
    folder: Path, epoch: int, identity: dict[str, Any], progress: dict[str, Any], stateful: list
) -> None:
    """Write ``checkpoint-<epoch>.pt`` atomically and delete all but the newest two.

    ``identity`` is what must be equal to continue: all that shapes the numbers, the data by its
    hash and not by its path, which differs between machines; ``progress`` is what the loop keeps
    beside ``stateful``: models, optimizers, schedulers and torch generators.
    """
    state = {
        "identity": _identity(identity, stateful),
        "progress": progress,
        "stateful": [_get(part) for part in stateful],
    }
    write_atomically(folder / f"checkpoint-{epoch:06d}.pt", lambda file: torch.save(state, file))
    for path in _paths(folder)[:-KEEP]:
        path.unlink()


def resume(folder: Path, identity: dict[str, Any], stateful: list) -> dict[str, Any] | None:
    """Set ``stateful`` to the newest readable checkpoint and return its progress, or None.

    A damaged file (a full or failing disk) is named and the one before it is taken.

    Raises:
        UserError: when the checkpoint belongs to another configuration, other data or another kind
            of device, which no generator's state fits.
    """
    identity = _identity(identity, stateful)
    for path in reversed(_paths(folder)):
        state = read_torch(path)
        if state is None:
            continue
        saved = {key: v for key, v in state["identity"].items() if key not in FREE}
        if saved != identity:
            other = [key for key in identity | saved if identity.get(key) != saved.get(key)]
            raise UserError(
                f"{path} belongs to another configuration, data or device (different: "
                f"{', '.join(other)}). Use another run id, or move that folder away to start anew."
            )
        for part, saved in zip(stateful, state["stateful"], strict=True):
            _set(part, saved)
        print(f"continuing from {path}", flush=True)
        return state["progress"]
    return None


def _identity(identity: dict[str, Any], stateful: list) -> dict[str, Any]:
    """Leave out what is free; add the devices, since no generator's state fits another kind."""
    generators = [part for part in stateful if isinstance(part, torch.Generator)]
    devices = {"devices": ", ".join(generator.device.type for generator in generators)}
    return {key: value for key, value in identity.items() if key not in FREE} | devices


def _get(part: Any) -> Any:
    return part.get_state() if isinstance(part, torch.Generator) else part.state_dict()


def _set(part: Any, saved: Any) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(saved)
    else:
        part.load_state_dict(saved)


def _paths(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("checkpoint-*.pt") if re.search(r"-\d{6}\.pt$", p.name))
