"""The former name of `python -m export.reports`, for one release."""

from __future__ import annotations

import sys

from export.reports.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
