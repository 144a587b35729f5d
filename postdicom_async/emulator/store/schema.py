"""The index of an archive: its tables, the views that its searches read, and the UUIDs that follow from UIDs."""

from __future__ import annotations

import sqlite3
from uuid import UUID, uuid5

SCHEMA = """
CREATE TABLE IF NOT EXISTS studies (
    id INTEGER PRIMARY KEY, study_uid TEXT NOT NULL UNIQUE, attributes TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY, series_uid TEXT NOT NULL, study_uid TEXT NOT NULL, modality TEXT NOT NULL,
    attributes TEXT NOT NULL, UNIQUE (study_uid, series_uid));
CREATE TABLE IF NOT EXISTS instances (
    id INTEGER PRIMARY KEY, instance_uid TEXT NOT NULL UNIQUE, series_uid TEXT NOT NULL, study_uid TEXT NOT NULL,
    path TEXT NOT NULL, size INTEGER NOT NULL, transfer_syntax TEXT NOT NULL, attributes TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS series_by_uid ON series (series_uid);
CREATE INDEX IF NOT EXISTS instances_by_study ON instances (study_uid, series_uid);
CREATE INDEX IF NOT EXISTS instances_by_series ON instances (series_uid);
"""

VIEWS = """
CREATE TEMP VIEW study_rows AS
    SELECT id, study_uid, '' AS series_uid, '' AS instance_uid, attributes, '{}', '{}',
        (SELECT COUNT(*) FROM series c WHERE c.study_uid = s.study_uid),
        (SELECT COUNT(*) FROM instances c WHERE c.study_uid = s.study_uid),
        (SELECT GROUP_CONCAT(DISTINCT c.modality) FROM series c WHERE c.study_uid = s.study_uid), NULL, ''
    FROM studies s;
CREATE TEMP VIEW series_rows AS
    SELECT e.id, e.study_uid, e.series_uid, '' AS instance_uid, s.attributes, e.attributes, '{}',
        (SELECT COUNT(*) FROM series c WHERE c.study_uid = e.study_uid),
        (SELECT COUNT(*) FROM instances c WHERE c.study_uid = e.study_uid),
        (SELECT GROUP_CONCAT(DISTINCT c.modality) FROM series c WHERE c.study_uid = e.study_uid),
        (SELECT COUNT(*) FROM instances c WHERE c.study_uid = e.study_uid AND c.series_uid = e.series_uid), ''
    FROM series e JOIN studies s USING (study_uid);
CREATE TEMP VIEW instance_rows AS
    SELECT i.id, i.study_uid, i.series_uid, i.instance_uid, s.attributes, e.attributes, i.attributes,
        NULL, NULL, NULL, NULL, i.path
    FROM instances i JOIN series e USING (study_uid, series_uid) JOIN studies s USING (study_uid);
"""
PUT_STUDY = """
INSERT INTO studies (study_uid, attributes) VALUES (?, ?) ON CONFLICT DO UPDATE SET attributes = excluded.attributes
"""
PUT_SERIES = """
INSERT INTO series (series_uid, study_uid, modality, attributes) VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET attributes = excluded.attributes, modality = excluded.modality
"""
PUT_INSTANCE = """
INSERT INTO instances (instance_uid, series_uid, study_uid, path, size, transfer_syntax, attributes)
    VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET series_uid = excluded.series_uid,
    study_uid = excluded.study_uid, path = excluded.path, size = excluded.size,
    transfer_syntax = excluded.transfer_syntax, attributes = excluded.attributes
"""
PRUNE = (
    """DELETE FROM series WHERE study_uid = ? AND NOT EXISTS (SELECT 1 FROM instances i
        WHERE i.study_uid = series.study_uid AND i.series_uid = series.series_uid)""",
    """DELETE FROM studies WHERE study_uid = ? AND NOT EXISTS (SELECT 1 FROM series e
        WHERE e.study_uid = studies.study_uid)""",
)
"""Forget the series, then the study, that lost their last instance."""

UID_COLUMNS = {"0020000D": "study_uid", "0020000E": "series_uid", "00080018": "instance_uid"}

_NAMESPACE = UUID("5d1f6a0e-52b8-4f52-9f1c-3a6f1c7c5b11")
_VENDOR_SCHEMA = """
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
    """Create the tables unless they exist, and give every study an order from now on."""
    database.create_function("order_uuid_of", 1, order_uuid_of, deterministic=True)
    database.executescript(f"BEGIN;{_VENDOR_SCHEMA}{_TRIGGERS}{_ORDERS_OF_OLD_STUDIES}COMMIT;")
