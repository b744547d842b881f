"""What this machine has, found without importing torch: cores and GPUs."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
SECONDS = 10  # that nvidia-smi may take


def cores(quota_file: Path = QUOTA) -> int:
    """Return how many cores this process may use: those it is bound to, within Linux's quota."""
    number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(OSError, ValueError):  # no Linux, no such file, or "max": no quota
        quota, period = quota_file.read_text().split()
        number = min(number or 1, round(int(quota) / int(period)))
    return max(1, number or 1)


def gpus() -> list[str]:
    """Return the ids of the NVIDIA GPUs that this process may use: CUDA_VISIBLE_DEVICES, or all.

    An entry of CUDA_VISIBLE_DEVICES may be an index or a UUID. -1 or an empty value hides all.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = _count()
    if visible is None:
        return [str(i) for i in range(present)]
    ids = [part.strip() for part in visible.split(",")]
    return [] if not present else [part for part in ids if part and part != "-1"]


def _count() -> int:
    if shutil.which("nvidia-smi") is None:
        return 0
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return len(done.stdout.split()) if done.returncode == 0 else 0
