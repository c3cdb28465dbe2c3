"""The former name of `python -m export.calibrate.sensitivity`, for one release."""

from __future__ import annotations

import sys

from export.calibrate.sensitivity import main

if __name__ == "__main__":
    sys.exit(main())
