"""Check a folder with chest radiographs and build its cache.

python -m lib.jsrt data/JSRT --size 256
"""

from lib.data.jsrt import main

if __name__ == "__main__":
    main()
