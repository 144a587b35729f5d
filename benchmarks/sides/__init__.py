"""The sides that are compared. Each runs in a process of its own: ``python -m benchmarks.sides NAME < task.json``."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from shutil import which
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from benchmarks.measure import Measurement, Task

OURS_FAST = "postdicom_async (pyreqwest)"
OURS_PLAIN = "postdicom_async (httpx)"
PEER = "dicomweb-client"
CURL = "curl"
FLOOR = "raw socket"
#: In the order they run and are shown.
SIDES = (OURS_FAST, OURS_PLAIN, PEER, CURL, FLOOR)
_MODULES = {
    OURS_FAST: "ours_pyreqwest",
    OURS_PLAIN: "ours_httpx",
    PEER: "peer",
    CURL: "curl",
    FLOOR: "raw",
}
_NEEDS = {
    OURS_FAST: ("postdicom_async.dicomweb.client", "pyreqwest"),
    OURS_PLAIN: ("postdicom_async.dicomweb.client",),
    PEER: ("dicomweb_client",),
}


class Side(Protocol):
    """A module that can move DICOM."""

    def run(self, task: Task) -> Measurement: ...


def load(name: str) -> Side:
    module = import_module(f"benchmarks.sides.{_MODULES[name]}")
    return cast("Side", module)


def missing(name: str) -> str:
    """Why a side cannot run here; empty when it can."""
    if name == CURL:
        return "" if which("curl") else "curl is not installed"
    absent = [module for module in _NEEDS.get(name, ()) if not _importable(module)]
    return f"{', '.join(absent)} cannot be imported" if absent else ""


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
