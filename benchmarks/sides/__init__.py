"""The sides that are compared. Each runs in a process of its own: ``python -m benchmarks.sides NAME < task.json``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from shutil import which
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.measure import Measurement, Task

OURS = "postdicom_async"
OURS_NO_FSYNC = "postdicom_async, fsync off"
OURS_ONE_STREAM = "postdicom_async, one stream"
PEER = "dicomweb-client"
CURL = "curl"
FLOOR = "raw socket"
REQUESTS = "requests, six threads"
SYNC = "postdicom_async.sync"
SYNC_WHOLE = "postdicom_async.sync, in one call"


@dataclass(frozen=True, slots=True)
class _Side:
    """Where a side's ``run`` is, what it imports, and how its task differs from that of the others."""

    module: str
    needs: tuple[str, ...] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)


_SIDES = {
    OURS: _Side("ours"),
    OURS_NO_FSYNC: _Side("ours", changes={"fsync": False}),
    OURS_ONE_STREAM: _Side("ours", changes={"one_stream": True}),
    PEER: _Side("peer", ("dicomweb_client",)),
    CURL: _Side("curl"),
    FLOOR: _Side("raw"),
    REQUESTS: _Side("threads", ("requests",)),
    SYNC: _Side("synchronous"),
    SYNC_WHOLE: _Side("synchronous", changes={"each": True}),
}


def run(name: str, task: Task) -> Measurement:
    """Do a task as a side would, in this process."""
    side = _SIDES[name]
    function: Callable[[Task], Measurement] = import_module(f"benchmarks.sides.{side.module}").run
    return function(replace(task, **side.changes))


def missing(name: str) -> str:
    """Why a side cannot run here; empty when it can."""
    if name == CURL:
        return "" if which("curl") else "curl is not installed"
    absent = [module for module in _SIDES[name].needs if find_spec(module) is None]
    return f"{', '.join(absent)} cannot be imported" if absent else ""
