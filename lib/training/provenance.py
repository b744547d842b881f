"""Record the provenance of a run: commit, device, threads, versions."""

import platform
import subprocess
from pathlib import Path

import numpy as np
import torch


def provenance(device: torch.device) -> dict[str, str]:
    """Return commit, device, threads and versions of this process, for the summary."""
    return {
        "git_commit": git_commit(),
        "device": _name(device),
        "threads": str(torch.get_num_threads()),  # affects the order of floating-point sums
        # torch.__version__ is not a plain str, which is all that checkpoints can contain.
        "torch_version": str(torch.__version__),
        "numpy_version": np.__version__,
        "python_version": platform.python_version(),
    }


def _name(device: torch.device) -> str:
    """Return a GPU's name, or "cpu" with the instruction set, which affects rounding."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})"


def git_commit() -> str:
    """Return the commit of the code, with "-dirty" if tracked files were changed, or "unknown"."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    here = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return "unknown"
    return done.stdout.strip() or "unknown"
