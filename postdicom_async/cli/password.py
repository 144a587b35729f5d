"""What is asked for in a terminal, unseen. Where else secrets come from: `postdicom_async.profiles.secrets`."""

from __future__ import annotations

import getpass
import os
import sys
import warnings
from typing import TYPE_CHECKING

from postdicom_async import UsageError
from postdicom_async.cli import output

if TYPE_CHECKING:
    from postdicom_async import profiles

__all__ = ["asking", "find_share_password"]


def asking() -> profiles.Ask | None:
    """Return what asks somebody for a secret; None if nobody is there."""
    return (lambda prompt: _ask(output.clean(prompt))) if _somebody_is_there() else None


def _somebody_is_there() -> bool:
    return bool(sys.stdin and sys.stdin.isatty())


def _ask(prompt: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # it would echo what is typed
            return getpass.getpass(prompt)
    except (EOFError, getpass.GetPassWarning):
        return ""


def find_share_password(*, wanted: bool) -> str | None:
    """Return the password for a share: POSTDICOM_SHARE_PASSWORD, else what is typed twice if ``wanted``, else None.

    Raises:
        UsageError: the variable is empty, there is nobody to ask, or nothing or not the same was typed.
    """
    found = os.environ.get("POSTDICOM_SHARE_PASSWORD")
    if found == "":
        # Most likely another variable that was not set. Without a password the link would be open to everybody.
        raise UsageError("POSTDICOM_SHARE_PASSWORD is empty; unset it for a link without a password")
    if found is not None or not wanted:
        return found
    if not _somebody_is_there():
        raise UsageError("--with-password: set POSTDICOM_SHARE_PASSWORD, or run this in a terminal")
    password = _ask("Password of the link: ")
    if not password or _ask("Once more: ") != password:
        raise UsageError("--with-password: no password was given, or not the same twice")
    return password
