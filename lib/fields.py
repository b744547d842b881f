r"""Look into trained networks: effective receptive fields, filters, feature maps, checkerboards.

    python -m lib.fields runs/gtsrb_short/3c8c5bdf runs/gtsrb_short/00db1c6b \
        --data data/GTSRB --out analysis/results/gtsrb_short

Takes finished runs' folders (their newest checkpoint), signs or lungs. Writes network.npz and
network.json, from which `python -m analysis.report` draws and writes its section on the network.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from lib.explain.trained import inspect_run
from lib.spec.errors import command
from lib.spec.files import write_atomically
from lib.spec.metric import count


@command
def main() -> None:
    """Look into trained networks and write network.npz and network.json for the report."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="run", help="runs/<study>/<run id>")
    parser.add_argument("--data", required=True, help="data/GTSRB or data/JSRT, as in training")
    parser.add_argument("--out", type=Path, required=True, help="analysis/results/<study>")
    arguments = parser.parse_args()
    arrays: dict[str, np.ndarray] = {}
    found = [inspect_run(folder, arguments.data, arrays) for folder in arguments.runs]
    text = json.dumps({"networks": found}, indent=1, ensure_ascii=False) + "\n"
    write_atomically(
        arguments.out / "network.npz", lambda file: np.savez_compressed(file, **arrays)
    )
    write_atomically(arguments.out / "network.json", text.encode())
    print(f"{count(len(found), 'network')}: {arguments.out / 'network.json'} and network.npz")


if __name__ == "__main__":
    main()
