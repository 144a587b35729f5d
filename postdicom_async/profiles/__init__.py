"""Named archives: ``profiles.toml`` in the user's configuration folder says where each is, and as whom; no secret.

>>> from postdicom_async import profiles
>>> async with profiles.open_profile("hospital") as archive: ...
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from postdicom_async.profiles.file import (
        add_profile,
        load_profile,
        load_profiles,
        open_profile,
        profile_names,
        profiles_file,
        remove_profile,
    )
    from postdicom_async.profiles.model import Profile
    from postdicom_async.profiles.opening import (
        assumptions_of,
        check_profile,
        client_of,
        cloud_client,
        is_at,
        options_of,
        settings_of,
        values_of,
        with_fields,
    )
    from postdicom_async.profiles.secrets import (
        Ask,
        Found,
        SecretName,
        credentials_of,
        entries_of,
        find_secret,
        forget,
        keep,
        keys_of,
        places_of,
        read_secret,
    )

__all__ = [
    "Ask",
    "Found",
    "Profile",
    "SecretName",
    "add_profile",
    "assumptions_of",
    "check_profile",
    "client_of",
    "cloud_client",
    "credentials_of",
    "entries_of",
    "find_secret",
    "forget",
    "is_at",
    "keep",
    "keys_of",
    "load_profile",
    "load_profiles",
    "open_profile",
    "options_of",
    "places_of",
    "profile_names",
    "profiles_file",
    "read_secret",
    "remove_profile",
    "settings_of",
    "values_of",
    "with_fields",
]

# Imported when they are first asked for, as at the top of the package: the command's help needs none of them.
_MODULES = {
    "file": (
        "add_profile",
        "load_profile",
        "load_profiles",
        "open_profile",
        "profile_names",
        "profiles_file",
        "remove_profile",
    ),
    "model": ("Profile",),
    "opening": (
        "assumptions_of",
        "check_profile",
        "client_of",
        "cloud_client",
        "is_at",
        "options_of",
        "settings_of",
        "values_of",
        "with_fields",
    ),
    "secrets": (
        "Ask",
        "Found",
        "SecretName",
        "credentials_of",
        "entries_of",
        "find_secret",
        "forget",
        "keep",
        "keys_of",
        "places_of",
        "read_secret",
    ),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:  # a checker that saw this would let misspelt names pass

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value
