"""``python -m ocd_bench``."""

import sys

from ocd_bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
