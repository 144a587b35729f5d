"""A profile: the keys of its table in ``profiles.toml``, and their validation. Pure.

No key holds a secret. A key that looks like a secret is refused with a hint where it belongs.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from postdicom_async.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


ArchiveKind: TypeAlias = Literal["dicomweb", "postdicom", "cloud"]
"""A DICOMweb archive, PostDICOM's DICOMweb service with its own URL shapes, PostDICOM's Cloud API."""


@dataclass(frozen=True, slots=True, repr=False)
class Profile:
    """A named archive. Nothing in it is secret.

    Attributes:
        name: its name.
        kind: which family it belongs to.
        url: the address of the DICOMweb service; empty for the Cloud API.
        username: the user; for the Cloud API the user to act for, by UUID or name.
        options: deviations from the defaults of its kind, as ``-o`` takes them: fields and their texts.
        ca_file, client_cert, client_key: PEM files.
        proxy: address of a proxy, without a password.
        environment_proxy: use the proxy variables of the environment.
        allow_http: send credentials over ``http://`` to another machine.
        connections: requests at once.
        parallel_stores, parallel_retrieves: how many of these.
        max_rate: bytes a second that a job may move to or from it, such as ``40M``.
        requests_per_second: how many requests a job may make.
        windows: when a job may use it, such as ``Mon-Fri 20:00-06:00, Sat-Sun 00:00-24:00``.
        preset: a known archive, whose limits apply unless set here.
        router_url: the Cloud API's router; PostDICOM's public one if empty.
        institution_uuid, folder_uuid: where images go at PostDICOM.
        token_url, client_id: where a client of an identity provider gets its tokens, instead of a user name.
        scope, audience, client_auth: what they are for, and how the client identifies itself; see `ClientCredentials`.
        password_file, token_file, api_key_file, account_key_file, key_password_file, client_secret_file: files that
            hold the secrets.
    """

    name: str
    kind: ArchiveKind = "dicomweb"
    url: str = ""
    username: str = ""
    options: tuple[tuple[str, str], ...] = ()
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    proxy: str = ""
    environment_proxy: bool = False
    allow_http: bool = False
    connections: int | None = None
    parallel_stores: int | None = None
    parallel_retrieves: int | None = None
    max_rate: str = ""
    requests_per_second: float | None = None
    windows: str = ""
    preset: str = ""
    router_url: str = ""
    institution_uuid: str = ""
    folder_uuid: str = ""
    token_url: str = ""
    client_id: str = ""
    scope: str = ""
    audience: str = ""
    client_auth: str = ""
    password_file: Path | None = None
    token_file: Path | None = None
    api_key_file: Path | None = None
    account_key_file: Path | None = None
    key_password_file: Path | None = None
    client_secret_file: Path | None = None

    def __repr__(self) -> str:
        """Return name and kind: neither address nor user."""
        return f"<Profile {self.name} {self.kind}>"


KEYS: Final = tuple(field.name for field in fields(Profile) if field.name != "name")
"""The allowed keys of a table."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]+")
_TAKEN = frozenset({"http", "https", "file", "postdicom"})  # NAME: would be read as the beginning of an address
_SECRET = re.compile(r"pass|pasw|pwd|secret|token|credential|api_?key|account_?key|bearer", re.IGNORECASE)
_OF_A_CLIENT: Final = ("token_url", "client_id", "scope", "audience", "client_auth", "client_secret_file")
NOT_OF: Final[Mapping[str, frozenset[str]]] = {
    "cloud": frozenset({"url", "password_file", "token_file", "parallel_stores", "parallel_retrieves", *_OF_A_CLIENT}),
    "dicomweb": frozenset({"router_url", "institution_uuid", "folder_uuid", "api_key_file", "account_key_file"}),
    "postdicom": frozenset({"router_url", "institution_uuid", "folder_uuid", "api_key_file", "account_key_file"}),
}
"""Keys that do not apply to a kind."""


def checked_name(name: str) -> str:
    """Return the name of a profile.

    Raises:
        UsageError: it has other characters than letters, digits, ``-``, ``_`` and ``.``, or only one: ``C:`` is a
            drive.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError("a profile's name has two or more letters, digits, '-', '_' or '.', the first no sign")
    if name.lower() in _TAKEN:
        raise UsageError(f"a profile cannot be called {name}: that is the beginning of an address")
    return name


def variable_part(name: str) -> str:
    """Return the name's part in variables such as ``POSTDICOM_PASSWORD_NAME``."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def profile_of(name: str, table: object, *, folder: Path | None = None) -> Profile:
    """Return the profile that a table describes; paths in it are relative to ``folder``.

    Raises:
        UsageError: a key is unknown, of the wrong kind, or a secret. No value is repeated.
    """
    checked_name(name)
    where = f"profile {name}"
    if not isinstance(table, dict):
        raise UsageError(f'{where}: give a table [{name}] with kind and url in it; a dot in a name needs ["a.b"]')
    for key in table:
        _check_key(where, str(key), table[key])
    kind = table.get("kind", "dicomweb")
    if kind not in get_args(ArchiveKind):
        raise UsageError(f"{where}, kind: give {', '.join(get_args(ArchiveKind))}, one of them")
    if misplaced := [key for key in KEYS if key in table and key in NOT_OF[kind]]:
        raise UsageError(f"{where}: {misplaced[0]} is not for kind {kind}")
    if kind != "cloud" and not table.get("url"):
        raise UsageError(f"{where}: url is missing")
    values = {key: _READ[key](f"{where}, {key}", value, folder) for key, value in table.items()}
    profile = Profile(name, **values)
    _check_addresses(where, profile)
    check_client(where, profile)
    return profile


def _check_key(where: str, key: str, value: object) -> None:
    if key in KEYS:
        return
    shown = repr(key) if key.isprintable() and len(key) < 40 else "a key"
    if isinstance(value, dict):
        raise UsageError(f"{where}: {shown} is a table and none is known of that name; a dot in a name needs quotes")
    if _SECRET.search(key):
        raise UsageError(
            f"{where}: {shown} does not belong in this file: keep the secret in the keyring, in a variable that ends "
            f"in _{variable_part(where.removeprefix('profile '))}, or in a file of its own (password_file)"
        )
    close = get_close_matches(key, KEYS, 1)
    hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(KEYS)}"
    raise UsageError(f"{where}: unknown key {shown}{hint}")


# --- values ----------------------------------------------------------------------------------------------------------


def _text(where: str, value: object, _folder: Path | None) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise UsageError(f"{where}: give text in one line")
    return value


def _amount(where: str, value: object, folder: Path | None) -> str:
    return str(value) if type(value) is int and value > 0 else _text(where, value, folder)


def _flag(where: str, value: object, _folder: Path | None) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{where}: give true or false")
    return value


def _count(where: str, value: object, _folder: Path | None) -> int:
    if type(value) is not int or value < 1:
        raise UsageError(f"{where}: give a whole number from 1 on")
    return value


def _number(where: str, value: object, _folder: Path | None) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise UsageError(f"{where}: give a number above 0")
    return float(value)


def _path(where: str, value: object, folder: Path | None) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise UsageError(f"{where}: give the path of a file")
    given = Path(os.path.expanduser(value))  # noqa: PTH111 - Path's raises where there is no home
    return given if folder is None else folder / given


def _options(where: str, value: object, _folder: Path | None) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: give a table, such as {{pages = false}}")
    return tuple((str(name), _option_text(f"{where}.{name}", one)) for name, one in value.items())


def _option_text(where: str, value: object) -> str:
    if isinstance(value, list) and all(type(one) is int for one in value):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int):
        raise UsageError(f"{where}: give text, a number, true or false")
    return str(value)


_READ: Final[dict[str, Callable[[str, object, Path | None], Any]]] = dict.fromkeys(KEYS, _text) | {
    "options": _options,
    "max_rate": _amount,
    "requests_per_second": _number,
    **dict.fromkeys(("environment_proxy", "allow_http"), _flag),
    **dict.fromkeys(("connections", "parallel_stores", "parallel_retrieves"), _count),
    **{key: _path for key in KEYS if key.endswith("_file") or key in {"client_cert", "client_key"}},
}


def _check_addresses(where: str, profile: Profile) -> None:
    """Refuse an address that contains a password, which would be stored in the file."""
    for key in ("url", "router_url", "token_url", "proxy"):
        holds_user = "@" in getattr(profile, key)  # also behind a slash: a password may have one in it
        if holds_user and key == "proxy":
            raise UsageError(f"{where}: a proxy's user and password do not belong in this file; set POSTDICOM_PROXY")
        if holds_user:
            raise UsageError(f"{where}, {key}: leave user and password out of the address; give the user as username")


def check_client(where: str, profile: Profile) -> None:
    """Refuse a client of an identity provider that is named in part, or beside a user.

    Raises:
        UsageError: what is missing, or is too much.
    """
    given = [key for key in _OF_A_CLIENT if getattr(profile, key)]
    if not given:
        return
    if missing := [key for key in ("token_url", "client_id") if not getattr(profile, key)]:
        raise UsageError(f"{where}: {given[0]} needs {missing[0]} too")
    if profile.username:
        raise UsageError(f"{where}: username and client_id are both given; use one of them")
    if profile.client_auth not in {"", "basic", "post"}:
        raise UsageError(f"{where}, client_auth: give basic or post")


# --- as TOML ---------------------------------------------------------------------------------------------------------


def table_of(name: str, values: Mapping[str, Any]) -> str:
    """Return a table of TOML 1.0 with these keys, in the order of `KEYS`; what is None or empty is left out."""
    header = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)
    lines = [f"{key} = {_toml(values[key])}" for key in KEYS if values.get(key) not in (None, "", (), {}, False)]
    return "\n".join([f"[{header}]", *lines, ""])


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(str(name))} = {_toml(one)}" for name, one in value.items()) + "}"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    """Return a basic string: quotes, backslashes and what cannot be printed are escaped."""
    escaped = "".join(
        f"\\{char}" if char in '"\\' else char if char.isprintable() else f"\\U{ord(char):08x}" for char in text
    )
    return f'"{escaped}"'


def closest(name: str, names: Iterable[str]) -> list[str]:
    """Return up to three similar names."""
    return get_close_matches(name, sorted(names), 3, 0.5)
