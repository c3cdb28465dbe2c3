"""The one header that passes to Triton: where a request belongs in its client's trace (W3C Trace Context)."""

from __future__ import annotations

import re
from typing import Final

TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
