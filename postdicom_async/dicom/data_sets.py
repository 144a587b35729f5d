"""DICOM JSON to pydicom's data sets. Pure.

Importing this brings pydicom and numpy, so it is imported when a data set is made.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from typing import Any

from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from postdicom_async.dicom.json_reading import DicomJson, values_of


def dataset_of(item: DicomJson, problem: Callable[[str], None]) -> Dataset:
    """Return the data set. An element whose value is not what its VR says is left out and told to ``problem``.

    A value given by BulkDataURI is empty here; the raw object has the address.
    """
    dataset = Dataset()
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        for tag, element in item.items():
            read = _element(tag, element)
            if read is None:
                problem(f"element {str(tag)[:8]} has a value that cannot be read")
            else:
                dataset.add(read)
    return dataset


def dataset_in_parts(item: DicomJson, problem: Callable[[str], None]) -> Generator[None, None, Dataset]:
    """Return the data set as `dataset_of` does, and yield between its elements, those of sequences too.

    For one of very many elements, which takes seconds.
    """
    dataset = Dataset()
    for tag, element in item.items():
        read = yield from _element_in_parts(tag, element)
        if read is None:
            problem(f"element {str(tag)[:8]} has a value that cannot be read")
        else:
            dataset.add(read)
    return dataset


def _element_in_parts(tag: str, element: Any) -> Generator[None, None, DataElement | None]:
    yield
    values = values_of({tag: element}, tag)
    if not values or element.get("vr") != "SQ":
        return next(iter(dataset_of({tag: element}, lambda _text: None)), None)
    items: list[Dataset] = []
    for value in values:
        found: list[str] = []
        if isinstance(value, dict | None):
            items.append((yield from dataset_in_parts(value or {}, found.append)))
        if found or not isinstance(value, dict | None):
            return None  # as pydicom has it: with an item that cannot be read the sequence cannot
    return DataElement(int(tag, 16), "SQ", Sequence(items))


_VALUE_KEYS = ("Value", "InlineBinary", "BulkDataURI")


def _element(tag: str, element: Any) -> DataElement | None:
    try:
        vr = element["vr"]
        key = next((key for key in _VALUE_KEYS if key in element), None)
        value = element[key] if key else ""
        return DataElement.from_json(Dataset, tag, vr, value, key, lambda _tag, _vr, _uri: b"")
    except Exception:  # noqa: BLE001 - foreign values through a parser that may raise anything
        return None
