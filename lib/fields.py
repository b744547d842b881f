"""Compute receptive fields and feature maps of trained networks for the report.

python -m lib.fields runs/gtsrb_short/<run id> --data data/GTSRB --out analysis/results/gtsrb_short
"""

from lib.explain.trained import main

if __name__ == "__main__":
    main()
