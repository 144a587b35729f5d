"""From a profile to a client: its settings, its dialect, its credentials; and options, as ``FIELD=VALUE`` texts."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from functools import partial
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from postdicom_async.errors import UsageError
from postdicom_async.face import public_face, translated
from postdicom_async.http.endpoint import checked_url, place_of
from postdicom_async.profiles.secrets import credentials_of, find_secret, keys_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from postdicom_async.cloud.client import CloudApi
    from postdicom_async.dicomweb.client import DicomWeb
    from postdicom_async.profiles.model import Profile
    from postdicom_async.profiles.secrets import Ask
    from postdicom_async.settings import Limits, Settings
    from postdicom_async.vendor.wire import CloudWire


@public_face
def settings_of(profile: Profile, *, alone: bool = True) -> Settings:
    """Return the library's settings.

    Raises:
        UsageError: a file that the profile names is missing.
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
    """Return the limits: ``connections`` alone limits every kind of request, as with ``--connections``."""
    from postdicom_async.settings import Limits

    n = profile.connections
    given = {
        "connections": n,
        "parallel_stores": profile.parallel_stores or n,
        "parallel_retrieves": profile.parallel_retrieves or n,
    }
    return Limits(**{name: value for name, value in given.items() if value is not None})


def with_proxy(profile: Profile) -> Profile:
    """Return the profile with the proxy of ``POSTDICOM_PROXY`` if it has none; that address may contain a password."""
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
        settings: used instead of `settings_of`.
        assumed: used instead of `assumptions_of`.
        alone: the caller uses only this archive, so variables without a profile's name apply.
        ask: called with a prompt when a secret is found nowhere; returns it.

    Raises:
        UsageError: a value of the profile is wrong, or a secret is missing and cannot be asked for.
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
        UsageError: a key cannot be used.
    """
    from postdicom_async.cloud.client import CloudApi

    user, router_url = profile.username or None, profile.router_url or None
    return CloudApi(*keys, user=user, router_url=router_url, settings=settings, wire=wire)


@public_face
def assumptions_of(profile: Profile) -> tuple[Any, ...]:
    """Return the assumptions about an archive: its dialect and operations, or those of the Cloud API.

    Raises:
        UsageError: ``options`` names no field, or a value is not of its kind.
    """
    bases: tuple[Any, ...]
    if profile.kind == "cloud":
        from postdicom_async.vendor.wire import CloudWire

        bases = (CloudWire(),)
    else:
        from postdicom_async.dicomweb.dialects import DICOMWEB, POSTDICOM
        from postdicom_async.vendor.wire import Wire

        bases = (POSTDICOM, Wire()) if profile.kind == "postdicom" else (DICOMWEB,)
    texts = [f"{name}={value}" for name, value in profile.options]
    return with_fields(texts, *bases, where=f"profile {profile.name}, options")


@public_face
def check_profile(profile: Profile) -> None:
    """Refuse a profile from which no client can be made, regardless of secrets.

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
    if profile.token_url:
        from postdicom_async.tokens.client_credentials import checked_token_url

        with translated(UsageError, partial(_of_key, profile, "token_url")):
            checked_token_url(profile.token_url)


def _of_key(profile: Profile, key: str, error: UsageError) -> UsageError:
    return UsageError(f"profile {profile.name}, {key}: {error.problem}")


def address_of(profile: Profile) -> str:
    """Return the address of the archive, or of the Cloud API's router, in one spelling."""
    known = profile.router_url or assumptions_of(profile)[0].router_url if profile.kind == "cloud" else profile.url
    return place_of(known)


def is_at(profile: Profile, address: str) -> bool:
    """Whether an address is this archive's, however it is written."""
    try:
        return place_of(address) == address_of(profile)
    except ValueError:
        return False


# --- options as texts ------------------------------------------------------------------------------------------------


_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


_READERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    bool: (lambda text: _WORDS[text.lower()], "true or false"),
    int: (int, "a whole number"),
    str: (str, "text"),
    frozenset[int]: (lambda text: frozenset(map(int, text.split(","))), "whole numbers with commas between"),
}


def with_fields(given: Sequence[str] | None, *bases: Any, where: str = "-o") -> tuple[Any, ...]:
    """Return the dataclasses changed by ``FIELD=VALUE`` texts; ``where`` names their origin in errors.

    Raises:
        UsageError: no dataclass has the field, or the value has a wrong type. The message does not quote it.
    """
    known = {name: index for index, base in enumerate(bases) for name in options_of(base)}
    changes: list[dict[str, Any]] = [{} for _ in bases]
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            raise UsageError(f"{where}: give FIELD=VALUE; fields are {', '.join(known)}")
        changes[known[name]][name] = _value(f"{where} {name}", options_of(bases[known[name]])[name], value)
    return tuple(_replaced(base, change, where) for base, change in zip(bases, changes, strict=True))


def _replaced(base: Any, changes: dict[str, Any], where: str) -> Any:
    try:
        return replace(base, **changes)
    except UsageError as error:
        field = (error.argument or "").rpartition(".")[2].removesuffix("wire")
        problem = f"{field}: {error.problem}" if field else error.problem
    raise UsageError(f"{where} {problem}")


def options_of(base: Any) -> dict[str, Any]:
    """Return the fields that a text can change, by name, with their types."""
    hints = get_type_hints(type(base))
    named = {field.name: hints[field.name] for field in fields(base) if field.name != "name"}
    return {
        name: kind
        for name, kind in named.items()
        if all(one in _READERS or get_origin(one) is Literal for one in _kinds(kind))
    }


def values_of(base: Any) -> dict[str, str]:
    """Return these fields as ``-o`` takes them."""
    return {name: _text(getattr(base, name)) for name in options_of(base)}


def _text(value: object) -> str:
    if isinstance(value, frozenset):
        return ",".join(map(str, sorted(value)))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _kinds(annotation: Any) -> Iterator[Any]:
    """Yield the types that an annotation allows, None apart."""
    if get_origin(annotation) in (Union, UnionType):
        yield from (kind for kind in get_args(annotation) if kind is not NoneType)
    else:
        yield annotation


def _value(where: str, annotation: Any, text: str) -> Any:
    optional = NoneType in get_args(annotation)
    if optional and text.lower() in ("", "none"):
        return None
    expected: list[str] = ["none"] if optional else []
    for kind in _kinds(annotation):
        if get_origin(kind) is Literal:
            if text in get_args(kind):
                return text
            expected.append(" or ".join(map(str, get_args(kind))))
            continue
        read, words = _READERS[kind]
        try:
            return read(text)
        except (ValueError, KeyError):
            expected.append(words)
    raise UsageError(f"{where}: give {' or '.join(expected)}")
