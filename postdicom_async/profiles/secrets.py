"""Where the secrets of an archive are: variables, files, the keyring, a terminal. Never in ``profiles.toml``.

A variable without a profile's name in it, such as ``POSTDICOM_PASSWORD``, may be meant for another archive. It counts
only when the caller speaks to a single one, and not when ``POSTDICOM_URL`` says that it belongs elsewhere.

The keyring is asked through a process of its own: a backend may hang, print, or want to ask something.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from postdicom_async.disk.private_files import read_secret as read_secret  # offered beside what is found here
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.profiles.model import Profile, variable_part

if TYPE_CHECKING:
    from collections.abc import Iterator


SecretName: TypeAlias = Literal["password", "token", "api-key", "account-key", "key-password"]
Ask: TypeAlias = Callable[[str], str]
"""Shows a prompt, and returns what was typed, unseen; empty if nothing was."""


class Found(NamedTuple):
    """A secret, and which place it came from.

    Attributes:
        place: may be shown.
    """

    secret: str
    place: str

    def __repr__(self) -> str:
        """Return the place alone."""
        return f"<Found in {self.place}>"


_VARIABLES: Final[dict[SecretName, str]] = {
    "password": "POSTDICOM_PASSWORD",
    "token": "POSTDICOM_TOKEN",
    "api-key": "POSTDICOM_API_KEY",
    "account-key": "POSTDICOM_ACCOUNT_KEY",
    "key-password": "POSTDICOM_KEY_PASSWORD",
}


def places_of(profile: Profile, which: SecretName, *, alone: bool = True) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the places where a secret is looked for, in order, each with what reads it ("" where it is not there)."""
    variable, file_key = _VARIABLES[which], which.replace("-", "_") + "_file"
    file: Path | None = getattr(profile, file_key)
    if profile.name:
        own = f"{variable}_{variable_part(profile.name)}"
        yield own, lambda: os.environ.get(own, "")
    if file is not None:
        what = f"profile {profile.name}, {file_key}"
        yield file_key, lambda: read_secret(file, what)
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if profile.name and folder:
        # The service manager grants access, also by lists that look like "others may read" in the mode.
        one = Path(folder, f"{profile.name}.{which}")
        yield f"$CREDENTIALS_DIRECTORY/{one.name}", lambda: _if_there(one)
    if plain_counts(profile, alone=alone) if profile.name else alone:  # what --url names, the variables beside are for
        yield variable, lambda: os.environ.get(variable, "")
    for entry in entries_of(profile, which):
        yield f"the keyring ({KEYRING_SERVICE}, {entry})", partial(_stored_or_empty, entry)


def _stored_or_empty(entry: str) -> str:
    return stored(entry) or ""


def _if_there(path: Path) -> str:
    return read_secret(path, f"$CREDENTIALS_DIRECTORY/{path.name}", private=False) if path.exists() else ""


def plain_counts(profile: Profile, *, alone: bool) -> bool:
    """Whether the variables without a name in them belong to an archive: if it is where the address beside them leads.

    Without such an address, if the caller speaks to it ``alone``.
    """
    address = os.environ.get("POSTDICOM_ROUTER_URL" if profile.kind == "cloud" else "POSTDICOM_URL")
    return entry_host(address) == entry_host(_address(profile)) if address else alone


def _address(profile: Profile) -> str:
    if profile.kind != "cloud":
        return profile.url
    from postdicom_async.vendor.wire import CloudWire

    return profile.router_url or CloudWire().router_url


def entries_of(profile: Profile, which: SecretName) -> tuple[str, ...]:
    """Return the keyring's entries for a secret, the one that is written first: whose, at which host.

    One that named the user alone would hand the password of one archive to another. Two accounts of the Cloud API have
    one address: theirs are told apart by the profile's name.
    """
    host = entry_host(_address(profile))
    if host is None or which in {"token", "key-password"} or (which == "password" and not profile.username):
        return ()
    if which == "password":
        return (f"{profile.username}@{host}",)
    return (*((f"{which}.{profile.name}@{host}",) if profile.name else ()), f"{which}@{host}")


@public_face
def find_secret(profile: Profile, which: SecretName, *, alone: bool = True) -> Found | None:
    """Return a secret from the first place that has it, without asking anybody.

    Raises:
        UsageError: a file that the profile names cannot be used.
    """
    for place, read in places_of(profile, which, alone=alone):
        if found := read():
            return Found(found, place)
    return None


@public_face
def credentials_of(profile: Profile, *, alone: bool = True, ask: Ask | None = None) -> tuple[str, str] | str | None:
    """Return ``(user, password)`` for a DICOMweb archive, a bearer token, or None for no credentials.

    Raises:
        UsageError: there are both a user and a token of this profile's, or there is no password and nobody to ask.
    """
    if not profile.username:
        token = find_secret(profile, "token", alone=alone)
        return token.secret if token else None
    if token := find_secret(profile, "token", alone=alone and not profile.name):
        raise UsageError(f"both a user name and a token ({token.place}) are given; use one of them")
    return profile.username, _needed(profile, "password", alone=alone, ask=ask)


@public_face
def keys_of(profile: Profile, *, alone: bool = True, ask: Ask | None = None) -> tuple[str, str]:
    """Return the API key and the account key for the Cloud API.

    Raises:
        UsageError: one is missing, and there is nobody to ask.
    """
    api_key = _needed(profile, "api-key", alone=alone, ask=ask)
    return api_key, _needed(profile, "account-key", alone=alone, ask=ask)


def _needed(profile: Profile, which: SecretName, *, alone: bool, ask: Ask | None) -> str:
    if found := find_secret(profile, which, alone=alone):
        return found.secret
    words = {"api-key": "API key"}.get(which, which.replace("-", " "))
    whose = f" for profile {profile.name}" if profile.name else ""
    if ask is None:
        variable = _VARIABLES[which] + (f"_{variable_part(profile.name)}" if profile.name else "")
        entries = entries_of(profile, which)
        who, _, host = (entries[0] if entries else "@").rpartition("@")
        entry = f"{'USER' if which == 'password' else who}@{host or 'ADDRESS'}"
        stored_so = f"store it in a keyring (keyring set {KEYRING_SERVICE} {entry})"
        raise UsageError(f"no {words}{whose}: set {variable}, {stored_so}, or run this in a terminal")
    asking = words[0].upper() + words[1:]
    typed = ask(f"{asking} of {profile.username}{whose}: " if which == "password" else f"{asking}{whose}: ")
    if not typed:
        raise UsageError(f"no {words} was given")
    return typed


# --- entries of the keyring ------------------------------------------------------------------------------------------


KEYRING_SERVICE = "postdicom-async"
_PATIENCE = 10.0
_USUAL_PORTS = {"http": 80, "https": 443}


def entry_host(url: str) -> str | None:
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


def stored(entry: str) -> str | None:
    """Return the secret of an entry; None where there is none, no keyring, or one that does not answer in time."""
    found = _keyring("get", entry)
    return found.removesuffix("\n").removesuffix("\r") or None if found else None


def keep(entry: str, secret: str) -> bool:
    """Put a secret into an entry, and read it back; return whether it is there: some backends keep nothing."""
    return _keyring("set", entry, secret) is not None and stored(entry) == secret


def forget(entry: str) -> bool:
    """Take an entry out; return whether it was there."""
    return stored(entry) is not None and _keyring("del", entry) is not None


def _keyring(operation: str, entry: str, secret: str = "") -> str | None:
    """Run keyring's own command; return what it wrote, None if it did not work. The secret goes through a pipe."""
    if find_spec("keyring") is None:
        return None
    # -P: a module that lies in the current folder is not taken for keyring.
    command = [sys.executable, "-P", "-X", "utf8", "-m", "keyring", operation, KEYRING_SERVICE, entry]
    try:
        answer = subprocess.run(  # noqa: S603 - this very interpreter
            command,
            input=secret.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE,
            start_new_session=True,
            check=False,
        )
        return answer.stdout.decode() if answer.returncode == 0 else None
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
