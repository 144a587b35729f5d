"""From a request of the Cloud API to the JSON of its answer: who may ask, what is asked, what is told when it fails."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Any, TypeAlias

from postdicom_async.emulator.answers import Refusal
from postdicom_async.emulator.cloud.frames import GENERAL, SESSION
from postdicom_async.emulator.cloud.operations import general_table
from postdicom_async.emulator.cloud.parameters import (
    KEYS,
    BadParameters,
    Parameters,
    deviations_of,
    json_object,
    read_parameters,
)
from postdicom_async.emulator.cloud.state import ReceivedFrame
from postdicom_async.emulator.cloud.upload import CloudUpload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from postdicom_async.emulator.cloud.frames import Request
    from postdicom_async.emulator.cloud.state import Cloud

__all__ = ["Asked", "Dispatch", "session_of"]

UploadHandler: TypeAlias = "Callable[[Parameters, memoryview, str], dict[str, Any]]"

CREATE_API_SESSION, REGISTER_SESSION = 4, 2
_SESSION_FIELDS = ("SessionUuid", "OtherParameterList")
_PART_FIELDS = (
    "SessionUniqueUuid", "InstitutionUuid", "UserUuid", "FileIndex", "TotalFileCount?", "CurrentFilePartIndex",
    "CurrentFileTotalPartCount",
)  # fmt: skip
_UPLOAD_FIELDS = {
    1: ("UserUuid", "InstitutionUuid", "TotalFileSize", "UploaderUuid", "UploaderName"),
    2: (
        "SessionUniqueUuid", "InstitutionUuid", "UserUuid", "FolderUuid?", "StudyInstanceUid?", "PatientName?",
        "PatientId?", "SeriesInstanceUid?", "SopInstanceUid?",
    ),
    3: (*(name for name in _PART_FIELDS if name != "TotalFileCount?"), "FolderUuidList?"),
    4: (*_PART_FIELDS, "FileBuffer?", "PatientOrderUuid", "FileName", "FileType?", "IsDocument"),
}  # fmt: skip
_TAIL = b"\x00"
"""Behind general and upload requests stands a zero byte; nobody needs it."""

_logger = logging.getLogger("postdicom_async.emulator.cloud")


class Asked:
    """A request with its JSON read, the session of the socket it came on, and where that comes from."""

    def __init__(self, request: Request, session: str, address: str = "") -> None:
        self.request = request
        self.session = session
        self.address = address
        self.given: dict[str, Any] = json_object(request.text)

    @property
    def key(self) -> tuple[int, int]:
        """Message type and management type."""
        return self.request.message_type, self.request.management_type


class Dispatch:
    """Answers requests; sockets and oddities are not its business."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._counting = threading.Lock()
        self._general = general_table(cloud)
        uploads = CloudUpload(cloud)
        self._uploads: dict[int, UploadHandler] = {
            1: uploads.initialize,
            2: uploads.check,
            3: uploads.part,
            4: uploads.document,
        }

    def note(self, asked: Asked, socket: int) -> None:
        """Remember a request, and how it differs from what the library sends."""
        cloud, request = self._cloud, asked.request
        given = asked.given
        if isinstance(given.get("FileBuffer"), list):
            given = {**given, "FileBuffer": len(given["FileBuffer"])}
        if cloud.recording:
            cloud.frames.append(
                ReceivedFrame(
                    socket,
                    request.message_type,
                    request.message_id,
                    request.management_type,
                    given,
                    len(request.data),
                    request.user_text,
                    request.trailing,
                )
            )
        fields = self._fields(asked.key)
        if fields and request.message_type != SESSION:
            fields = (*fields, *KEYS)
        text = "" if "FileBuffer" in given else request.text
        problems = deviations_of(fields, asked.given, text) if fields else ["no such management type"]
        if request.trailing != (b"" if request.message_type == SESSION else _TAIL):
            problems.append("the frame does not end as the library's do")
        if request.user_text != (given.get("UserUuid") if asked.key[0] not in {SESSION, GENERAL} else ""):
            problems.append("the user UUID behind the data is another than in the JSON text")
        cloud.deviates("{}/{}".format(*asked.key), problems)

    def _fields(self, key: tuple[int, int]) -> tuple[str, ...]:
        kind, management_type = key
        if kind == SESSION:
            return _SESSION_FIELDS if management_type in {CREATE_API_SESSION, REGISTER_SESSION} else ()
        if kind == GENERAL:
            row = self._general.get(management_type)
            return row.fields if row else ()
        return _UPLOAD_FIELDS.get(management_type, ())

    def handle(self, asked: Asked) -> dict[str, Any]:
        """Do what is asked and return the envelope; blocks."""
        try:
            self._require_access(asked)
            fields = self._fields(asked.key)
            if not fields:
                raise Refusal(400, "this management type is not known")
            envelope = self._act(asked, read_parameters(fields, asked.given))
        except _NoAccess as refused:
            return self._no_access(asked, str(refused))
        except BadParameters as problem:
            return self.refusal(asked, str(problem))
        except Refusal as refused:
            return self.refusal(asked, refused.detail)
        except Exception as error:  # noqa: BLE001 - a mistake in here ends the request, not the connection
            # Neither the error's text nor its frames, which hold what was asked.
            places = [f"{Path(frame.filename).stem}:{frame.lineno}" for frame in extract_tb(error.__traceback__)]
            kind = type(error).__name__
            _logger.error("a request of type %s/%s failed: %s at %s", *asked.key, kind, " ".join(places))  # noqa: TRY400
            return self.refusal(asked, f"the archive failed: {type(error).__name__}")
        with self._counting:
            self._cloud.executed[asked.key] += 1
        return envelope

    def refusal(self, asked: Asked, reason: str) -> dict[str, Any]:
        """Return the envelope of a request that is refused."""
        kind, oddities = asked.key[0], self._cloud.oddities
        if kind == SESSION:
            return {"ResponseCode": 0, "ResponseMessage": reason}
        if kind != GENERAL:
            return {"ResponseCode": 0, "ResponseMessage": None, "Message": reason}
        told = reason if oddities.refusal_as_text else {"Success": False, "Message": reason}
        return {"ResponseCode": oddities.refusal_code, "ResponseMessage": told}

    def _no_access(self, asked: Asked, reason: str) -> dict[str, Any]:
        return {**self.refusal(asked, reason), "ResponseCode": 0, "Message": reason}

    def _require_access(self, asked: Asked) -> None:
        guesses = self._cloud.context.key_guesses
        if guesses.begin(asked.address):
            raise _NoAccess("too many wrong keys came from there")
        try:
            self._require_keys(asked)
        except _WrongKey:
            raise
        except _NoAccess:
            guesses.right(asked.address)
            raise
        guesses.right(asked.address)

    def _require_keys(self, asked: Asked) -> None:
        cloud, given = self._cloud, asked.given
        if asked.key[0] == SESSION:
            if session_of(given) not in cloud.sessions:
                raise _WrongKey("there is no such session")
            if not self._is_of_session(given.get("OtherParameterList"), session_of(given)):
                raise _WrongKey("OtherParameterList does not fit the session")
            return
        if not (cloud.is_api_key(given.get("ApiKey")) and cloud.is_account_key(given.get("AccountKey"))):
            raise _WrongKey("ApiKey or AccountKey is wrong")
        if cloud.oddities.session_needed and asked.session not in cloud.sessions:
            raise _NoAccess("there is no session on this socket")
        if str(given.get("UserUuid")).lower() not in cloud.context.options.users:
            raise _NoAccess("there is no such user")

    def _is_of_session(self, others: Any, session: str) -> bool:
        """Return whether the list holds ``Api=`` and the session, then ``ApiKey=`` and the key."""
        texts = [str(other) for other in others] if isinstance(others, list) else []
        names, values = [text.partition("=")[0] for text in texts], [text.partition("=")[2] for text in texts]
        return names == ["Api", "ApiKey"] and values[0].lower() == session and self._cloud.is_api_key(values[1])

    def _act(self, asked: Asked, given: Parameters) -> dict[str, Any]:
        kind, management_type = asked.key
        if kind == SESSION:
            told = {"Account": self._cloud.account()} if management_type == CREATE_API_SESSION else {"Success": True}
            return {"ResponseCode": 1, "ResponseMessage": told}
        if kind == GENERAL:
            fields = self._general[management_type].handler(given)
            return {"ResponseCode": 1, "ResponseMessage": {"Success": True, "Message": "", **fields}}
        return {"ResponseCode": 1, **self._uploads[management_type](given, asked.request.data, asked.session)}


def session_of(given: Mapping[str, Any]) -> str:
    """Return the session that a session management request names."""
    return str(given.get("SessionUuid")).lower()


class _NoAccess(Exception):
    """The keys, the session or the user is unknown."""


class _WrongKey(_NoAccess):
    """Perhaps a guess."""
