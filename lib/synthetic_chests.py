"""Draw synthetic chest radiographs with lung masks, for tests and demos without a download.

python -m lib.synthetic_chests data/synthetic-chests
"""

from lib.data.synthetic_chests import main

if __name__ == "__main__":
    main()
