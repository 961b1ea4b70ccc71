"""``python -m vislens_interp``: the same as ``vislens``."""

import sys

from vislens_interp.cli import main

if __name__ == "__main__":
    sys.exit(main())
