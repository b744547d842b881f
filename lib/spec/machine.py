"""Find the cores and GPUs of this machine without importing torch."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
SECONDS = 10  # timeout of nvidia-smi


def cores(quota_file: Path = QUOTA) -> int:
    """Return the number of cores that this process may use, by its affinity and cgroup quota."""
    number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(OSError, ValueError):  # not Linux, or the quota is "max"
        quota, period = quota_file.read_text().split()
        number = min(number or 1, round(int(quota) / int(period)))
    return max(1, number or 1)


def gpus() -> list[str]:
    """Return the ids of the NVIDIA GPUs that this process may use: CUDA_VISIBLE_DEVICES, or all.

    Entries of CUDA_VISIBLE_DEVICES are indices or UUIDs; -1 or an empty value hides all GPUs.
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
