"""Run the default tests with other versions of Python and the libraries; print what passed.

    python -m tests.matrix [row …]

Each row is an environment of its own below runs/matrix, six gigabytes that stay there until they
are removed. A row whose interpreter or wheels are not to be had is reported and left out.
"""

import argparse
import re
import shutil
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLACE = ROOT / "runs" / "matrix"
COLAB = ["torch==2.8.0", "torchvision==0.23.0", "pandas==2.2.2", "numpy==2.0.2"]


def lowest() -> list[str]:
    """Return the lowest versions that requirements.txt admits, as pins."""
    text = (ROOT / "requirements.txt").read_text()
    return [f"{n}=={v}" for n, v in re.findall(r"^([A-Za-z0-9-]+)>=([\d.]+)", text, re.MULTILINE)]


ROWS = {  # name -> interpreter, pins
    "lowest, Python 3.11": ("python3.11", lowest()),
    "newest, Python 3.11": ("python3.11", []),
    "newest, Python 3.12": ("python3.12", []),
    "newest, Python 3.13": ("python3.13", []),
    "Colab's, Python 3.12": ("python3.12", COLAB),
}


def try_row(name: str) -> str:
    """Make the row's environment, run the tests, return their last line or what is missing."""
    interpreter, pins = ROWS[name]
    found = shutil.which(interpreter)
    if not found or subprocess.run([found, "--version"], capture_output=True).returncode:
        return f"no {interpreter} on this machine"
    folder = PLACE / re.sub(r"\W+", "-", name)
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([found, "-m", "venv", folder], check=True)
    (folder / "pins.txt").write_text("\n".join(pins) + "\n")
    words = [python, "-m", "pip", "install", "--quiet", "--requirement", "requirements.txt"]
    words += ["--constraint", folder / "pins.txt"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"not installed: {done.stderr.strip().splitlines()[-1][:200]}"
    words = [python, "-m", "pytest", "-m", "not slow", "-p", "no:cacheprovider"]
    begun = time.monotonic()
    with open(folder / "log.txt", "w") as log:
        subprocess.run(words, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=False)
    last = (folder / "log.txt").read_text().strip().splitlines()[-1]
    return f"{last} ({time.monotonic() - begun:.0f} s; {folder / 'log.txt'})"


def main() -> None:
    """Try rows, all by default, and print a table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("rows", nargs="*", help=f"of {'; '.join(ROWS)}")
    names = parser.parse_args().rows or list(ROWS)
    if unknown := set(names) - set(ROWS):
        parser.error(f"no row {', '.join(unknown)}; there are {'; '.join(ROWS)}")
    for name in names:
        print(f"| {name} | {try_row(name)} |", flush=True)


if __name__ == "__main__":
    main()
