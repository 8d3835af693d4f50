"""`python -m zoo VERB …`, the same as `zoo VERB …`."""

import sys

from zoo.cli import main

if __name__ == "__main__":
    sys.exit(main())
