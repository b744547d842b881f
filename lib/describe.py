"""Describe a network layer by layer: operation, shapes, parameters, cost, receptive field.

    python -m lib.describe gtsrb --batch-norm True
    python -m lib.describe unet --upsampling nearest --image-size 128 --width 8
    python -m lib.describe gtsrb --format latex

All other flags are passed to the network's training script.
"""

import argparse
from collections.abc import Sequence

from lib.explain import scripts
from lib.explain.layers import FORMATS
from lib.explain.receptive_field import trace
from lib.spec.errors import command
from lib.training import config


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Describe a network layer by layer; takes the flags of its training script too."""
    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False)
    parser.add_argument("network", choices=scripts.SHORT, help="which network")
    parser.add_argument("--format", choices=FORMATS, default="text", help="output format")
    arguments, flags = parser.parse_known_args(argv)
    script = scripts.load(scripts.SHORT[arguments.network])
    cfg = config.from_flags(script.Config, flags)
    print(FORMATS[arguments.format](trace(script.network(cfg), script.input_shape(cfg))))


if __name__ == "__main__":
    main()
