"""Read W&B's offline files with W&B's own reader, several files in one process.

`wandb leet inspect` reads one file a call, and half a second goes by before it begins: read one
by one, a thousand runs take minutes.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

END = "end of file "


class OfflineError(RuntimeError):
    """A file that W&B's reader cannot read; names it and says why."""


def read(files: list[Path]) -> list[list[dict[str, Any]] | OfflineError]:
    """Return the records of each ``.wandb`` file, as `wandb leet inspect --json` gives them.

    A file that breaks off (a killed run) gives the records up to there; one that cannot be read at
    all gives the error in their place.

    Raises:
        OfflineError: when the reader itself does not run.
    """
    program = [sys.executable, "-c", "from analysis import offline; offline.main()"]
    paths = [str(file.resolve()) for file in files]
    root = Path(__file__).parent.parent
    done = subprocess.run([*program, *paths], cwd=root, capture_output=True, text=True, check=False)
    lines = done.stdout.split("\n")
    ends = [i for i, line in enumerate(lines) if line.startswith(END)]
    if done.returncode or len(ends) < len(files):
        raise OfflineError(
            f"W&B's reader does not run: {done.stderr.strip()[-500:]}; is wandb at least as new as "
            "requirements.txt says?"
        )
    found = []
    for file, start, end in zip(files, [-1, *ends], ends, strict=False):
        if failure := lines[end].removeprefix(END):
            found.append(OfflineError(f"{file} cannot be read: {failure}"))
        else:
            found.append([json.loads(line) for line in lines[start + 1 : end]])
    return found


def main() -> None:
    """Print the records of the files that the command line names, a JSON line each.

    After each file stands a line that begins with END; where the file could not be read, with why.
    """
    from wandb.cli.cli import cli  # two thirds of a second

    for path in sys.argv[1:]:
        with tempfile.TemporaryFile("w+") as complaints:
            spoken = os.dup(2)
            os.dup2(complaints.fileno(), 2)  # the reader is a process of its own
            try:
                cli(["leet", "inspect", "--json", path], standalone_mode=False)
                code = 0
            except SystemExit as end:  # how that command always ends
                code = end.code
            finally:
                os.dup2(spoken, 2)
                os.close(spoken)
            complaints.seek(0)
            why = " ".join(complaints.read().split())[-500:] or f"exit code {code}"
        print(f"{END}{why if code else ''}", flush=True)
