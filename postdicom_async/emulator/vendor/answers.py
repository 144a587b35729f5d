"""Pure: how PostDICOM's own operations answer.

The answers are not documented. The names are those of the vendor's other API for the same objects (JavaScript
library), and of this archive's choice where that says nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydicom.datadict import keyword_for_tag
from starlette.responses import Response

from postdicom_async.emulator.vendor.orders import WITH_IMAGES, WITHOUT_IMAGES
from postdicom_async.emulator.vendor.schema import series_uuid_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from postdicom_async.emulator.store.archive import IndexRow
    from postdicom_async.emulator.store.header import Json
    from postdicom_async.emulator.vendor.folders import Folder
    from postdicom_async.emulator.vendor.orders import Order

__all__ = ["folder_fields", "no", "order_fields", "plain", "series_fields", "tag_fields", "yes"]

_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_NO_STORE = {"Cache-Control": "no-store"}


def yes(**fields: Any) -> Response:
    """Return a good answer: a JSON object."""
    return _json({"Success": True, "Message": "", **fields})


def no(reason: str) -> Response:
    """Return a refusal in an answer of status 200."""
    return _json({"Success": False, "Message": reason})


def plain(text: str) -> Response:
    """Return an answer in plain text."""
    return Response(text, headers=_NO_STORE, media_type="text/plain")


def _json(content: Any) -> Response:
    body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(body, headers=_NO_STORE, media_type="application/json")


def order_fields(order: Order, institution_name: str, shared: Collection[str]) -> Json:
    """Return an order as searches list it; `Order.fields` are there by their own names."""
    return {
        "PatientOrderUuid": order.uuid,
        "PatientOrderInstitutionUuid": order.institution_uuid,
        "InstitutionName": institution_name,
        **order.fields,
        "OrderModality": "\\".join(order.modalities),
        "OrderStatus": WITH_IMAGES if order.study_uid else WITHOUT_IMAGES,
        "StudyInstanceUid": order.study_uid,
        "SeriesCount": order.series_count,
        "ImagesCount": order.images_count,
        "DocumentsCount": 0,
        "OrderSize": order.size // 1024,
        "IsShared": order.uuid in shared,
        "AssignedUserUuid": order.user_uuid,
        "AssignedUserGroupUuid": order.group_uuid,
    }


def series_fields(row: IndexRow) -> Json:
    """Return a series as the properties of an order list it."""
    study_uid, series_uid, _ = row.uids
    value = {tag: next(iter(row.series.get(tag, {}).get("Value", [])), "") for tag in ("00080060", "0008103E")}
    return {
        "PatientSeriesUuid": series_uuid_of(study_uid, series_uid),
        "SeriesInstanceUid": series_uid,
        "Modality": value["00080060"],
        "SeriesDescription": value["0008103E"],
        "ImagesCount": row.instances_in_series,
    }


def folder_fields(folder: Folder, shared: Collection[str], order_count: int, sub_folder_count: int) -> Json:
    """Return a folder as searches list it."""
    return {
        "FolderUuid": folder.uuid,
        "FolderName": folder.name,
        "FolderDescription": folder.description,
        "ParentFolderUuid": folder.parent_uuid,
        "IsShared": folder.uuid in shared,
        "OrderCount": order_count,
        "SubFolderCount": sub_folder_count,
    }


def tag_fields(study_uid: str, series_uid: str, attributes: Json, wanted: Sequence[str]) -> list[Json]:
    """Return the content of tags of one series: those wanted and there, or else all without bulk data."""
    tags = [tag for tag in wanted if tag in attributes] if wanted else list(attributes)
    return [
        {
            "PatientSeriesUuid": series_uuid_of(study_uid, series_uid),
            "SeriesInstanceUid": series_uid,
            "DicomTagId": tag,
            "DicomTagName": keyword_for_tag(int(tag, 16)),
            "ValueRepresentation": attributes[tag]["vr"],
            "Value": _content(attributes[tag]),
        }
        for tag in tags
        if wanted or attributes[tag]["vr"] not in _BINARY
    ]


def _content(element: Json) -> str | list[Json]:
    """Return values as text, as they would stand in a file; the items of a sequence in the DICOM JSON model."""
    values = element.get("Value", [])
    if element["vr"] == "SQ":
        return list(values)
    return "\\".join(_text(value) for value in values)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "=".join(value.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")).rstrip("=")
    return "" if value is None else str(value)
