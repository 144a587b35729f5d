"""What the profiles of a job's ends say of how fast it may work, and when; and what a preset says in their place."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from postdicom_async.errors import UsageError
from postdicom_async.jobs.pace.clouds import preset
from postdicom_async.jobs.pace.pace import Pace, Rate
from postdicom_async.jobs.pace.windows import Windows
from postdicom_async.profiles.opening import settings_of, with_proxy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postdicom_async.profiles.model import Profile
    from postdicom_async.settings import Settings

__all__ = ["check_limits", "fill_in", "limited_settings"]

_UNSET = {"max_rate": "off", "max_requests": "off", "windows": "always"}
"""How `Pace.snapshot` says that nothing is said."""


def check_limits(profile: Profile) -> None:
    """Refuse limits that make no sense.

    Raises:
        UsageError: which key, and an example.
    """
    for key, read in (("max_rate", _bytes), ("windows", Windows.parse), ("preset", preset)):
        if text := getattr(profile, key):
            try:
                read(text)
            except UsageError as error:
                words = error.problem
            else:
                continue
            raise UsageError(f"profile {profile.name}, {key}: {words}")


def fill_in(pace: Pace, profiles: Iterable[Profile]) -> None:
    """Set what a pace leaves open: of two profiles the lower rate counts.

    Raises:
        UsageError: limits make no sense, or both have windows and not the same.
    """
    words: dict[str, Any] = {}
    for profile in profiles:
        check_limits(profile)
        asked = profile.requests_per_second or (preset(profile.preset).max_requests if profile.preset else None)
        given = {
            "max_rate": _bytes(profile.max_rate).per_second if profile.max_rate else None,
            "max_requests": asked,
            "windows": profile.windows and str(Windows.parse(profile.windows)),
        }
        for name, value in given.items():
            words[name] = _stricter(words.get(name), value)
    known = pace.snapshot()
    pace.set(**{name: value for name, value in words.items() if value and known[name] == _UNSET[name]})


def _stricter(one: Any, other: Any) -> Any:
    if not one or not other or one == other:
        return one or other
    if isinstance(one, str):
        raise UsageError("both profiles have some, and not the same; say when the job may work", argument="windows")
    return min(one, other)


def _bytes(text: str) -> Rate:
    return Rate.parse(text, of="bytes")


def limited_settings(profile: Profile, *, alone: bool) -> Settings:
    """Return the settings of a profile with the limits of its preset where it says nothing itself.

    Raises:
        UsageError: there is no such preset, or a file that the profile names is missing.
    """
    settings = settings_of(with_proxy(profile), alone=alone)
    if not profile.preset:
        return settings
    check_limits(profile)
    known = preset(profile.preset)
    sizes: dict[str, int] = {
        "batch_instances": known.batch_instances,
        "batch_bytes": known.batch_bytes,
        "page_size": known.page_size,
    }
    if profile.connections is None:
        sizes["parallel_stores"] = profile.parallel_stores or known.parallel
        sizes["parallel_retrieves"] = profile.parallel_retrieves or known.parallel
    return replace(settings, limits=replace(settings.limits, **sizes))
