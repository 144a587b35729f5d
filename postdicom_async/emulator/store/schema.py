"""The index of an archive: its tables, and the views that its searches read."""

from __future__ import annotations

from postdicom_async.emulator.store.attributes import QueryLevel

__all__ = ["ROWS", "SCHEMA", "UID_COLUMNS", "VIEWS"]

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
ROWS = {
    QueryLevel.STUDY: "SELECT * FROM study_rows",
    QueryLevel.SERIES: "SELECT * FROM series_rows",
    QueryLevel.INSTANCE: "SELECT * FROM instance_rows",
}
UID_COLUMNS = {"0020000D": "study_uid", "0020000E": "series_uid", "00080018": "instance_uid"}
