"""How PostDICOM's own operations are written on the wire, where that is known only from samples or not at all.

One object holds every such choice, so that each can be changed without touching code:
``PostDicom(url, user, password, wire=Wire(inner_order_key="PatientOrderUUID"))``.
"""

from __future__ import annotations

from dataclasses import dataclass

from postdicom_async.face import public_face

__all__ = ["Wire"]

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
