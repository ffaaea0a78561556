"""``python -m api CONFIG.json``; see :mod:`api.main`."""

import sys

from api.main import main

if __name__ == "__main__":
    sys.exit(main())
