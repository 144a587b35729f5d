"""The sources of an archive's secrets: variables, files, the keyring, a terminal. Never ``profiles.toml``.

A variable without a profile's name in it, such as ``POSTDICOM_PASSWORD``, may be meant for another archive. It applies
only if the caller uses a single archive, and not if ``POSTDICOM_URL`` is that of another.

The keyring is queried in a separate process: a backend may hang, print, or prompt.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from postdicom_async.disk.private_files import read_secret as read_secret  # offered beside what is found here
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.profiles.model import Profile, check_client, variable_part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postdicom_async.tokens.client_credentials import ClientCredentials


SecretName: TypeAlias = Literal["password", "token", "api-key", "account-key", "key-password", "client-secret"]
Ask: TypeAlias = Callable[[str], str]
"""Shows a prompt and returns the input, typed without echo; may be empty."""


class Found(NamedTuple):
    """A secret and its source.

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
    "client-secret": "POSTDICOM_CLIENT_SECRET",
}


def places_of(profile: Profile, which: SecretName, *, alone: bool = True) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the sources of a secret in order, each with a function that reads it ("" if absent)."""
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
        # The service manager may grant access by ACLs, which look like "others may read" in the mode.
        one = Path(folder, f"{profile.name}.{which}")
        yield f"$CREDENTIALS_DIRECTORY/{one.name}", lambda: _if_there(one)
    # The plain variables belong to the archive of --url.
    if plain_counts(profile, alone=alone) if profile.name else alone:
        yield variable, lambda: os.environ.get(variable, "")
    for entry in entries_of(profile, which):
        yield f"the keyring ({KEYRING_SERVICE}, {entry})", partial(_stored_or_empty, entry)


def _stored_or_empty(entry: str) -> str:
    return stored(entry) or ""


def _if_there(path: Path) -> str:
    return read_secret(path, f"$CREDENTIALS_DIRECTORY/{path.name}", private=False) if path.exists() else ""


def plain_counts(profile: Profile, *, alone: bool) -> bool:
    """Whether variables without a profile's name apply to an archive: if ``POSTDICOM_URL`` is its address.

    Without that variable, if the caller uses it ``alone``.
    """
    address = os.environ.get("POSTDICOM_ROUTER_URL" if profile.kind == "cloud" else "POSTDICOM_URL")
    return entry_host(address) == entry_host(_address(profile)) if address else alone


def _address(profile: Profile) -> str:
    if profile.kind != "cloud":
        return profile.url
    from postdicom_async.vendor.wire import CloudWire

    return profile.router_url or CloudWire().router_url


def entries_of(profile: Profile, which: SecretName) -> tuple[str, ...]:
    """Return the keyring's entries for a secret, by user and host; the first one is used for writing.

    An entry by user alone would send the password of one archive to another. Two accounts of the Cloud API share an
    address, so their entries contain the profile's name. The secret of a client is for its token endpoint.
    """
    if which == "client-secret":
        place = entry_host(profile.token_url)
        return (f"{profile.client_id}@{place}",) if place and profile.client_id else ()
    host = entry_host(_address(profile))
    if host is None or which in {"token", "key-password"} or (which == "password" and not profile.username):
        return ()
    if which == "password":
        return (f"{profile.username}@{host}",)
    return (*((f"{which}.{profile.name}@{host}",) if profile.name else ()), f"{which}@{host}")


def with_login(profile: Profile) -> Profile:
    """Return an archive without a name as the environment says who uses it, if nothing else does."""
    if profile.name or profile.username or profile.client_id:
        return profile
    if username := os.environ.get("POSTDICOM_USERNAME", ""):
        return replace(profile, username=username)
    return replace(
        profile,
        token_url=os.environ.get("POSTDICOM_TOKEN_URL", ""),
        client_id=os.environ.get("POSTDICOM_CLIENT_ID", ""),
        scope=os.environ.get("POSTDICOM_SCOPE", ""),
    )


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
def credentials_of(
    profile: Profile, *, alone: bool = True, ask: Ask | None = None
) -> tuple[str, str] | ClientCredentials | str | None:
    """Return ``(user, password)`` for a DICOMweb archive, a client's credentials, a bearer token, or None for none.

    Raises:
        UsageError: the profile has a user or a client, and a token too, or a secret is missing and cannot be asked for.
    """
    check_client(f"profile {profile.name}" if profile.name else "the client", profile)
    who = "user name" if profile.username else "client" if profile.client_id else ""
    token = find_secret(profile, "token", alone=alone and not (who and profile.name))
    if not who:
        return token.secret if token else None
    if token:
        raise UsageError(f"both a {who} and a token ({token.place}) are given; use one of them")
    if profile.username:
        return profile.username, _needed(profile, "password", alone=alone, ask=ask)
    from postdicom_async.tokens.client_credentials import ClientCredentials

    return ClientCredentials(
        profile.token_url,
        profile.client_id,
        _needed(profile, "client-secret", alone=alone, ask=ask),
        scope=profile.scope,
        audience=profile.audience or None,
        client_auth="post" if profile.client_auth == "post" else "basic",
    )


@public_face
def keys_of(profile: Profile, *, alone: bool = True, ask: Ask | None = None) -> tuple[str, str]:
    """Return the API key and the account key for the Cloud API.

    Raises:
        UsageError: one is missing and cannot be asked for.
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
        stored_so = f"store it in a keyring (keyring set {KEYRING_SERVICE} {who or 'USER'}@{host or 'ADDRESS'})"
        in_file = f"name its file ({which.replace('-', '_')}_file), " if profile.name else ""
        raise UsageError(f"no {words}{whose}: set {variable}, {in_file}{stored_so}, or run this in a terminal")
    asking = words[0].upper() + words[1:]
    owner = {"password": profile.username, "client-secret": profile.client_id}.get(which, "")
    typed = ask(f"{asking} of {owner}{whose}: " if owner else f"{asking}{whose}: ")
    if not typed:
        raise UsageError(f"no {words} was given")
    return typed


# --- entries of the keyring ------------------------------------------------------------------------------------------


KEYRING_SERVICE = "postdicom-async"
_PATIENCE = 10.0
_USUAL_PORTS = {"http": 80, "https": 443}


def entry_host(url: str) -> str | None:
    """Return scheme, host and port as in an entry, without a default port; None if it is not an address."""
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
    """Return the secret of an entry; None if there is no entry or keyring, or it does not answer in time."""
    found = _keyring("get", entry)
    return found.removesuffix("\n").removesuffix("\r") or None if found else None


def keep(entry: str, secret: str) -> bool:
    """Store a secret and read it back; return whether it was kept: some backends store nothing."""
    return _keyring("set", entry, secret) is not None and stored(entry) == secret


def forget(entry: str) -> bool:
    """Delete an entry; return whether it existed."""
    return stored(entry) is not None and _keyring("del", entry) is not None


def _keyring(operation: str, entry: str, secret: str = "") -> str | None:
    """Run the keyring command; return its output, None if it failed. The secret goes through a pipe."""
    if find_spec("keyring") is None:
        return None
    # -P: a module in the current folder must not be imported as keyring.
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
