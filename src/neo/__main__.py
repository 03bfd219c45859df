"""`python -m neo`, the same as the command `neo`."""

import sys

from neo.cli import main

if __name__ == "__main__":
    sys.exit(main())
