"""Keep a run's state on disk so that it resumes bit for bit where it stopped."""

import re
from pathlib import Path
from typing import Any

import torch

from lib.spec.errors import UserError
from lib.spec.files import write_atomically
from lib.spec.study import NUISANCE_FIELDS
from lib.training.torch_files import read_torch

KEEP = 2  # checkpoints, the one just written among them


def save(
    folder: Path,
    epoch: int,
    config_key: dict[str, Any],
    loop_state: dict[str, Any],
    state: dict[str, Any],
) -> None:
    """Write ``checkpoint-<epoch>.pt`` atomically; of the others keep the newest.

    ``config_key`` is what must be equal to resume: all that shapes the numbers, the data by its
    hash and not by its path, which differs between machines; ``loop_state`` is what the loop keeps
    next to ``state``: models, optimizers, schedulers and torch generators by name.
    """
    content = {
        "config_key": _without_nuisance(config_key, state),
        "loop_state": loop_state,
        "state": {name: _get(part) for name, part in state.items()},
    }
    written = folder / f"checkpoint-{epoch:06d}.pt"
    write_atomically(written, lambda file: torch.save(content, file))
    others = [path for path in paths(folder) if path != written]
    for path in others[: len(others) - KEEP + 1]:
        path.unlink()


def resume(
    folder: Path, config_key: dict[str, Any], state: dict[str, Any]
) -> dict[str, Any] | None:
    """Set ``state`` to the newest readable checkpoint and return its loop state, or None.

    A damaged file (a full or failing disk) is named and moved aside, and the one before it taken.

    Raises:
        UserError: when the checkpoint belongs to another configuration, other data or another kind
            of device, which no generator's state fits.
    """
    config_key = _without_nuisance(config_key, state)
    for path in reversed(paths(folder)):
        content = read_torch(path)
        if content is None:
            aside = path.with_name(f"{path.name}.damaged")
            path.replace(aside)
            print(f"kept it as {aside.name}", flush=True)
            continue
        _require_known(path, content)
        saved = {k: v for k, v in content["config_key"].items() if k not in NUISANCE_FIELDS}
        if saved != config_key:
            other = [key for key in config_key | saved if config_key.get(key) != saved.get(key)]
            raise UserError(
                f"{path} belongs to another configuration, data or device (different: "
                f"{', '.join(other)}). Use another run id, or move that folder away to start over."
            )
        for name, part in state.items():
            _set(part, content["state"][name])
        print(f"resuming from {path}", flush=True)
        return content["loop_state"]
    return None


def newest(folder: Path) -> dict[str, Any]:
    """Return what a run's last checkpoint holds: config_key, loop_state and state by name.

    Raises:
        UserError: when the folder has no readable checkpoint.
    """
    found = paths(folder)
    content = read_torch(found[-1]) if found else None
    if content is None:
        raise UserError(f"{folder} has no readable checkpoint; is it a run's folder, runs/…/<id>?")
    _require_known(found[-1], content)
    return content


def _require_known(path: Path, content: Any) -> None:
    if not isinstance(content, dict) or not {"config_key", "loop_state", "state"} <= set(content):
        raise UserError(
            f"{path} was written by another version of this program or by another program. Use "
            "that version, another run id, or move the folder away to start over."
        )


def paths(folder: Path) -> list[Path]:
    """Return a run's checkpoints, the newest last."""
    return sorted(p for p in folder.glob("checkpoint-*.pt") if re.search(r"-\d{6}\.pt$", p.name))


def _without_nuisance(config_key: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Leave out what changes no number; add the devices: no generator's state fits another kind."""
    generators = [part for part in state.values() if isinstance(part, torch.Generator)]
    devices = {"devices": ", ".join(generator.device.type for generator in generators)}
    return {k: v for k, v in config_key.items() if k not in NUISANCE_FIELDS} | devices


def _get(part: Any) -> Any:
    return part.get_state() if isinstance(part, torch.Generator) else part.state_dict()


def _set(part: Any, saved: Any) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(saved)
    else:
        part.load_state_dict(saved)
