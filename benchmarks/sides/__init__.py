"""The sides that are compared. Each runs in a process of its own: ``python -m benchmarks.sides NAME < task.json``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from shutil import which
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.measure import Measurement, Task

OURS_FAST = "postdicom_async (pyreqwest)"
OURS_PLAIN = "postdicom_async (httpx)"
PEER = "dicomweb-client"
PEER_WHOLE = "dicomweb-client (retrieve_study)"
CURL = "curl"
FLOOR = "raw socket"


@dataclass(frozen=True, slots=True)
class _Side:
    """Where a side's function is, what it imports, and whether it only downloads."""

    module: str
    function: str
    needs: tuple[str, ...] = ()
    only_downloads: bool = False


_SIDES = {
    OURS_FAST: _Side("ours", "run_on_pyreqwest", ("postdicom_async.dicomweb.client", "pyreqwest")),
    OURS_PLAIN: _Side("ours", "run_on_httpx", ("postdicom_async.dicomweb.client",)),
    PEER: _Side("peer", "run", ("dicomweb_client",)),
    PEER_WHOLE: _Side("peer", "run_whole", ("dicomweb_client",), only_downloads=True),
    CURL: _Side("curl", "run"),
    FLOOR: _Side("raw", "run"),
}


def sides_for(action: str) -> tuple[str, ...]:
    """Every side that can do `action`, in the order they run and are shown."""
    return tuple(name for name, side in _SIDES.items() if action == "download" or not side.only_downloads)


def load(name: str) -> Callable[[Task], Measurement]:
    side = _SIDES[name]
    function: Callable[[Task], Measurement] = getattr(import_module(f"benchmarks.sides.{side.module}"), side.function)
    return function


def missing(name: str) -> str:
    """Why a side cannot run here; empty when it can."""
    if name == CURL:
        return "" if which("curl") else "curl is not installed"
    absent = [module for module in _SIDES[name].needs if not _importable(module)]
    return f"{', '.join(absent)} cannot be imported" if absent else ""


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
