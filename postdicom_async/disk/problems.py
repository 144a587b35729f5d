"""What a failing system call means to a person."""

from __future__ import annotations

import errno

from postdicom_async.errors import LocalFileError
from postdicom_async.face import translated

__all__ = ["explain_os_error", "explained", "local_file_error"]

_WORDS: dict[int, str] = {
    errno.ENOENT: "does not exist",
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files on this machine",
    errno.EIO: "the disk failed",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "a symbolic link is in the way",
    errno.ENOTDIR: "something that is not a folder is in the way",
    errno.EISDIR: "a folder is in the way",
    errno.EEXIST: "something of that name is in the way",
    errno.EFBIG: "the file is larger than the file system allows",
}

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_MAY_PASS = _FULL | {errno.EMFILE, errno.ENFILE}


def explain_os_error(error: OSError) -> str:
    """Return what went wrong, without the path."""
    return _WORDS.get(error.errno or 0, (error.strerror or "cannot be accessed").lower())


def local_file_error(what: str, error: OSError) -> LocalFileError:
    """Return the exception for a failed system call on ``what``."""
    problem = LocalFileError(f"{what}: {explain_os_error(error)}", temporary=error.errno in _MAY_PASS)
    problem.disk_full = error.errno in _FULL
    return problem


def explained(what: str) -> translated[OSError]:
    """Return a context out of which a failing system call comes as the `LocalFileError` on ``what``."""
    return translated(OSError, lambda error: local_file_error(what, error))
