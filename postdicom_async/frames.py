"""Data frames of pandas with typed columns, from columns of Python values. Pure.

pandas (the extra ``pandas``) is imported when the first frame is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from postdicom_async.errors import UsageError

if TYPE_CHECKING:
    from pandas import DataFrame


class ColumnKind(StrEnum):
    """What the values of a column are in Python, and the type that pandas has for them; an absent value is None."""

    TEXT = "string"
    INTEGER = "Int64"
    NUMBER = "Float64"
    FLAG = "boolean"
    DATE = "datetime64[s]"
    """`datetime.date`; to seconds, because to nanoseconds pandas knows no date before 1678."""
    TIME = "timedelta64[us]"
    """`datetime.timedelta` since midnight, so that it can be added to a date."""
    SEVERAL = "object"
    """Tuples, of any number of values."""


class ColumnValues(NamedTuple):
    """The values of a column."""

    kind: ColumnKind
    values: Sequence[Any]


def load_pandas() -> None:
    """Import pandas, which takes half a second the first time.

    Raises:
        UsageError: it is not installed.
    """
    if find_spec("pandas") is None:
        raise UsageError('data frames need pandas; pip install "postdicom-async[pandas]"')
    import_module("pandas")


def frame_of(columns: Mapping[str, ColumnValues]) -> DataFrame:
    """Return a frame of whole columns, all of one length.

    Raises:
        UsageError: pandas is not installed.
    """
    frame = FrameInParts()
    frame.add(columns)
    return frame.whole()


class FrameInParts:
    """A frame that is made of parts, so that beside it memory holds one part as Python values.

    A column that a part does not have is empty there; one that comes later than others is empty before.
    """

    def __init__(self) -> None:
        load_pandas()
        self._kinds: dict[str, ColumnKind] = {}
        self._parts: list[tuple[int, dict[str, Any]]] = []

    def add(self, columns: Mapping[str, ColumnValues]) -> None:
        """Add rows: the values of all their columns, which must be of one length."""
        rows = len(next(iter(columns.values()))[1]) if columns else 0
        self._parts.append((rows, {name: _series(kind, values) for name, (kind, values) in columns.items()}))
        for name, (kind, _) in columns.items():
            self._kinds.setdefault(name, kind)

    def whole(self, order: Iterable[str] | None = None) -> DataFrame:
        """Return the frame, its columns in an order, otherwise in that in which they came. It can be called once.

        A column that the order names twice stands once, where it is named first.
        """
        import pandas as pd

        made: dict[str, Any] = {}
        for name in self._kinds if order is None else dict.fromkeys(order):
            kind = self._kinds[name]
            parts = [
                _series(kind, [None] * rows) if (part := of_part.pop(name, None)) is None else part
                for rows, of_part in self._parts
            ]
            made[name] = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
        return pd.DataFrame(made)


def _series(kind: ColumnKind, values: Sequence[Any]) -> Any:
    import numpy as np
    import pandas as pd

    if kind in (ColumnKind.DATE, ColumnKind.TIME):
        return pd.Series(np.array(values, dtype=kind.value))
    return pd.Series(list(values), dtype=kind.value)
