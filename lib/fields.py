r"""Extract effective receptive fields, filters, feature maps and checkerboards of trained networks.

    python -m lib.fields runs/gtsrb_short/3c8c5bdf runs/gtsrb_short/00db1c6b \
        --data data/GTSRB --out analysis/results/gtsrb_short

Takes the folders of finished runs of either data set and reads their newest checkpoints. Writes
network.npz and network.json, from which `python -m analysis.report` makes its section Network.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from lib.explain.trained import inspect_run
from lib.spec.errors import command
from lib.spec.files import write_atomically
from lib.spec.words import count


@command
def main() -> None:
    """Write network.npz and network.json, which describe trained networks, for the report."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="run", help="folder: runs/<study>/<run id>"
    )
    parser.add_argument("--data", required=True, help="data folder of the training")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder to write: analysis/results/<study>"
    )
    arguments = parser.parse_args()
    arrays: dict[str, np.ndarray] = {}
    networks = [inspect_run(folder, arguments.data, arrays) for folder in arguments.runs]
    text = json.dumps({"networks": networks}, indent=1, ensure_ascii=False) + "\n"
    write_atomically(
        arguments.out / "network.npz", lambda file: np.savez_compressed(file, **arrays)
    )
    write_atomically(arguments.out / "network.json", text.encode())
    print(f"{count(len(networks), 'network')}: {arguments.out / 'network.json'} and network.npz")


if __name__ == "__main__":
    main()
