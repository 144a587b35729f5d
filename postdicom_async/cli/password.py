"""Where the credentials come from: environment, keyring, prompt; never an argument, which every user could read."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import warnings
from importlib.util import find_spec

from postdicom_async import UsageError
from postdicom_async.cli import output

__all__ = ["KEYRING_SERVICE", "find_cloud_keys", "find_credentials", "find_share_password"]

KEYRING_SERVICE = "postdicom-async"
_KEYRING_PATIENCE = 10.0


def find_credentials(username: str | None) -> tuple[str, str] | str | None:
    """Return ``(user, password)``, a bearer token, or None for no credentials.

    Raises:
        UsageError: both a user and a token are given, or there is no password and nobody to ask.
    """
    token = os.environ.get("POSTDICOM_TOKEN") or None
    if username and token:
        raise UsageError("both a user name and POSTDICOM_TOKEN are given; use one of them")
    if not username:
        return token
    asking = f"Password of {output.clean(username)}: "
    return username, _secret("POSTDICOM_PASSWORD", username, what="password", asking=asking)


def find_cloud_keys() -> tuple[str, str]:
    """Return the API key and the account key of the Cloud API.

    Raises:
        UsageError: one is missing, and there is nobody to ask.
    """
    api_key = _secret("POSTDICOM_API_KEY", "api-key", what="API key", asking="API key: ")
    account_key = _secret("POSTDICOM_ACCOUNT_KEY", "account-key", what="account key", asking="Account key: ")
    return api_key, account_key


def _secret(variable: str, entry: str, *, what: str, asking: str) -> str:
    """Return a secret from a variable, from an entry of the keyring, or as it is typed."""
    return os.environ.get(variable) or _from_keyring(entry) or _from_prompt(variable, what=what, asking=asking)


def _from_keyring(entry: str) -> str | None:
    """Ask the keyring in a process of its own: a backend may hang, print, or want to talk to the terminal."""
    if find_spec("keyring") is None:
        return None
    # -P: a module that lies in the current folder is not taken for keyring.
    command = [sys.executable, "-P", "-X", "utf8", "-m", "keyring", "get", KEYRING_SERVICE, entry]
    try:
        answer = subprocess.run(  # noqa: S603 - this very interpreter
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_KEYRING_PATIENCE,
            start_new_session=True,
            check=False,
        )
        found = answer.stdout.decode().removesuffix("\n").removesuffix("\r") if answer.returncode == 0 else ""
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return found or None


def _from_prompt(variable: str, *, what: str, asking: str) -> str:
    if not _somebody_is_there():
        raise UsageError(f"no {what}: set {variable}, store it in a keyring, or run this in a terminal")
    typed = _ask(asking)
    if not typed:
        raise UsageError(f"no {what} was given")
    return typed


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
