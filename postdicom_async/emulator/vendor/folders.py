"""Folders of patient orders, in a tree. Methods block.

A folder knows its parent, and which orders are in it; an order may be in several. A deleted order is taken out by a
trigger (`store.schema`); a deleted folder takes those below it along, but never their orders.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from uuid import uuid4

from postdicom_async.emulator.answers import Refusal
from postdicom_async.emulator.store.archive import ArchiveStore
from postdicom_async.emulator.vendor.orders import contains


@dataclass(frozen=True)
class StoredFolder:
    """One folder; the topmost have the parent ``""``."""

    uuid: str
    parent_uuid: str
    name: str
    description: str


ROOT = StoredFolder("", "", "", "")
"""The parent of the topmost folders."""


class StoredFolders:
    """The folders of an archive."""

    def __init__(self, store: ArchiveStore) -> None:
        self._store = store

    def one(self, uuid: str) -> StoredFolder:
        """Return one folder.

        Raises:
            Refusal: 404 when it is unknown.
        """
        found = self._select("WHERE uuid = ?", uuid)
        if not found:
            raise Refusal(404, "no such folder")
        return found[0]

    def parent(self, uuid: str) -> StoredFolder:
        """Return the folder that holds others, the root for an empty UUID; an unknown one is refused."""
        return self.one(uuid) if uuid else ROOT

    def create(self, name: str, description: str, parent_uuid: str) -> StoredFolder:
        """Make a folder; ``a/b`` makes ``b`` in ``a``, and ``a`` too unless it is there.

        The last one is always new, so that a request that was repeated shows.

        Raises:
            Refusal: 404 for an unknown parent, 400 for a name of slashes only.
        """
        *above, last = [part for part in name.split("/") if part.strip()] or [""]
        if not last:
            raise Refusal(400, "FolderName holds no name")
        parent = self.parent(parent_uuid)
        with self._store.transaction() as database:  # one for all: of a/b/c there is everything or nothing
            for part in above:
                there = _folders(database, "WHERE parent_uuid = ? AND name = ?", parent.uuid, part)
                parent = there[0] if there else _insert(database, parent, part, "")
            return _insert(database, parent, last, description)

    def search(self, parent_uuid: str, part_of_name: str) -> list[StoredFolder]:
        """Return the folders in a folder; given a part of their names, those anywhere below it.

        Raises:
            Refusal: 404 for an unknown parent.
        """
        parent = self.parent(parent_uuid)
        if not part_of_name:
            return self.children(parent.uuid)
        return [folder for folder in self.below(parent.uuid) if contains(folder.name, part_of_name)]

    def children(self, parent_uuid: str) -> list[StoredFolder]:
        """Return the folders right inside a folder."""
        return self._select("WHERE parent_uuid = ?", parent_uuid)

    def below(self, parent_uuid: str) -> Iterator[StoredFolder]:
        """Return every folder below a folder, each before its own."""
        waiting = self.children(parent_uuid)
        while waiting:
            folder = waiting.pop(0)
            yield folder
            waiting = self.children(folder.uuid) + waiting

    def change(self, uuid: str, name: str, description: str) -> StoredFolder:
        """Give a folder another name and description."""
        with self._store.transaction() as database:
            database.execute("UPDATE folders SET name = ?, description = ? WHERE uuid = ?", (name, description, uuid))
        return self.one(uuid)

    def delete(self, uuid: str) -> None:
        """Delete a folder and those below it; their orders stay.

        Raises:
            Refusal: 404 when it is unknown.
        """
        gone = [(one.uuid,) for one in (self.one(uuid), *self.below(uuid))]

        def forget(database: sqlite3.Connection) -> None:
            database.executemany("DELETE FROM folder_orders WHERE folder_uuid = ?", gone)
            database.executemany("DELETE FROM folders WHERE uuid = ?", gone)

        self._store.deleting(forget)

    def order_uuids(self, uuid: str) -> list[str]:
        """Return the orders in a folder, in the order they were put there."""
        return self._column("SELECT order_uuid FROM folder_orders WHERE folder_uuid = ? ORDER BY id", uuid)

    def folders_of(self, order_uuid: str) -> list[str]:
        """Return the folders an order is in."""
        return self._column("SELECT folder_uuid FROM folder_orders WHERE order_uuid = ? ORDER BY id", order_uuid)

    def add_order(self, order_uuid: str, uuids: Iterable[str]) -> None:
        """Put an order into folders, all or none; where it is already, nothing changes.

        Raises:
            Refusal: 404 for an unknown folder.
        """
        rows = [(self.one(uuid).uuid, order_uuid) for uuid in uuids]
        with self._store.transaction() as database:
            database.executemany("INSERT OR IGNORE INTO folder_orders (folder_uuid, order_uuid) VALUES (?, ?)", rows)

    def remove_orders(self, uuid: str, order_uuids: list[str]) -> None:
        """Take orders out of a folder, all or none.

        Raises:
            Refusal: 404 when the folder is unknown, or one of them is not in it.
        """
        if not set(order_uuids) <= set(self.order_uuids(self.one(uuid).uuid)):
            raise Refusal(404, "an order is not in the folder")
        rows = [(uuid, order) for order in order_uuids]
        sql = "DELETE FROM folder_orders WHERE folder_uuid = ? AND order_uuid = ?"
        self._store.deleting(lambda database: database.executemany(sql, rows))

    def _select(self, where: str, *arguments: str) -> list[StoredFolder]:
        with self._store.transaction() as database:
            return _folders(database, where, *arguments)

    def _column(self, sql: str, *arguments: str) -> list[str]:
        with self._store.transaction() as database:
            return [value for (value,) in database.execute(sql, arguments)]


def _folders(database: sqlite3.Connection, where: str, *arguments: str) -> list[StoredFolder]:
    sql = f"SELECT uuid, parent_uuid, name, description FROM folders {where} ORDER BY id"  # noqa: S608
    return [StoredFolder(*row) for row in database.execute(sql, arguments)]


def _insert(database: sqlite3.Connection, parent: StoredFolder, name: str, description: str) -> StoredFolder:
    folder = StoredFolder(str(uuid4()), parent.uuid, name, description)
    row = (folder.uuid, folder.parent_uuid, folder.name, folder.description)
    database.execute("INSERT INTO folders (uuid, parent_uuid, name, description) VALUES (?, ?, ?, ?)", row)
    return folder
