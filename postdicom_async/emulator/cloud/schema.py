"""The Cloud API's own tables, beside those of orders and folders: flags and documents. Functions block."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from postdicom_async.emulator.store.archive import ArchiveStore

__all__ = ["Document", "add_cloud_tables", "documents_of"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cloud_flags (
    order_uuid TEXT NOT NULL, group_id INTEGER NOT NULL, flag_id INTEGER NOT NULL, PRIMARY KEY (order_uuid, group_id));
CREATE TABLE IF NOT EXISTS cloud_documents (
    id INTEGER PRIMARY KEY, order_uuid TEXT NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL, size INTEGER NOT NULL,
    path TEXT NOT NULL);
CREATE TEMP TRIGGER IF NOT EXISTS flags_and_documents_of_a_deleted_order AFTER DELETE ON main.orders BEGIN
    DELETE FROM cloud_flags WHERE order_uuid = OLD.uuid;
    DELETE FROM cloud_documents WHERE order_uuid = OLD.uuid;
END;
"""


@dataclass(frozen=True)
class Document:
    """One document of an order; ``path`` is the archive's own."""

    name: str = field(repr=False)
    type: str
    size: int
    path: Path

    @property
    def content(self) -> bytes:
        """Its bytes; read from disk."""
        return self.path.read_bytes()


def add_cloud_tables(store: ArchiveStore) -> None:
    """Make the tables unless they are there, and remove the files of documents that they do not name."""
    with store.transaction() as database:
        database.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
        known = {store.folder / path for (path,) in database.execute("SELECT path FROM cloud_documents")}
    for file in [] if store.is_new else store.folder.glob("documents/*/*"):
        if file not in known:
            file.unlink()


def documents_of(store: ArchiveStore, order_uuid: str) -> list[Document]:
    """Return the documents attached to an order."""
    with store.transaction() as database:
        rows = database.execute(
            "SELECT name, type, size, path FROM cloud_documents WHERE order_uuid = ? ORDER BY id", (order_uuid.lower(),)
        ).fetchall()
    return [Document(name, kind, size, store.folder / path) for name, kind, size, path in rows]
