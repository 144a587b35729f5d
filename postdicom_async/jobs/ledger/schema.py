"""The tables of a job's ledger. It is an SQLite file that any SQLite browser can open.

========== ============================================================================================================
table      what it holds
========== ============================================================================================================
fact       ``name``, ``value`` as JSON: what the job is, and how far it is (see below)
study      one line a study: ``uid`` ("" for what is no instance); ``month`` YYYYMM, 0 undated, -1 no instance;
           ``position`` in which order they are taken; ``at_source``, ``at_target`` how many instances each end says
           it has; ``planned`` what ``at_source`` was when its items were listed; ``unlisted`` how many count as present
           without an item; ``verified`` how many were found at the target; ``stage`` 0 found, 1 equal by count,
           2 planned, 3 moved, 4 verified; ``seen``, ``seen_at_target`` the run in which it was last listed
series     ``id``, its ``study``, its ``uid`` ("" for what is no instance)
item       one line an item: its ``series``, ``uid`` (a digest for what is no instance), ``state`` 0 pending, 1 running,
           2 done, 3 present, 4 excluded, 5 failed, 6 unconfirmed, 7 deleted; ``reason`` (``states.Reason``; from 1000
           on an HTTP status, from 65536 on a reason code of DICOM); ``attempts``; ``size`` in bytes; ``digest`` of what
           was sent, if asked for
tally      ``instances`` and ``bytes`` by study and state: the sum over its items, with ``unlisted`` ones
total      the same by month, state and reason: the sum over everything
calendar   by month: ``studies`` the source has; ``equal`` those equal by count; ``waiting`` those that are not planned,
           with ``expected`` instances; ``verified`` instances
moment     what was moved in a minute; ``at`` is seconds since 1970
coerced    elements that the target changed, by tag, and in how many instances
note       lines for people, with their time
========== ============================================================================================================

``mark`` is a checksum over the line, so that a changed bit is noticed when the line is read.

================== ===================================================================================================
fact               what it is
================== ===================================================================================================
verb               ``copy``, ``sync`` or ``verify``
source, target     the names of the ends as they may be shown
created            ISO 8601, with the offset to UTC
verify             ``none``, ``listed`` or ``bytes``
sample             the share of instances that ``bytes`` compares, 0 to 1
phase              ``discovering``, ``moving``, ``verifying``, ``deleting``, ``complete``
run                how often it was started anew, from 1 on
seconds            how long it has run in all
discovery_complete whether every study of the source has been found in this run
identity           a keyed digest of what the job is about; a ledger with another is another job's
parts              while the parts of a job are out: ``token``, ``of`` how many, ``back`` which ones (see ``partition``)
part               of a part: the ``token`` of its partition, its ``number``, ``of`` how many
================== ===================================================================================================

Others are the engine's own.
"""

from __future__ import annotations

import zlib
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postdicom_async.jobs.states import State

if TYPE_CHECKING:
    from collections.abc import Sequence


APPLICATION_ID: Final = 0x50444A4C
"""SQLite's application id of a ledger, ``PDJL``; `file` checks it."""
VERSION: Final = 1
PAGE_SIZE: Final = 4096

BEFORE_ALL: Final = (-(1 << 62), 0)
"""A position and number that sort before every study."""

LISTED_BY_REASON: Final = (State.EXCLUDED, State.FAILED, State.UNCONFIRMED)
"""States with an index by state and reason, so that their items are found without a full scan."""

_TABLES: Final = """\
CREATE TABLE fact (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, mark INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE study (
    id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, month INTEGER NOT NULL, position INTEGER NOT NULL,
    at_source INTEGER, at_target INTEGER, planned INTEGER, unlisted INTEGER NOT NULL, verified INTEGER NOT NULL,
    stage INTEGER NOT NULL, seen INTEGER NOT NULL, seen_at_target INTEGER NOT NULL, mark INTEGER NOT NULL);
CREATE INDEX study_by_stage ON study (stage, position);
CREATE INDEX study_by_position ON study (position);
CREATE TABLE series (id INTEGER PRIMARY KEY, study INTEGER NOT NULL, uid TEXT NOT NULL, UNIQUE (study, uid));
CREATE TABLE item (
    series INTEGER NOT NULL, uid TEXT NOT NULL, state INTEGER NOT NULL, reason INTEGER NOT NULL,
    attempts INTEGER NOT NULL, size INTEGER NOT NULL, digest BLOB, mark INTEGER NOT NULL,
    PRIMARY KEY (series, uid)) WITHOUT ROWID;
CREATE INDEX item_by_reason ON item (state, reason) WHERE state IN (4, 5, 6);
CREATE TABLE tally (
    study INTEGER NOT NULL, state INTEGER NOT NULL, instances INTEGER NOT NULL CHECK (instances >= 0),
    bytes INTEGER NOT NULL CHECK (bytes >= 0), PRIMARY KEY (study, state)) WITHOUT ROWID;
CREATE INDEX tally_by_state ON tally (state);
CREATE TABLE total (
    month INTEGER NOT NULL, state INTEGER NOT NULL, reason INTEGER NOT NULL,
    instances INTEGER NOT NULL CHECK (instances >= 0), bytes INTEGER NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (month, state, reason)) WITHOUT ROWID;
CREATE TABLE calendar (
    month INTEGER PRIMARY KEY, studies INTEGER NOT NULL, equal INTEGER NOT NULL, waiting INTEGER NOT NULL,
    expected INTEGER NOT NULL, verified INTEGER NOT NULL);
CREATE TABLE moment (at INTEGER PRIMARY KEY, instances INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE coerced (tag TEXT NOT NULL PRIMARY KEY, instances INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE note (id INTEGER PRIMARY KEY, at REAL NOT NULL, text TEXT NOT NULL)"""
SCHEMA: Final = tuple(_TABLES.split(";\n"))
"""The CREATE statements, exactly as SQLite stores them."""


class Stage(IntEnum):
    """How far a study is in this run."""

    FOUND = 0
    """The source lists it; it is not decided yet what to do with it."""
    EQUAL = 1
    """Equal counts at both ends, so not listed: its instances are in the counts, but have no rows."""
    PLANNED = 2
    """Its items are in the ledger; some may be pending."""
    MOVED = 3
    """None of its items is pending or running."""
    VERIFIED = 4


class StudyRow(NamedTuple):
    """A study in the ledger: a row of the table ``study``, without its mark.

    Attributes:
        id: its number in this ledger.
        uid: its Study Instance UID, "" for the entry of files that are not instances.
        month: YYYYMM, 0 if undated, -1 for files that are not instances. No day: that would be patient data.
        position: studies are taken in this order, the smallest first.
        at_source, at_target: the number of instances each end reports, None if it reports none or was not asked.
        planned: the value of ``at_source`` when its items were listed or found equal; None before that.
        unlisted: how many instances count as present without an item.
        verified: how many items were found at the target.
        stage: see `Stage`.
        seen: the run in which the source last listed it.
        seen_at_target: the run in which the target last listed it.
    """

    id: int
    uid: str
    month: int
    position: int
    at_source: int | None = None
    at_target: int | None = None
    planned: int | None = None
    unlisted: int = 0
    verified: int = 0
    stage: Stage = Stage.FOUND
    seen: int = 0
    seen_at_target: int = 0

    @property
    def shares(self) -> tuple[int, int, int, int, int]:
        """Its contribution to the calendar: studies, equal, waiting, expected, verified."""
        if not self.seen or not self.uid:
            return 0, 0, 0, 0, 0
        waits = self.stage is Stage.FOUND
        equal = self.stage is Stage.EQUAL or self.unlisted > 0
        return 1, int(equal), int(waits), (self.at_source or 0) if waits else 0, self.verified


class ItemRow(NamedTuple):
    """An item in the ledger. For a file that is not an instance ``uid`` is a digest and ``series`` is empty."""

    series: str
    uid: str
    state: State
    reason: int = 0
    attempts: int = 0
    size: int = 0
    digest: bytes = b""


def _mark(text: str, digest: bytes | None = None) -> int:
    found = zlib.crc32(text.encode())
    return (zlib.crc32(digest, found) if digest else found) & 0x7FFFFFFF  # SQLite stores it in four bytes


def fact_mark(name: str, value: str) -> int:
    """Return the mark of a fact."""
    return _mark(f"{name}/{value}")


def study_mark(study: Sequence[object]) -> int:
    """Return the mark of a study: of its columns in their order."""
    return _mark("/".join(map(str, study)))


def item_mark(study: int, item: Sequence[Any]) -> int:
    """Return the mark of an item: series' UID, UID, state, reason, attempts, size, digest; and the study's number."""
    series, uid, state, reason, attempts, size, digest = item
    return _mark(f"{study}/{series}/{uid}/{state:d}/{reason:d}/{attempts:d}/{size:d}", digest)
