"""Describe a network layer by layer.

python -m lib.describe gtsrb --batch-norm True
"""

from lib.explain.layers import main

if __name__ == "__main__":
    main()
