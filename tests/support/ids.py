"""Names of test cases that are the same in every run: workers that share a suite compare them."""

from __future__ import annotations

import re

__all__ = ["shown"]


def shown(value: object) -> str:
    """Return a value's ``repr`` without its address in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
