"""Orders and folders as a table: the data frame of all; and what a notebook may show of its own accord, UUIDs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from postdicom_async.errors import ProtocolError, UsageError
from postdicom_async.frames import ColumnKind, ColumnValues, frame_of, load_pandas

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from pandas import DataFrame

    from postdicom_async.vendor.answers import VendorAnswer

_KINDS: Final = {
    "str": ColumnKind.TEXT,
    "str | None": ColumnKind.TEXT,
    "int | None": ColumnKind.INTEGER,
    "bool | None": ColumnKind.FLAG,
}
"""By what a property of an answer gives; lists have no column."""
_UUID: Final = re.compile(r"[0-9a-fA-F-]{36}")


class AnswerTable:
    """How the objects that a search finds become a table: a column for each property that has one value.

    Args:
        operation: what was asked, in our words.
        kind: the type of the objects.
    """

    def __init__(self, operation: str, kind: type[VendorAnswer]) -> None:
        self.operation: str = operation
        self._kind = kind
        own = {name: value.fget for name, value in vars(kind).items() if isinstance(value, property)}
        kinds = {name: _KINDS.get(getter.__annotations__["return"]) for name, getter in own.items()}
        self._columns = {name: found for name, found in kinds.items() if found is not None}

    @property
    def headings(self) -> list[str]:
        """The columns of `cells`."""
        return [name for name in self._columns if name.endswith("_uuid")]

    def cells(self, item: Mapping[str, Any]) -> list[str]:
        """Return what may be shown of an object."""
        found = self._kind(item)
        return [_uuid_of(found, name) for name in self.headings]

    async def frame(
        self,
        items: AsyncIterator[Mapping[str, Any]],
        columns: Iterable[str] | None,
        warnings: list[str],  # noqa: ARG002
    ) -> DataFrame:
        """Read all objects into a frame.

        Raises:
            UsageError: pandas is not installed, or a column is none; nothing was asked then.
        """
        names = list(self._columns) if columns is None else list(dict.fromkeys(columns))
        if unknown := [name for name in names if name not in self._columns]:
            known = ", ".join(self._columns)
            raise UsageError(f"{len(unknown)} of the columns are none; there are {known}", argument="columns")
        await anyio.to_thread.run_sync(load_pandas, limiter=anyio.CapacityLimiter(1))
        values: dict[str, list[Any]] = {name: [] for name in names}
        async for item in items:
            found = self._kind(item)
            for name in names:
                values[name].append(getattr(found, name))
        return frame_of({name: ColumnValues(self._columns[name], values[name]) for name in names})


def _uuid_of(found: VendorAnswer, name: str) -> str:
    try:
        text = getattr(found, name) or ""
    except ProtocolError:  # the service gave none
        return ""
    return text if _UUID.fullmatch(text) else ""
