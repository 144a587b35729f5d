"""From a profile to a client: its settings, its dialect, its credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from postdicom_async.errors import UsageError
from postdicom_async.profiles.fields import with_fields
from postdicom_async.profiles.secrets import credentials_of, find_secret, keys_of

if TYPE_CHECKING:
    from postdicom_async.cloud.client import CloudApi
    from postdicom_async.dicomweb.client import DicomWeb
    from postdicom_async.profiles.model import Profile
    from postdicom_async.profiles.secrets import Ask
    from postdicom_async.settings import Limits, Settings

__all__ = ["assumptions_of", "client_of", "limits_of", "settings_of"]


def settings_of(profile: Profile, *, alone: bool = True) -> Settings:
    """Return the library's settings.

    Raises:
        UsageError: a file that the profile names is not there.
    """
    from postdicom_async.settings import Settings, Tls

    for key in ("ca_file", "client_cert", "client_key"):
        file = getattr(profile, key)
        if file is not None and not file.is_file():
            raise UsageError(f"profile {profile.name}: {key}: there is no such file")
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


def client_of(
    profile: Profile, *, settings: Settings | None = None, alone: bool = True, ask: Ask | None = None
) -> DicomWeb | CloudApi:
    """Return the client, not yet open: `PostDicom` is a `DicomWeb`. May ask the keyring, which blocks.

    ``alone`` says that the caller speaks to this archive only, so that the plain variables count.

    Raises:
        UsageError: a value of the profile is wrong, or a secret is missing and there is nobody to ask.
    """
    settings = settings_of(profile, alone=alone) if settings is None else settings
    if profile.kind == "cloud":
        return _cloud(profile, settings, alone, ask)
    from postdicom_async.dicomweb.client import DicomWeb
    from postdicom_async.postdicom.client import PostDicom

    dialect, *wire = assumptions_of(profile)
    auth = credentials_of(profile, alone=alone, ask=ask)
    if wire and isinstance(auth, tuple):
        return PostDicom(profile.url, *auth, settings=settings, dialect=dialect, wire=wire[0])
    return DicomWeb(profile.url, auth=auth, settings=settings, dialect=dialect)


def _cloud(profile: Profile, settings: Settings, alone: bool, ask: Ask | None) -> CloudApi:
    from postdicom_async.cloud.client import CloudApi

    (wire,) = assumptions_of(profile)
    keys = keys_of(profile, alone=alone, ask=ask)
    user, router_url = profile.username or None, profile.router_url or None
    return CloudApi(*keys, user=user, router_url=router_url, settings=settings, wire=wire)


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
    return with_fields(texts, *bases, where=f"profile {profile.name}: options")
