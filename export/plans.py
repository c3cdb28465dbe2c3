"""The former name of `python -m export.tensorrt`, for one release."""

from __future__ import annotations

import sys

from export.tensorrt.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
