"""What the benches share: processes measured from outside, and lines of JSON."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]  # conftest.py has it too, but imports torch: a large process


def measure(
    command: list[str], environment: dict[str, str] | None = None
) -> tuple[float, float, str]:
    """Run a Python command; return its seconds, the most memory it held (MiB) and its output.

    Of the processes that it starts, the largest counts where that is larger than itself. Linux
    counts what this process held when it started the other: keep it the smaller one.

    Raises:
        RuntimeError: when it fails.
    """
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        quiet = {"WANDB_SILENT": "true", "PYTHONWARNINGS": "ignore"}
        values = os.environ | quiet | (environment or {})
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=values, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{command} ended with exit code {process.returncode}")
        output.seek(0)
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss: bytes there, KiB on Linux
        return seconds, usage.ru_maxrss * unit / 2**20, output.read()


def say(bench: str, **values: Any) -> None:
    """Print a measurement as a line of JSON, numbers with three digits that count."""
    rounded = {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in values.items()}
    rounded = {k: int(v) if isinstance(v, float) and v >= 100 else v for k, v in rounded.items()}
    print(json.dumps({"bench": bench} | rounded), flush=True)


def processor() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor() or platform.machine()
