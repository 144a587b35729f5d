"""Where the credentials come from: environment, keyring, prompt; never an argument, which every user could read."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import warnings
from importlib.util import find_spec
from urllib.parse import urlsplit

from postdicom_async import UsageError
from postdicom_async.cli import output

__all__ = ["KEYRING_SERVICE", "find_cloud_keys", "find_credentials", "find_share_password"]

KEYRING_SERVICE = "postdicom-async"
_KEYRING_PATIENCE = 10.0
_USUAL_PORTS = {"http": 80, "https": 443}


def find_credentials(username: str | None, url: str) -> tuple[str, str] | str | None:
    """Return ``(user, password)`` for an archive, a bearer token, or None for no credentials.

    In the keyring each archive has an entry of its own, ``USER@https://host:port``: one that named the user alone would
    hand the password of one archive to another.

    Raises:
        UsageError: both a user and a token are given, or there is no password and nobody to ask.
    """
    token = os.environ.get("POSTDICOM_TOKEN") or None
    if username and token:
        raise UsageError("both a user name and POSTDICOM_TOKEN are given; use one of them")
    if not username:
        return token
    asking = f"Password of {output.clean(username)}: "
    return username, _secret("POSTDICOM_PASSWORD", (username, "USER"), url, what="password", asking=asking)


def find_cloud_keys(router_url: str) -> tuple[str, str]:
    """Return the API key and the account key of the Cloud API; in the keyring each router has entries of its own.

    Raises:
        UsageError: one is missing, and there is nobody to ask.
    """
    api, account = "api-key", "account-key"
    api_key = _secret("POSTDICOM_API_KEY", (api, api), router_url, what="API key", asking="API key: ")
    asking = "Account key: "
    account_key = _secret("POSTDICOM_ACCOUNT_KEY", (account, account), router_url, what="account key", asking=asking)
    return api_key, account_key


def _secret(variable: str, whose: tuple[str, str], url: str, *, what: str, asking: str) -> str:
    """Return a secret from a variable, from an entry of the keyring, or as it is typed.

    ``whose`` is the entry's owner, and what an error text calls it.
    """
    if found := os.environ.get(variable):
        return found
    host = _host_of(url)
    stored = _from_keyring(f"{whose[0]}@{host}") if host else None
    return stored or _from_prompt(variable, f"{whose[1]}@{host or 'ADDRESS'}", what=what, asking=asking)


def _host_of(url: str) -> str | None:
    """Return scheme, host and port as an entry names them, the usual port left out; None for what is no address."""
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        return None
    if parts.scheme not in _USUAL_PORTS or not host:
        return None
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + ("" if port in {None, _USUAL_PORTS[parts.scheme]} else f":{port}")


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


def _from_prompt(variable: str, entry: str, *, what: str, asking: str) -> str:
    if not _somebody_is_there():
        stored = f"store it in a keyring (keyring set {KEYRING_SERVICE} {entry})"
        raise UsageError(f"no {what}: set {variable}, {stored}, or run this in a terminal")
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
