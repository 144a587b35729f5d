"""Assumptions about each PostDICOM API, where only samples show its behaviour or nothing does: one class for each.

Every assumption can be changed without touching code: ``PostDicom(url, user, password,
wire=Wire(inner_order_key="PatientOrderUUID"))``, ``CloudApi(api_key, account_key,
wire=CloudWire(trailing_zero=False))``. The documentation of the Cloud API describes none of its wire format; the
defaults are what the vendor's JavaScript library does, or a guess where it leaves a question open.
"""

from __future__ import annotations

from dataclasses import dataclass

from postdicom_async.errors import UsageError
from postdicom_async.face import public_face

KIB = 1024


@public_face
@dataclass(frozen=True, slots=True)
class Wire:
    """What is assumed of the service.

    Attributes:
        true: a true boolean (C# sample; the Node sample writes ``true``).
        false: a false boolean (C# sample; the Node sample writes ``false``).
        inner_order_key: the key of an order inside ``PatientOrderInfoList`` (both samples; the documentation writes
            ``PatientOrderUUID``).
        sends_empty: optional parameters that were not given go out (both samples), texts and dates empty, lists as
            ``absent_list``, instead of being left out.
        absent_list: what a list that was not given is written as (C# sample: always a JSON array, in which a blank
            entry is one empty item; that none of them means all is assumed; the Node sample has no optional list).
        header_bytes: the largest parameter header that is sent (assumed; servers and proxies bound header sizes).
    """

    true: str = "True"
    false: str = "False"
    inner_order_key: str = "PatientOrderUuid"
    sends_empty: bool = True
    absent_list: str = "[]"
    header_bytes: int = 8 * KIB


@public_face
@dataclass(frozen=True, slots=True)
class CloudWire:
    """What is assumed of the service.

    Attributes:
        router_url: that of the public copy of the JavaScript library; whether it is right for every account is assumed.
        origin: the ``Origin`` of the WebSocket's opening, if given; a browser sends its page's by itself (assumed).
        client_host_name: sent when the session is opened, if given; the vendor's library in a browser most likely sends
            its page's host name there, by which view links can be bound to a domain (assumed).
        trailing_zero: end general and upload frames with the zero byte that the JavaScript library leaves there.
        response_types: message types that are answers (JavaScript library: 4, 6 and 18; 24 by analogy). Frames of any
            other type are ignored.
        success_flag_decides: a frame whose success flag is not set is a refusal, whatever its JSON says (assumed; the
            JavaScript library never looks at the flag). Otherwise it counts only where the JSON cannot be read.
        reuse_session: after a dropped connection, register the session again before opening a new one (assumed).
        upload_session_of_answer: uploads go on under the session id that their first answer gives, if it gives one
            (JavaScript library, in two of its three uploads), else under that of the account's session.
        other_order_fields: the object inside ``JsonParameters`` that holds the documented fields of an order which the
            public copy of the JavaScript library drops, such as ``PatientComplaints`` (assumed).
        after_date_alone: what follows an order's day when it is scheduled without a time. That a time may be empty is
            documented; the JavaScript library joins day, space and time, though its public copy refuses an empty time.
        flag_ids_as_text: send the ids of flags and their groups as text (documented) instead of as whole numbers, the
            only ones the JavaScript library takes.
        upload_share_has_institution: shares to upload name an institution (the JavaScript library must have it; the
            documentation does not know it).
        names_as_bytes: the question whether the service has a file gives the patient's name and id as the file's bytes
            read as Latin-1, whatever its character set (JavaScript library), instead of as the text they are.
        part_bytes: bytes of a file in one frame (JavaScript library).
        documents_as_script: repeat a large document's whole content with every part and give the part as a list of
            numbers, as the JavaScript library does, instead of sending each part once.
    """

    router_url: str = "https://developer.postdicom.com/wssShellService/"
    origin: str | None = None
    client_host_name: str | None = None
    trailing_zero: bool = True
    response_types: frozenset[int] = frozenset({4, 6, 18, 24})
    success_flag_decides: bool = False
    reuse_session: bool = True
    upload_session_of_answer: bool = True
    other_order_fields: str = "OtherInformation"
    after_date_alone: str = " "
    flag_ids_as_text: bool = False
    upload_share_has_institution: bool = True
    names_as_bytes: bool = True
    part_bytes: int = 512 * KIB
    documents_as_script: bool = False

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        if isinstance(self.part_bytes, bool) or not isinstance(self.part_bytes, int) or self.part_bytes < 1:
            raise UsageError("give a number from 1 on", argument="wire.part_bytes")
        kinds = self.response_types
        if not isinstance(kinds, frozenset) or not kinds or not all(isinstance(kind, int) for kind in kinds):
            raise UsageError("give a frozenset of message types", argument="wire.response_types")
        if not all(isinstance(text, str) and text for text in (self.router_url, self.other_order_fields)):
            raise UsageError("router_url and other_order_fields are texts", argument="wire")
        if not isinstance(self.after_date_alone, str):
            raise UsageError("give text", argument="wire.after_date_alone")
