"""``python -m face3d_client`` is ``face3d``."""

import sys

from face3d_client.cli import main

if __name__ == "__main__":
    sys.exit(main())
