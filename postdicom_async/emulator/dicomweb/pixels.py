"""Cut frames and bulk data out of a stored file. Blocks; nothing is decoded.

A stored file may be truncated. So all lengths are checked before the answer begins: a length beyond the end of the
file, or fragments without an end, are refused.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.sequence import Sequence as DicomSequence

from postdicom_async.emulator.answers import Refusal
from postdicom_async.emulator.dicomweb.multipart_writer import AnswerPart, FileSlice, PartSource
from postdicom_async.emulator.store.archive import StoredInstance
from postdicom_async.emulator.store.header import UNDEFINED_LENGTH, Header, raw_element, read_header

OCTETS = "application/octet-stream"
_PIXEL_DATA = 0x7FE00010
_ITEM, _END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_NUMBERS = {
    "image/jpeg": (50, 51, 57, 70),
    "image/jls": (80, 81),
    "image/jp2": (90, 91),
    "image/jpx": (92, 93),
    "video/mpeg": (100,),
    "video/mp4": (102, 103),
    "image/jxl": (110, 112),
    "image/jphc": (201, 202, 203),
}
_MEDIA_TYPES = {f"1.2.840.10008.1.2.4.{number}": kind for kind, numbers in _NUMBERS.items() for number in numbers}
_MEDIA_TYPES["1.2.840.10008.1.2.5"] = "image/dicom-rle"
"""PS3.18 tables 8.7.3-5 and 8.7.3-6; anything else is octets."""


def frame_parts(instance: StoredInstance, numbers: list[int] | None = None) -> list[AnswerPart]:
    """Return frames as parts, all of them without ``numbers`` (the first is 1).

    Raises:
        Refusal: 404 when there is no such frame, 501 when frames do not begin at whole bytes, 500 when the file breaks
            off or is damaged.
    """
    header = read_header(instance.path)
    count = header.number(0x00280008, 1) or 1
    wanted = numbers if numbers is not None else list(range(1, count + 1))
    if any(not 1 <= number <= count for number in wanted):
        raise Refusal(404, f"the instance has {count} frame(s)")
    syntax, kind = instance.transfer_syntax, OCTETS
    if header.pixels and header.pixels.length is None:
        kind = _MEDIA_TYPES.get(syntax, OCTETS)
        frames = _encapsulated(instance, header.pixels.offset, set(wanted), count)
    else:
        frames = _native(instance, header, wanted, count)
    return [AnswerPart(f"{kind}; transfer-syntax={syntax}", frames[number]) for number in wanted]


def _encapsulated(instance: StoredInstance, start: int, wanted: set[int], count: int) -> dict[int, PartSource]:
    with instance.path.open("rb") as file:
        fragments = _fragments(instance.path, file, start, instance.size)
        if len(fragments) == count:  # each frame has at least one
            return dict(enumerate(fragments, 1))
        frames: dict[int, PartSource] = {}
        for number in wanted:
            file.seek(start)
            try:
                frames[number] = bytes(get_frame(file, number - 1, number_of_frames=count))
            except (ValueError, EOFError) as error:
                raise Refusal(500, f"the encapsulated pixel data cannot be taken apart: {error}") from None
    return frames


def _fragments(path: Path, file: BinaryIO, start: int, size: int) -> list[FileSlice]:
    """Return the fragments behind the offset table (PS3.5 section A.4), by their headers alone.

    Raises:
        Refusal: 500 when one of them, or their end, is missing.
    """
    at, found = start, list[FileSlice]()
    while at + 8 <= size:
        file.seek(at)
        group, element, length = struct.unpack("<HHI", file.read(8))
        if (group, element) == _END:
            return found[1:]
        if (group, element) != _ITEM or at + 8 + length > size:
            break
        found.append(FileSlice(path, at + 8, length))
        at += 8 + length
    raise Refusal(500, "the stored file is damaged: its pixel data break off")


def _native(instance: StoredInstance, header: Header, wanted: list[int], count: int) -> dict[int, PartSource]:
    source = _pixel_source(instance, header)
    # Of YBR_FULL_422 two pixels share their colour.
    samples = 2 if header.text(0x00280004) == "YBR_FULL_422" else header.number(0x00280002, 1)
    bits = header.number(0x00280010) * header.number(0x00280011) * samples * header.number(0x00280100)
    if bits % 8 and count > 1:
        raise Refusal(501, "frames that do not begin at a whole byte are not cut out")
    size = (bits + 7) // 8
    if not size or size * count > len(source):
        raise Refusal(500, "the pixel data are shorter than the header says")
    starts = {number: (number - 1) * size for number in wanted}
    if isinstance(source, bytes):
        return {number: source[start : start + size] for number, start in starts.items()}
    return {number: FileSlice(source.path, source.offset + start, size) for number, start in starts.items()}


def _pixel_source(instance: StoredInstance, header: Header) -> PartSource:
    if header.pixels and header.pixels.length is not None:
        return _slice_of_file(instance, header.pixels.offset, header.pixels.length)
    element = raw_element(header.dataset, _PIXEL_DATA)  # only a deflated data set holds it
    if element and element.value:
        return element.value
    raise Refusal(404, "the instance has no pixel data")


def _slice_of_file(instance: StoredInstance, offset: int, length: int) -> FileSlice:
    if offset + length > instance.size:
        raise Refusal(500, "the stored file breaks off before the end of this value")
    return FileSlice(instance.path, offset, length)


def bulk_parts(instance: StoredInstance, path: str) -> list[AnswerPart]:
    """Return the value a ``BulkDataURI`` stands for; compressed pixel data come frame by frame.

    Args:
        instance: the instance.
        path: tags and item numbers joined by slashes, as in the metadata.

    Raises:
        Refusal: 404 when there is no such value.
    """
    header = read_header(instance.path)
    if header.pixels and path.upper() == f"{header.pixels.tag:08X}":
        if header.pixels.length is None:
            return frame_parts(instance)
        return [AnswerPart(OCTETS, _pixel_source(instance, header))]
    return [AnswerPart(OCTETS, _value(instance, header.dataset, path.split("/")))]


def _value(instance: StoredInstance, dataset: Dataset, steps: list[str]) -> PartSource:
    element = None
    try:
        for tag, item in zip(steps[:-1:2], steps[1::2], strict=True):
            value = dataset[int(tag, 16)].value
            dataset = (value if isinstance(value, DicomSequence) else [])[int(item) - 1]
        element = raw_element(dataset, int(steps[-1], 16))
    except (ValueError, IndexError, KeyError, OverflowError):
        pass
    if not element or not element.length:
        raise Refusal(404, "the instance has no such bulk data")
    if element.value is None:  # left in the file for its size
        return _slice_of_file(instance, element.value_tell, element.length)
    if len(element.value) < element.length != UNDEFINED_LENGTH:
        raise Refusal(500, "the stored file breaks off before the end of this value")
    return element.value
