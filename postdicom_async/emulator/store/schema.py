"""The index of an archive: its tables, and the views that its searches read."""

from __future__ import annotations

__all__ = ["PRUNE", "PUT_INSTANCE", "PUT_SERIES", "PUT_STUDY", "SCHEMA", "UID_COLUMNS", "VIEWS"]

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
