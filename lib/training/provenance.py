"""What made a run's numbers: commit of the code, device, versions."""

import platform
import subprocess
from pathlib import Path

import numpy as np
import torch


def provenance(device: torch.device) -> dict[str, str]:
    """Return what made the numbers: commit of the code, device, threads, versions."""
    return {
        "git_commit": git_commit(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": str(torch.get_num_threads()),  # sums of floats depend on their number
        "torch_version": str(torch.__version__),  # a class of its own, which checkpoints refuse
        "numpy_version": np.__version__,
        "python_version": platform.python_version(),
    }


def git_commit() -> str:
    """Return the commit of the code, with "-dirty" when tracked files differ, or "unknown"."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    here = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return "unknown"
    return done.stdout.strip() or "unknown"
