"""From a profile to a client: its settings, its dialect, its credentials."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from postdicom_async.errors import UsageError
from postdicom_async.face import public_face, translated
from postdicom_async.http.address import checked_url, place_of
from postdicom_async.profiles.fields import with_fields
from postdicom_async.profiles.secrets import credentials_of, find_secret, keys_of

if TYPE_CHECKING:
    from postdicom_async.cloud.client import CloudApi
    from postdicom_async.cloud.wire import CloudWire
    from postdicom_async.dicomweb.client import DicomWeb
    from postdicom_async.profiles.model import Profile
    from postdicom_async.profiles.secrets import Ask
    from postdicom_async.settings import Limits, Settings

__all__ = [
    "assumptions_of",
    "check_profile",
    "client_of",
    "cloud_client",
    "is_at",
    "limits_of",
    "settings_of",
    "with_proxy",
]


@public_face
def settings_of(profile: Profile, *, alone: bool = True) -> Settings:
    """Return the library's settings.

    Raises:
        UsageError: a file that the profile names is not there.
    """
    from postdicom_async.settings import Settings, Tls

    for key in ("ca_file", "client_cert", "client_key"):
        file = getattr(profile, key)
        if file is not None and not file.is_file():
            raise UsageError(f"profile {profile.name}, {key}: there is no such file")
    key_password = find_secret(profile, "key-password", alone=alone) if profile.client_cert else None
    tls = Tls(profile.ca_file, profile.client_cert, profile.client_key, key_password.secret if key_password else None)
    return Settings(
        limits=limits_of(profile),
        tls=tls,
        proxy=profile.proxy or None,
        use_environment_proxies=profile.environment_proxy,
        allow_http_credentials=profile.allow_http,
    )


def limits_of(profile: Profile) -> Limits:
    """Return the limits: ``connections`` alone is as many of any kind, as with ``--connections``."""
    from postdicom_async.settings import Limits

    n = profile.connections
    given = {
        "connections": n,
        "parallel_stores": profile.parallel_stores or n,
        "parallel_retrieves": profile.parallel_retrieves or n,
    }
    return Limits(**{name: value for name, value in given.items() if value is not None})


def with_proxy(profile: Profile) -> Profile:
    """Return a profile with the proxy of ``POSTDICOM_PROXY`` where it names none: it may hold a password."""
    return profile if profile.proxy else replace(profile, proxy=os.environ.get("POSTDICOM_PROXY", ""))


@public_face
def client_of(
    profile: Profile,
    *,
    settings: Settings | None = None,
    assumed: tuple[Any, ...] | None = None,
    alone: bool = True,
    ask: Ask | None = None,
) -> DicomWeb | CloudApi:
    """Return the client, not yet open: `PostDicom` is a `DicomWeb`. May ask the keyring, which blocks.

    Args:
        profile: the archive.
        settings: in the place of `settings_of`.
        assumed: in the place of `assumptions_of`.
        alone: the caller speaks to this archive only, so that the plain variables count.
        ask: asks somebody for a secret that is found nowhere.

    Raises:
        UsageError: a value of the profile is wrong, or a secret is missing and there is nobody to ask.
    """
    if profile.name:
        _check_addresses(profile)
    settings = settings_of(with_proxy(profile), alone=alone) if settings is None else settings
    assumed = assumptions_of(profile) if assumed is None else assumed
    if profile.kind == "cloud":
        profile = replace(profile, router_url=profile.router_url or assumed[0].router_url)
        return cloud_client(profile, keys_of(profile, alone=alone, ask=ask), settings, assumed[0])
    from postdicom_async.dicomweb.client import DicomWeb
    from postdicom_async.postdicom.client import PostDicom

    dialect, *wire = assumed
    auth = credentials_of(profile, alone=alone, ask=ask)
    if wire and isinstance(auth, tuple):
        return PostDicom(profile.url, *auth, settings=settings, dialect=dialect, wire=wire[0])
    return DicomWeb(profile.url, auth=auth, settings=settings, dialect=dialect)


@public_face
def cloud_client(profile: Profile, keys: tuple[str, str], settings: Settings, wire: CloudWire) -> CloudApi:
    """Return the client of an account of the Cloud API, not yet open.

    Raises:
        UsageError: a key is none.
    """
    from postdicom_async.cloud.client import CloudApi

    user, router_url = profile.username or None, profile.router_url or None
    return CloudApi(*keys, user=user, router_url=router_url, settings=settings, wire=wire)


@public_face
def assumptions_of(profile: Profile) -> tuple[Any, ...]:
    """Return what is assumed of an archive: its dialect and how operations are written, or that of the Cloud API.

    Raises:
        UsageError: ``options`` names no field, or a value is not of its kind.
    """
    bases: tuple[Any, ...]
    if profile.kind == "cloud":
        from postdicom_async.cloud.wire import CloudWire

        bases = (CloudWire(),)
    else:
        from postdicom_async.dicomweb.dialects import DICOMWEB, POSTDICOM
        from postdicom_async.postdicom.wire import Wire

        bases = (POSTDICOM, Wire()) if profile.kind == "postdicom" else (DICOMWEB,)
    texts = [f"{name}={value}" for name, value in profile.options]
    return with_fields(texts, *bases, where=f"profile {profile.name}, options")


@public_face
def check_profile(profile: Profile) -> None:
    """Refuse a profile that no client can be made of, whatever its secret.

    Raises:
        UsageError: address, options or files cannot be used.
    """
    assumptions_of(profile)
    settings_of(profile)
    _check_addresses(profile)


def _check_addresses(profile: Profile) -> None:
    for key in ("url", "router_url"):
        if address := getattr(profile, key):
            with translated(UsageError, partial(_of_key, profile, key)):
                checked_url(address)


def _of_key(profile: Profile, key: str, error: UsageError) -> UsageError:
    return UsageError(f"profile {profile.name}, {key}: {error.problem}")


def is_at(profile: Profile, address: str) -> bool:
    """Whether an address is that of this archive, however it is spelt."""
    known = profile.router_url or assumptions_of(profile)[0].router_url if profile.kind == "cloud" else profile.url
    try:
        return place_of(address) == place_of(known)
    except ValueError:
        return False
