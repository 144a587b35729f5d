"""Where jobs are stored: in the user's state folder, one ledger for each pair of ends, with private files beside it.

::

    NAME.ledger          what became of every item; no secrets, no patient data
    NAME.ledger.private  how the ends were written, filters and paths among it, so that the job can be resumed
    NAME.ledger.source, NAME.ledger.target   what folders hold (their index)

All of these are readable for this user alone. The file name contains a digest of both ends, who logs in there, their
filters and the anonymisation, keyed per user of this machine: filters may hold patients' names, and many can see file
names.
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
from typing import TYPE_CHECKING, Any, Final

from postdicom_async.disk.files import explained
from postdicom_async.disk.private_files import FileLock, forget, make_folder, whole_file
from postdicom_async.errors import LedgerLocked, LedgerUnusable, NotFound, UsageError
from postdicom_async.jobs.ledger.file import is_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


SUFFIX: Final = ".ledger"
_STATE = "POSTDICOM_STATE"
_MOST_NAMED = 4
_BESIDE = (
    *(f"{index}{part}" for index in ("", ".source", ".target") for part in ("", "-wal", "-shm")),
    ".private",
    ".lock",
)


def state_folder() -> Path:
    """Return the folder of the jobs, created with mode 0700: ``POSTDICOM_STATE``, or one in the user's state folder.

    Raises:
        LocalFileError: it cannot be created.
        UsageError: the package that finds the user's folders is not installed.
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
    """Return a digest that identifies a pair of ends: 16 hexadecimal digits, keyed per user."""
    digest = hashlib.blake2b(key=_key(), digest_size=8)
    for part in parts:  # each part with its length, so that different parts cannot join to the same bytes
        digest.update(len(part).to_bytes(8, "big") + part.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _key() -> bytes:
    path = state_folder() / "key"
    lock = FileLock(path.with_name("key.lock"))
    with explained("the key of the jobs"):
        while not path.exists():  # of several jobs that start at once, one creates it
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
    """Return the ledger of a job, with a readable name from the ends' public names."""
    words = "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", word).strip("-.") for word in (verb, source, target))
    return state_folder() / f"{words[:80]}-{digest[:8]}{SUFFIX}"


def default_path(
    verb: str,
    shown: Sequence[str],
    digest: str,
    users: Sequence[str],
    users_of: Callable[[dict[str, Any]], Sequence[str]],
) -> Path:
    """Return the ledger of a job that was given none: another one for each pair of users.

    Args:
        verb: of the job.
        shown: the public names of both ends.
        digest: of the pair of ends.
        users: who logs in at the ends; they go into the digest in the file's name.
        users_of: returns the same of what is kept beside a ledger. One from before users told ledgers apart goes on
            if it was theirs, or if that cannot be known.
    """
    older = job_path(verb, shown[0], shown[1], digest)
    if not any(users):
        return older
    own = job_path(verb, shown[0], shown[1], pair_digest(digest, *users))
    if own.exists() or not older.exists():
        return own
    try:
        theirs = users_of(ResumeFile(older).read())
    except (LedgerUnusable, UsageError):
        return older
    return older if list(theirs) == list(users) else own


def beside(ledger: Path, what: str) -> Path:
    """Return a file beside a ledger: ``"private"``, ``"source"``, ``"target"``."""
    return ledger.with_name(f"{ledger.name}.{what}")


def every_job() -> list[Path]:
    """Return the ledgers in the state folder, latest first."""
    found = state_folder().glob(f"*{SUFFIX}")
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def find_jobs(name: str) -> list[Path]:
    """Return the ledgers that match: a file, a job's exact name, or all whose names contain the text.

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
    """Return the one ledger that matches: see `find_jobs`.

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
    """Remove a ledger and the files beside it."""
    for suffix in _BESIDE:
        forget(ledger.with_name(ledger.name + suffix))


def forget_job(path: Path) -> None:
    """Remove an earlier ledger, even a damaged one, unless it is in use; never a file that is not a ledger.

    Raises:
        LedgerLocked: another process uses it.
        LedgerUnusable: the file of that name is not a ledger.
    """
    if not path.exists():
        return
    lock = FileLock(beside(path, "lock"))
    if not lock.take():
        raise LedgerLocked("this process or another runs this job already")
    try:
        if not is_ledger(path):
            raise LedgerUnusable("--new: there is a file of that name that is no ledger; it was not touched")
        remove_job(path)
    finally:
        lock.let_go()


class ResumeFile:
    """The private options a job needs to be resumed: a JSON file readable for this user alone."""

    def __init__(self, ledger: Path) -> None:
        self._path = beside(ledger, "private")

    def write(self, content: dict[str, Any]) -> None:
        """Replace its content.

        Raises:
            LocalFileError: it cannot be written.
        """
        with whole_file(self._path, "the file beside the ledger") as file:
            json.dump(content, file)

    def read(self) -> dict[str, Any]:
        """Return its content.

        Raises:
            LedgerUnusable: it is missing or damaged.
        """
        content: Any = None
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(self._path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise LedgerUnusable(
                "the file beside the ledger that names its ends is not there: give the whole command again"
            )
        return content
