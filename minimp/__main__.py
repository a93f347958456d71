"""``python -m minimp`` is the ``minimp`` command."""

import sys

from minimp.cli import main

if __name__ == "__main__":
    sys.exit(main())
