"""Folders of patient orders, in a tree. Methods block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from postdicom_async.emulator.answers import Refusal
from postdicom_async.emulator.vendor.order_search import contains

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from postdicom_async.emulator.store.archive import ArchiveStore

__all__ = ["ROOT", "Folder", "Folders"]

ROOT = ""
"""The parent of the uppermost folders."""

_SELECT = "SELECT uuid, parent_uuid, name, description FROM folders {where} ORDER BY id"


@dataclass(frozen=True)
class Folder:
    """One folder."""

    uuid: str
    parent_uuid: str
    name: str
    description: str


class Folders:
    """The folders of an archive."""

    def __init__(self, store: ArchiveStore) -> None:
        self._store = store

    def one(self, uuid: str) -> Folder:
        """Return one folder.

        Raises:
            Refusal: 404 when it is unknown.
        """
        with self._store.transaction() as database:
            found = _folders(database, "WHERE uuid = ?", uuid)
        if not found:
            raise Refusal(404, "no such folder")
        return found[0]

    def create(self, name: str, description: str, parent_uuid: str) -> Folder:
        """Make a folder; ``a/b`` makes ``b`` in ``a``, and ``a`` too unless it is there.

        The last one is always new, so that a request that was repeated shows.

        Raises:
            Refusal: 404 for an unknown parent, 400 for a name of slashes only.
        """
        *above, last = [part for part in name.split("/") if part.strip()] or [""]
        if not last:
            raise Refusal(400, "FolderName holds no name")
        if parent_uuid != ROOT:
            self.one(parent_uuid)
        with self._store.transaction() as database:
            for part in above:
                there = _folders(database, "WHERE parent_uuid = ? AND name = ?", parent_uuid, part)
                parent_uuid = (there[0] if there else _insert(database, parent_uuid, part, "")).uuid
            return _insert(database, parent_uuid, last, description)

    def search(self, parent_uuid: str, part_of_name: str) -> list[Folder]:
        """Return the folders in a folder; given a part of their names, those anywhere below it.

        Raises:
            Refusal: 404 for an unknown parent.
        """
        if parent_uuid != ROOT:
            self.one(parent_uuid)
        if not part_of_name:
            return self.children(parent_uuid)
        return [folder for folder in self.below(parent_uuid) if contains(folder.name, part_of_name)]

    def children(self, parent_uuid: str) -> list[Folder]:
        """Return the folders right inside a folder."""
        with self._store.transaction() as database:
            return _folders(database, "WHERE parent_uuid = ?", parent_uuid)

    def below(self, parent_uuid: str) -> Iterator[Folder]:
        """Return every folder below a folder, each before its own."""
        waiting = self.children(parent_uuid)
        while waiting:
            folder = waiting.pop(0)
            yield folder
            waiting = self.children(folder.uuid) + waiting

    def order_uuids(self, uuid: str) -> list[str]:
        """Return the orders in a folder, in the order they were put there."""
        with self._store.transaction() as database:
            rows = database.execute("SELECT order_uuid FROM folder_orders WHERE folder_uuid = ? ORDER BY id", (uuid,))
            return [order for (order,) in rows]

    def folders_of(self, order_uuid: str) -> list[str]:
        """Return the folders an order is in."""
        with self._store.transaction() as database:
            rows = database.execute(
                "SELECT folder_uuid FROM folder_orders WHERE order_uuid = ? ORDER BY id", (order_uuid,)
            )
            return [folder for (folder,) in rows]

    def add_order(self, order_uuid: str, uuids: Sequence[str]) -> None:
        """Put an order into folders, all or none; where it is already, nothing changes.

        Raises:
            Refusal: 404 for an unknown folder.
        """
        for uuid in uuids:
            self.one(uuid)
        with self._store.transaction() as database:
            database.executemany(
                "INSERT OR IGNORE INTO folder_orders (folder_uuid, order_uuid) VALUES (?, ?)",
                [(uuid, order_uuid) for uuid in uuids],
            )


def _folders(database: sqlite3.Connection, where: str, *arguments: str) -> list[Folder]:
    return [Folder(*row) for row in database.execute(_SELECT.format(where=where), arguments)]


def _insert(database: sqlite3.Connection, parent_uuid: str, name: str, description: str) -> Folder:
    folder = Folder(str(uuid4()), parent_uuid, name, description)
    database.execute(
        "INSERT INTO folders (uuid, parent_uuid, name, description) VALUES (?, ?, ?, ?)",
        (folder.uuid, folder.parent_uuid, folder.name, folder.description),
    )
    return folder
