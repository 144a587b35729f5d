"""The tables of orders, folders and shares, beside those of the files, and the UUIDs that follow from UIDs."""

from __future__ import annotations

import sqlite3
from uuid import UUID, uuid5

__all__ = ["add_vendor_tables", "order_uuid_of", "series_uuid_of"]

_NAMESPACE = UUID("5d1f6a0e-52b8-4f52-9f1c-3a6f1c7c5b11")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, study_uid TEXT UNIQUE, institution_uuid TEXT NOT NULL DEFAULT '',
    fields TEXT NOT NULL DEFAULT '{}', user_uuid TEXT NOT NULL DEFAULT '', group_uuid TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS folders (
    id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, parent_uuid TEXT NOT NULL, name TEXT NOT NULL,
    description TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS folders_by_parent ON folders (parent_uuid);
CREATE TABLE IF NOT EXISTS folder_orders (
    id INTEGER PRIMARY KEY, folder_uuid TEXT NOT NULL, order_uuid TEXT NOT NULL, UNIQUE (folder_uuid, order_uuid));
CREATE TABLE IF NOT EXISTS shares (
    token_hash TEXT PRIMARY KEY, folder_uuid TEXT NOT NULL, order_uuids TEXT NOT NULL, title TEXT NOT NULL,
    description TEXT NOT NULL, password TEXT NOT NULL, expires TEXT NOT NULL, downloadable INTEGER NOT NULL);
"""

_TRIGGERS = """
CREATE TEMP TRIGGER order_of_a_new_study AFTER INSERT ON main.studies BEGIN
    INSERT INTO orders (uuid, study_uid) VALUES (order_uuid_of(NEW.study_uid), NEW.study_uid);
END;
CREATE TEMP TRIGGER order_of_a_deleted_study AFTER DELETE ON main.studies BEGIN
    DELETE FROM orders WHERE study_uid = OLD.study_uid;
END;
CREATE TEMP TRIGGER folders_of_a_deleted_order AFTER DELETE ON main.orders BEGIN
    DELETE FROM folder_orders WHERE order_uuid = OLD.uuid;
END;
"""
_ORDERS_OF_OLD_STUDIES = """
INSERT INTO orders (uuid, study_uid) SELECT order_uuid_of(study_uid), study_uid FROM studies s
    WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.study_uid = s.study_uid) ORDER BY id;
"""


def order_uuid_of(study_instance_uid: str) -> str:
    """Return the UUID of the order of a study: always the same."""
    return str(uuid5(_NAMESPACE, study_instance_uid))


def series_uuid_of(study_instance_uid: str, series_instance_uid: str) -> str:
    """Return the UUID of a series: always the same."""
    return str(uuid5(_NAMESPACE, f"{study_instance_uid}/{series_instance_uid}"))


def add_vendor_tables(database: sqlite3.Connection) -> None:
    """Make the tables unless they are there, and let every study have its order from now on."""
    database.create_function("order_uuid_of", 1, order_uuid_of, deterministic=True)
    database.executescript(f"BEGIN;{_SCHEMA}{_TRIGGERS}{_ORDERS_OF_OLD_STUDIES}COMMIT;")
