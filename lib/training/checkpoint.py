"""Write and load checkpoints, from which a run resumes, on the CPU bit for bit."""

import re
from pathlib import Path
from typing import Any

import torch

from lib.spec.errors import UserError
from lib.spec.files import write_atomically
from lib.spec.study import NUISANCE_FIELDS
from lib.training.torch_files import read_torch

KEEP = 2  # number of checkpoints to keep, including the one just written


def save(
    folder: Path,
    epoch: int,
    config_key: dict[str, Any],
    loop_state: dict[str, Any],
    state: dict[str, Any],
) -> None:
    """Write ``checkpoint-<epoch>.pt`` atomically; remove all but the newest KEEP checkpoints.

    ``config_key``: all that must be the same when the run resumes, because it affects the results.
    It has the hash of the data instead of the path, which differs between machines. ``state``:
    models, optimizers, schedulers and torch generators by name; ``loop_state``: the loop's state.
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
    """Load the newest readable checkpoint into ``state``; return its loop state, or None.

    Damaged files (from a full or failing disk) are reported and renamed, and the next older
    checkpoint is used.

    Raises:
        UserError: if the checkpoint was written with another configuration, other data or another
            type of device (the state of its random generators cannot be loaded here).
    """
    config_key = _without_nuisance(config_key, state)
    for path in reversed(paths(folder)):
        content = read_torch(path)
        if content is None:
            aside = path.with_name(f"{path.name}.damaged")
            path.replace(aside)
            print(f"renamed it to {aside.name}", flush=True)
            continue
        _require_format(path, content)
        saved = {k: v for k, v in content["config_key"].items() if k not in NUISANCE_FIELDS}
        if saved != config_key:
            differ = [key for key in config_key | saved if config_key.get(key) != saved.get(key)]
            raise UserError(
                f"cannot resume from {path}: it was written with different {', '.join(differ)}. "
                "Use the same configuration, data and device, or another run id, or move the "
                "folder away to start over."
            )
        for name, part in state.items():
            _set(part, content["state"][name])
        print(f"resuming from {path}", flush=True)
        return content["loop_state"]
    return None


def newest(folder: Path) -> dict[str, Any]:
    """Return the content of a run's newest checkpoint: config_key, loop_state, state.

    Raises:
        UserError: if the folder has no checkpoint, or the newest cannot be read.
    """
    checkpoints = paths(folder)
    content = read_torch(checkpoints[-1]) if checkpoints else None
    if content is None:
        raise UserError(
            f"{folder} has no checkpoint, or the newest cannot be read. Give a run's folder, "
            "runs/<study>/<run id>"
        )
    _require_format(checkpoints[-1], content)
    return content


def _require_format(path: Path, content: Any) -> None:
    """Raise a UserError unless ``content`` has the keys that ``save`` writes."""
    if not isinstance(content, dict) or not {"config_key", "loop_state", "state"} <= set(content):
        raise UserError(
            f"{path} is not a checkpoint of this version of the program. Use the version that "
            "wrote it or another run id, or move the folder away to start over."
        )


def paths(folder: Path) -> list[Path]:
    """Return the paths of a run's checkpoints, the newest last."""
    return sorted(p for p in folder.glob("checkpoint-*.pt") if re.search(r"-\d{6}\.pt$", p.name))


def _without_nuisance(config_key: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Return ``config_key`` without NUISANCE_FIELDS, but with the generators' device types."""
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
