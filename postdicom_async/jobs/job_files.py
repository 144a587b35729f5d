"""Where jobs are kept: the user's state folder, a ledger for each pair of ends, and what is private beside it.

::

    NAME.ledger          what became of every item; no secrets, no patient data
    NAME.ledger.private  how the ends were written, filters and paths among it, so that the job can be resumed
    NAME.ledger.source, NAME.ledger.target   what folders hold (their index)

All of it is for this user alone. The name is told by a digest of both ends, their filters and the anonymisation, under
a key of this user: filters may hold patients' names, and names of files are seen by many.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from postdicom_async.disk.files import explained
from postdicom_async.disk.private_files import FileLock, forget, make_folder, whole_file
from postdicom_async.errors import LedgerUnusable, NotFound, UsageError

SUFFIX: Final = ".ledger"
_STATE = "POSTDICOM_STATE"
_MOST_NAMED = 4
_BESIDE = (
    *(f"{index}{part}" for index in ("", ".source", ".target") for part in ("", "-wal", "-shm")),
    ".private",
    ".lock",
)


def state_folder() -> Path:
    """Return the folder of the jobs, made for this user alone: ``POSTDICOM_STATE``, else in the user's state folder.

    Raises:
        LocalFileError: it cannot be made.
        UsageError: what finds the user's folders is not installed.
    """
    given = os.environ.get(_STATE)
    if given:
        folder = Path(given)
    else:
        if find_spec("platformdirs") is None:
            raise UsageError(
                'name a file, or pip install "postdicom-async[cli]" so that the state folder is found', argument="job"
            )
        from platformdirs import user_state_path

        folder = user_state_path("postdicom") / "jobs"
    with explained("the folder of the jobs"):
        make_folder(folder)
    return folder


def pair_digest(*parts: str) -> str:
    """Return what distinguishes a pair of ends from every other: 16 hexadecimal digits, under a key of this user."""
    digest = hashlib.blake2b(key=_key(), digest_size=8)
    for part in parts:  # each with its length, so that no other parts run together to the same bytes
        digest.update(len(part).to_bytes(8, "big") + part.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _key() -> bytes:
    path = state_folder() / "key"
    lock = FileLock(path.with_name("key.lock"))
    with explained("the key of the jobs"):
        while not path.exists():  # of several that begin at once, one makes it
            if lock.take():
                try:
                    if not path.exists():
                        with whole_file(path, "the key of the jobs") as file:
                            file.write(secrets.token_hex(32))
                finally:
                    lock.let_go()
            else:
                time.sleep(0.01)
        return bytes.fromhex(path.read_text(encoding="ascii"))


def job_path(verb: str, source: str, target: str, digest: str) -> Path:
    """Return the ledger of a job, named so that people know it: by the ends' names as they may be shown."""
    words = "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", word).strip("-.") for word in (verb, source, target))
    return state_folder() / f"{words[:80]}-{digest[:8]}{SUFFIX}"


def beside(ledger: Path, what: str) -> Path:
    """Return a file beside a ledger: ``"private"``, ``"source"``, ``"target"``."""
    return ledger.with_name(f"{ledger.name}.{what}")


def every_job() -> list[Path]:
    """Return the ledgers in the state folder, the latest first."""
    found = state_folder().glob(f"*{SUFFIX}")
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def find_jobs(name: str) -> list[Path]:
    """Return the ledgers that somebody may mean: a file, a job's name, or those that have it in their names.

    Raises:
        NotFound: there is none.
    """
    path = Path(name)
    if path.is_file():
        return [path]
    found = [one for one in every_job() if name in one.name]
    exact = [one for one in found if one.name in (name, name + SUFFIX)]
    if not found:
        raise NotFound("job: there is none of that name; postdicom jobs list shows them")
    return exact or found


def find_job(name: str) -> Path:
    """Return the one ledger that somebody means: see `find_jobs`.

    Raises:
        NotFound: there is none.
        UsageError: there is more than one.
    """
    found = find_jobs(name)
    if len(found) == 1:
        return found[0]
    names = ", ".join(one.stem for one in found[:_MOST_NAMED]) + (", ..." if len(found) > _MOST_NAMED else "")
    raise UsageError(f"{len(found)} have that in their names: {names}", argument="job")


def remove_job(ledger: Path) -> None:
    """Remove a ledger and what lies beside it."""
    for suffix in _BESIDE:
        forget(ledger.with_name(ledger.name + suffix))


class ResumeFile:
    """What a job needs to be resumed, and nobody else may know: a JSON file for this user alone."""

    def __init__(self, ledger: Path) -> None:
        self._path = beside(ledger, "private")

    def write(self, content: dict[str, Any]) -> None:
        """Write it anew.

        Raises:
            LocalFileError: it cannot be written.
        """
        with whole_file(self._path, "the file beside the ledger") as file:
            json.dump(content, file)

    def read(self) -> dict[str, Any]:
        """Return what was written.

        Raises:
            LedgerUnusable: it is not there, or damaged.
        """
        content: Any = None
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(self._path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise LedgerUnusable(
                "the file beside the ledger that names its ends is not there: give the whole command again"
            )
        return content
