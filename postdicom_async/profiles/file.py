"""``profiles.toml``: finding it, reading it, and adding or removing one table.

The file belongs to the user and may have comments: a table is appended or cut out as text, and the new text is parsed
before it is written. Only this module writes it, through `disk.private_files`.
"""

from __future__ import annotations

import os
import tomllib
from collections import defaultdict
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postdicom_async.disk import private_files
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face
from postdicom_async.profiles.model import Profile, checked_name, closest, profile_of, table_of, variable_part
from postdicom_async.profiles.opening import check_profile, client_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from postdicom_async.cloud.client import CloudApi
    from postdicom_async.dicomweb.client import DicomWeb
    from postdicom_async.postdicom.client import PostDicom


def profiles_file() -> Path:
    """Return the path of the file: ``POSTDICOM_CONFIG``, else one in the user's configuration folder.

    Raises:
        UsageError: platformdirs, which finds that folder, is not installed.
    """
    if named := os.environ.get("POSTDICOM_CONFIG"):
        return Path(named).absolute()
    try:
        from platformdirs import user_config_path
    except ImportError:
        pass
    else:
        return user_config_path("postdicom") / "profiles.toml"
    raise UsageError(
        'profiles need platformdirs: pip install "postdicom-async[cli]", or set POSTDICOM_CONFIG to a file'
    )


@public_face
def profile_names() -> list[str]:
    """Return the names of all profiles, including unusable ones; empty without a file.

    Raises:
        UsageError: the file cannot be used.
    """
    return list(_tables(profiles_file()))


@public_face
def load_profiles() -> dict[str, Profile]:
    """Return all profiles by name; empty without a file.

    Raises:
        UsageError: the file, or a profile in it, cannot be used.
    """
    path = profiles_file()
    return {name: profile_of(name, table, folder=path.parent) for name, table in _tables(path).items()}


@public_face
def load_profile(name: str) -> Profile:
    """Return a profile.

    Raises:
        UsageError: there is none of that name, or it cannot be used.
    """
    path = profiles_file()
    tables = _tables(path)
    if name not in tables:
        raise _unknown(name, tables, path)
    return profile_of(name, tables[name], folder=path.parent)


@public_face
def add_profile(
    name: str,
    values: Mapping[str, Any],
    *,
    replace: bool = False,
    check: Callable[[Profile], None] = check_profile,
) -> Profile:
    """Write a profile, and return it; the keys are those of `Profile`, paths as text, options as a mapping.

    If ``check`` raises, the file is not changed.

    Raises:
        UsageError: the values are invalid, or without ``replace`` the name exists already.
        LocalFileError: the file cannot be written.
    """
    path = profiles_file()
    table = table_of(checked_name(name), values)
    profile = profile_of(name, tomllib.loads(table).get(name), folder=path.parent)
    check(profile)

    def to(text: str | None) -> str:
        known = _parsed(text or "", path)
        if name in known and not replace:
            raise UsageError(f"there is a profile {name} already; --replace writes it anew")
        kept = _without(text or "", name, path) if name in known else text or ""
        gap = "" if not kept else "\n" if kept.endswith("\n") else "\n\n"
        new = kept + gap + table
        _parsed(new, path)
        return new

    private_files.change(path, str(path), to)
    return profile


@public_face
def remove_profile(name: str) -> None:
    """Remove a profile from the file.

    Raises:
        UsageError: there is none of that name.
        LocalFileError: the file cannot be written.
    """
    path = profiles_file()

    def to(text: str | None) -> str:
        tables = _parsed(text or "", path)
        if name not in tables:
            raise _unknown(name, tables, path)
        return _without(text or "", name, path)

    private_files.change(path, str(path), to)


@public_face
def open_profile(name: str, *, ask: bool = False) -> DicomWeb | PostDicom | CloudApi:
    """Return the client of a named archive, to be used in ``async with``.

    Its secret comes from ``POSTDICOM_PASSWORD_NAME`` (or ``TOKEN``, ``API_KEY``, ``ACCOUNT_KEY``), a file that the
    profile names, ``$CREDENTIALS_DIRECTORY``, the variable without the name, or the keyring. Asking the keyring blocks
    the thread for up to ten seconds.

    Args:
        name: of the profile.
        ask: prompt in the terminal for a secret that is found nowhere.

    Raises:
        UsageError: there is no such profile, it cannot be used, or a secret is missing.
        LocalFileError: a file cannot be read.
    """
    return client_of(load_profile(name), ask=getpass if ask else None)


# --- text ------------------------------------------------------------------------------------------------------------


def _unknown(name: str, tables: Mapping[str, Any], path: Path) -> UsageError:
    shown = name if name.isprintable() and len(name) < 80 else "of that name"
    if close := closest(name, tables):
        hint = f"did you mean {' or '.join(close)}?"
    else:
        hint = (
            f"there are {', '.join(sorted(tables))}" if tables else "there are none; postdicom profiles add makes one"
        )
    return UsageError(f"there is no profile {shown} in {path}; {hint}")


def _tables(path: Path) -> dict[str, Any]:
    return _parsed(private_files.read(path, str(path)) or "", path)


def _parsed(text: str, path: Path) -> dict[str, Any]:
    """Return the tables by name.

    Two names that map to the same environment variable are refused: one archive's password would go to the other.
    """
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        # Only the position, not the text: a line may contain a secret.
        _, _, place = str(error).rpartition("(at ")
    else:
        by_variable: dict[str, list[str]] = defaultdict(list)
        for name in tables:
            by_variable[variable_part(name)].append(name)
        for names in by_variable.values():
            if len(names) > 1:
                raise UsageError(f"{path}: profiles {names[0]} and {names[1]} have almost the same name")
        return tables
    raise UsageError(f"{path}: not TOML{f' (at {place}' if place else ''}")


def _without(text: str, name: str, path: Path) -> str:
    """Return the text without a table and its subtables; the rest is unchanged."""
    kept: list[str] = []
    dropping = False
    for line in text.splitlines(keepends=True):
        if line.lstrip().startswith("["):
            dropping = _header_of(line) == name
        if not dropping:
            kept.append(line)
    new = "".join(kept)
    try:
        is_right = tomllib.loads(new) == {key: table for key, table in tomllib.loads(text).items() if key != name}
    except tomllib.TOMLDecodeError:
        is_right = False
    if not is_right:  # a line that starts with a bracket inside a string or an array
        raise UsageError(f"{path}: {name} is written in a way that only an editor can take out")
    return new


def _header_of(line: str) -> str | None:
    try:
        return next(iter(tomllib.loads(line.lstrip())), None)
    except tomllib.TOMLDecodeError:
        return None
