"""The mark ``large``: more cases, larger data or the other transport; ``pytest -m large`` runs them.

The cases without the mark are chosen to take each path through the code; those with it repeat them with more data.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

__all__ = ["examples", "large"]

LARGE = os.environ.get("POSTDICOM_TESTS") == "large"  # read here: tests run without such settings


def large(*values: Any) -> Any:
    """Give a case of a parametrised test that the suite leaves out unless it is asked for."""
    return pytest.param(*values, marks=pytest.mark.large)


def examples(most: int) -> int:
    """Return how many examples hypothesis makes: a quarter of them, or all with ``POSTDICOM_TESTS=large``."""
    return most if LARGE else -(-most // 4)
