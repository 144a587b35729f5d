"""Tells the caller's hook of an event; whatever it does, the transfer goes on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postdicom_async.events import Event, OnEvent

__all__ = ["tell"]

_log = logging.getLogger("postdicom_async")


def tell(on_event: OnEvent | None, event: Event) -> None:
    """Call the hook with an event, if there is one."""
    if on_event is None:
        return
    try:
        on_event(event)
    except Exception as error:  # noqa: BLE001 - a caller's code; its text may hold anything
        _log.warning("on_event raised %s", type(error).__name__)
