"""Odd habits and failures of a service of the Cloud API, on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from postdicom_async.emulator.cloud.frames import GENERAL, SESSION, UPLOAD

RequestKey: TypeAlias = tuple[int, int]
"""Message type and management type of a request, such as ``(17, 2)``."""

BringUpStep: TypeAlias = Literal["web-service", "session", "socket"]
"""The HTTP requests of the bring-up, in their order."""

EnvelopeChange: TypeAlias = Callable[[RequestKey, dict[str, Any]], Any]
"""Returns what to send instead of an answer: something for JSON, or bytes as they are."""


@dataclass(frozen=True)
class HttpAnswer:
    """An answer to one HTTP request of the bring-up."""

    status: int = 200
    body: str = '{"ResponseCode":2,"ResponseMessage":"this was asked for"}'


@dataclass
class Drop:
    """A connection to drop.

    Attributes:
        when: before the request is handled, after it is handled without an answer, or in the middle of the answer.
        key: at which requests; None for any.
        nth: at which of these requests from now on, 1 for the next; counted down.
    """

    when: Literal["before", "after", "during"]
    key: RequestKey | None = None
    nth: int = 1


@dataclass
class CloudOddities:
    """The configured oddities; all may be changed while the archive runs.

    Attributes:
        http: by step, answers to its next HTTP requests, each used once instead of the right one.
        address_ends: put behind the address of the WebSocket that is handed out, such as ``"/"`` or ``"/prefix"``.
        plain_region: hand out the region's web service without a slash at its end.
        greeting: a frame is sent on every new socket before the client has spoken.
        response_types: the message type that answers a request's.
        success_flag: the flag in the frame of every answer.
        frame_text: the message text in the frame of every answer.
        upload_session: ``SessionUniqueUuid`` of an upload is a new one, that of the API session, or absent.
        session_needed: refuse requests on sockets without a created or registered session.
        envelope: changes every answer's JSON; see `null_result` and its like.
        refusal_code: ``ResponseCode`` of an operation that could not be done.
        refusal_as_text: its ``ResponseMessage`` is the reason alone.
        latency: seconds before each answer.
        shuffled: the number of answers of a socket to hold back and send in random order.
        missing: how many requests of a kind are executed without an answer.
        refused: how many requests of a kind are refused without being executed.
        refusal_text: the reason then.
        duplicates: each answer is given twice.
        text_frames: before each answer comes a text frame.
        garbage: before each answer come frames that answer nothing.
        drops: connections to be lost.
    """

    http: dict[BringUpStep, list[HttpAnswer]] = field(default_factory=dict)
    address_ends: str = ""
    plain_region: bool = False
    greeting: bool = False
    response_types: dict[int, int] = field(default_factory=lambda: {SESSION: 4, GENERAL: 18, UPLOAD: 6})
    success_flag: int = 1
    frame_text: str = ""
    upload_session: Literal["new", "same", "missing"] = "new"
    session_needed: bool = True
    envelope: EnvelopeChange | None = None
    refusal_code: Any = 1
    refusal_as_text: bool = False
    latency: float = 0
    shuffled: int = 0
    missing: dict[RequestKey, int] = field(default_factory=dict)
    refused: dict[RequestKey, int] = field(default_factory=dict)
    refusal_text: str = "this refusal was asked for"
    duplicates: bool = False
    text_frames: bool = False
    garbage: bool = False
    drops: list[Drop] = field(default_factory=list)

    def take(self, counts: dict[RequestKey, int], key: RequestKey) -> bool:
        """Use up one count for a kind of request; return whether any was left."""
        left = counts.get(key, 0)
        counts[key] = max(left - 1, 0)
        return left > 0

    def drop(self, key: RequestKey) -> Drop | None:
        """Return the drop that is due at this request, and forget it."""
        due = None
        for drop in [drop for drop in self.drops if drop.key in {None, key}]:
            drop.nth -= 1
            if drop.nth <= 0 and due is None:
                due = drop
                self.drops.remove(drop)
        return due


def string_code(_key: RequestKey, envelope: dict[str, Any]) -> Any:
    """Write the code as text."""
    return {**envelope, "ResponseCode": str(envelope["ResponseCode"])}


def other_code(_key: RequestKey, envelope: dict[str, Any]) -> Any:
    """Answer with code 2 whatever was done."""
    return {**envelope, "ResponseCode": 2}


def text_message(_key: RequestKey, _envelope: dict[str, Any]) -> Any:
    """Fail with a text."""
    return {"ResponseCode": 0, "ResponseMessage": "the service says no"}


def null_result(_key: RequestKey, _envelope: dict[str, Any]) -> Any:
    """Answer ``null``."""
    return None


def not_json(_key: RequestKey, _envelope: dict[str, Any]) -> Any:
    """Answer something that is not JSON."""
    return b"<html>busy</html>"
