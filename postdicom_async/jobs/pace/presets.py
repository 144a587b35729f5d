"""Presets with the limits of known archives, and the limits from the profiles of a job's ends.

Limits that a vendor does not publish are assumed, and the notes say so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from postdicom_async.errors import UsageError
from postdicom_async.jobs.pace.pace import Pace, Rate
from postdicom_async.jobs.pace.windows import Windows
from postdicom_async.profiles.opening import settings_of, with_proxy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from postdicom_async.profiles.model import Profile
    from postdicom_async.settings import Settings


@dataclass(frozen=True, slots=True)
class Preset:
    """The limits of a known kind of archive.

    Attributes:
        name: as ``--preset`` takes it.
        title: what it is called.
        hosts: the host names of such archives, with ``*`` for what differs; empty where they run anywhere.
        max_requests: requests a second, None for no limit.
        batch_instances: instances in one store request.
        batch_bytes: bytes in one store request.
        parallel: requests at once, at most.
        page_size: results asked for per search request, at most.
        notes: remarks for people, one line each, and which figures are assumed.
    """

    name: str
    title: str
    hosts: tuple[str, ...] = ()
    max_requests: float | None = None
    batch_instances: int = 20
    batch_bytes: int = 32 * 1024 * 1024
    parallel: int = 6
    page_size: int = 1000
    notes: tuple[str, ...] = ()


_MIB = 1024 * 1024

_ALL: Final = (
    # https://cloud.google.com/healthcare-api/quotas: a store request may have any size and 30 minutes; a search gives
    # at most 5000 studies or series, and 50,000 instances. Quotas are counted by the minute and differ by project; no
    # number is published. https://cloud.google.com/healthcare-api/docs/best-practices-data-throughput: ramp up, back
    # off with jitter, no very small requests.
    Preset(
        "google",
        "Google Cloud Healthcare API",
        hosts=("healthcare.googleapis.com",),
        max_requests=50.0,
        batch_instances=50,
        batch_bytes=64 * _MIB,
        parallel=8,
        page_size=5000,
        notes=(
            "quotas are per project and region, by the minute: look them up in the console",
            "assumed: requests a second, batch size, requests at once",
        ),
    ),
    # https://docs.aws.amazon.com/healthimaging/latest/devguide/throttling-limits.html: GetDICOMInstance and
    # GetDICOMInstanceMetadata 50 a second, 100 in a burst; adjustable. .../dicomweb-storing.html: a store request takes
    # up to 1 GB. The rate of StoreDICOM is not in that table. .../dicomweb-search.html: a search gives at most 10,000
    # results, whatever the offset; hosts as in .../dicomweb-search-studies.html.
    Preset(
        "aws",
        "AWS HealthImaging",
        hosts=("dicom-medical-imaging.*.amazonaws.com",),
        max_requests=40.0,
        batch_instances=50,
        batch_bytes=256 * _MIB,
        parallel=8,
        notes=(
            "50 requests a second for instances and metadata, unless support raised it; four fifths of that are used",
            "a search gives 10,000 results at most: list by date windows",
            "assumed: that storing has the same rate, batch size, requests at once",
        ),
    ),
    # https://learn.microsoft.com/azure/healthcare-apis/dicom/dicom-services-conformance-statement-v2: a store request
    # is limited to 4 GB, and a search to 200 results a page. No rate is published.
    Preset(
        "azure",
        "Azure Health Data Services, DICOM service",
        hosts=("*.dicom.azurehealthcareapis.com",),
        max_requests=20.0,
        batch_instances=20,
        batch_bytes=64 * _MIB,
        parallel=6,
        page_size=200,
        notes=("a store request takes up to 4 GB", "assumed: requests a second, batch size, requests at once"),
    ),
    # Orthanc's Configuration.json: HttpThreadsCount is 50, and was 10 in some releases since 1.6.1; its index has one
    # writer. https://orthanc.uclouvain.be/book/faq/scalability.html
    Preset(
        "orthanc",
        "Orthanc",
        parallel=8,
        notes=("HttpThreadsCount bounds requests at once, 10 in some releases", "assumed: batch size"),
    ),
    # https://github.com/dcm4che/dcm4chee-arc-light/wiki/STOW-RS-Upload-performance-measurements-No-of-objects-per-request
    # and ...-Parallel-TCP-Connections: measured by its makers with 5 to 100 objects a request, on 2 to 8 connections.
    Preset(
        "dcm4chee",
        "dcm4chee-arc",
        batch_instances=50,
        batch_bytes=64 * _MIB,
        parallel=8,
        notes=("measured by its makers with up to 100 instances a request, on up to 8 connections",),
    ),
    # Nothing is published.
    Preset(
        "postdicom",
        "PostDICOM",
        hosts=("postdicom.com", "*.postdicom.com"),
        max_requests=10.0,
        batch_instances=20,
        parallel=4,
        notes=("assumed, carefully: all of it. Ask PostDICOM before a large migration",),
    ),
)

PRESETS: Final[Mapping[str, Preset]] = MappingProxyType({one.name: one for one in _ALL})
"""All of them, by name."""


def preset(name: str) -> Preset:
    """Return a preset by its name.

    Raises:
        UsageError: there is none; the message names all.
    """
    found = PRESETS.get(name.strip().lower())
    if found is None:
        raise UsageError(f"unknown; give one of {', '.join(PRESETS)}", argument="preset")
    return found


def preset_of(host: str) -> Preset | None:
    """Return the preset for a host name, None where the name does not tell."""
    name = host.lower().rstrip(".")
    for one in _ALL:
        if any(fnmatchcase(name, pattern) for pattern in one.hosts):
            return one
    return None


# --- what profiles say -----------------------------------------------------------------------------------------------


_UNSET = {"max_rate": "off", "max_requests": "off", "windows": "always"}
"""The form of "no limit set" in `Pace.snapshot`."""


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
    """Fill in limits that a pace leaves open; of two profiles the lower rate counts.

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
