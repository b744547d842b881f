"""Check a folder with traffic signs and build its cache.

python -m lib.gtsrb data/GTSRB
"""

from lib.data.gtsrb import main

if __name__ == "__main__":
    main()
