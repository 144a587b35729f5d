"""The sections of the benchmark: each measures one question and can be run alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.sections.cancelled import run_cancelled
from benchmarks.sections.memory import run_memory, run_scale
from benchmarks.sections.moving import (
    run_disk,
    run_orthanc_download,
    run_orthanc_upload,
    run_plain,
    run_single,
    run_synchronous,
    run_tls,
    run_upload,
)
from benchmarks.sections.shaped import run_shaped
from benchmarks.sections.start import run_start

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.runner import Bench
    from benchmarks.sizes import Sizes

__all__ = ["SECTIONS", "Section"]


@dataclass(frozen=True, slots=True)
class Section:
    """A section's title and what measures it."""

    title: str
    run: Callable[[Bench, Sizes], None]


SECTIONS: dict[str, Section] = {
    "plain": Section("Download, plain HTTP, into memory", run_plain),
    "tls": Section("Download, TLS, into memory", run_tls),
    "disk": Section("Download onto a disk", run_disk),
    "shaped": Section(
        "Download of 8 series over a long line (30 ms, 50 MB/s a connection), and from Orthanc", run_shaped
    ),
    "upload": Section("Upload in batches", run_upload),
    "single": Section("Upload, one instance a request (PostDICOM's dialect)", run_single),
    "synchronous": Section("The synchronous client in a program written for dicomweb-client", run_synchronous),
    "orthanc-download": Section("Download from Orthanc", run_orthanc_download),
    "orthanc-upload": Section("Upload into Orthanc", run_orthanc_upload),
    "memory": Section("Memory", run_memory),
    "scale": Section("Memory by the number of instances", run_scale),
    "start": Section("Start", run_start),
    "cancelled": Section("Cancelled requests", run_cancelled),
}
