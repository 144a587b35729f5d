"""The tables of orders, folders and shares, beside those of the files."""

from __future__ import annotations

__all__ = ["VENDOR_SCHEMA"]

VENDOR_SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, study_uid TEXT UNIQUE, institution_uuid TEXT NOT NULL,
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
