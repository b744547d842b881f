"""Draw synthetic traffic signs in the official layout, for tests and demos without a download.

python -m lib.synthetic data/synthetic-signs
"""

from lib.data.synthetic_signs import main

if __name__ == "__main__":
    main()
