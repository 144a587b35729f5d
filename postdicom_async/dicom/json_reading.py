"""JSON as servers send it: its text (RFC 8259), read while it arrives, and the data sets in it (PS3.18 annex F). Pure.

The items of a list at the top are given one by one; `data_set_in` says which of them are data sets.

State: the text not read yet, and the values of the item being read. Small values are read by json's
own scanner, which is fast but stops everything else meanwhile, in every thread; so it is never given more than a window
of text. What does not fit in the window is read value by value, level by level. Whatever a server sends, one slice of
work takes milliseconds, and an item is bounded in bytes, values and depth before it fills the memory.

Of two members with the same name the last one counts, as in Python's json.
"""

from __future__ import annotations

import codecs
import json
import re
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from postdicom_async.dicom.tags import tag_of_keyword
from postdicom_async.face import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEEPEST: Final = 64
"""Levels of lists and objects; a sequence in DICOM JSON takes three."""
_MOST_VALUES = 1 << 23  # of one item: an empty list of two bytes takes 64 in memory
_WINDOW = 128 << 10  # characters
_PIECE = 64 << 10
_LONGEST_TOKEN = 64 << 10  # of a key, which is never read in parts, and of numbers
_STEPS = 512


class NotJson(ValueError):
    """The text is not JSON, or not a list or an object."""


class EndsEarly(NotJson):
    """The text is the beginning of JSON."""


class TooMuch(NotJson):
    """An item is larger than the limits."""


_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"[-+.0-9eE]*")
_STARTS_NUMBER = frozenset("-0123456789")
_LITERALS = ("true", "false", "null")
# Whole characters and escapes of a string. A surrogate pair of escapes stays together, so the first alone must be
# followed by enough text to tell.
_IN_STRING = re.compile(
    r"""(?:[^"\\\x00-\x1f]+|\\["\\/bfnrt]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}"""
    r"""|\\u[dD][89abAB][0-9a-fA-F]{2}(?=[^\\]|\\u[0-9a-fA-F]{4}|\\[^u])(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?)*+"""
)


def _refuse_constant(_name: str) -> float:
    raise NotJson("not JSON")  # NaN and the infinities


_scan = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode


class JsonReader:
    """Reads one text. `feed` it, then call `end`; both yield lists of items, some empty, after small slices of work.

    A top-level list is yielded item by item; an object is one item. ``largest`` bounds the characters of an item,
    including those before it. An empty text has no items.

    Raises:
        NotJson: it is not JSON, or is nested deeper than `DEEPEST`.
        EndsEarly: from `end`, if the text is incomplete.
        TooMuch: an item is larger than ``largest``, or has more values than fit in memory.

    Attributes:
        is_list: whether the top level is a list.
    """

    def __init__(self, *, largest: int) -> None:
        self._largest = largest
        self._undecoded = b""
        self._decode: Callable[[bytes, bool], str] | None = None
        self._text = ""
        self._at = 0
        self._more: list[str] = []
        self._more_size = 0
        self._need = 0  # characters from `_at` on without which trying again is pointless
        self._final = False
        self._spent = 0  # characters of this item that have left `_text`
        self._from = 0  # where this item's part of `_text` starts
        self._values = 0  # of this item, as far as it was read level by level
        self.is_list: bool = False
        self._open: list[dict[str, Any] | list[Any]] = []
        self._keys: list[str] = []  # of the open objects, and the one being read
        self._is_in_string = False
        self._string: list[str] = []  # the part of the string read so far
        self._items: list[Any] = []
        self._expected: Callable[[str, int], bool] = self._start

    @property
    def is_amid(self) -> bool:
        """Whether anything follows the last item yielded: part of another, or a comma."""
        return self._expected not in (self._start, self._next, self._nothing) or bool(self._open)

    def feed(self, data: bytes) -> Iterator[list[Any]]:
        """Take what has arrived; yield the items that are complete."""
        for start in range(0, len(data), _PIECE):
            self._add(self._decoded(data[start : start + _PIECE]))
            yield from self._read()

    def end(self) -> Iterator[list[Any]]:
        """Signal the end of the text; yield the items that this completes."""
        self._final = True
        self._need = 0
        self._add(self._decoded(b""))
        yield from self._read()
        if self._expected not in (self._start, self._nothing):
            raise EndsEarly("ends early")

    # --- text ----------------------------------------------------------------------------------------------------

    def _decoded(self, data: bytes) -> str:
        if self._decode is None:
            data = self._undecoded + data
            if len(data) < 4 and not self._final:
                self._undecoded = data
                return ""
            decoder = codecs.getincrementaldecoder(json.detect_encoding(data))("surrogatepass")
            self._decode = decoder.decode
        try:
            return self._decode(data, self._final)
        except UnicodeDecodeError as error:
            is_cut = self._final and error.reason in ("unexpected end of data", "truncated data")
        is_begun = self._expected not in (self._start, self._nothing)
        raise EndsEarly("ends early") if is_cut and is_begun else NotJson("not JSON")

    def _add(self, text: str) -> None:
        self._more.append(text)
        self._more_size += len(text)
        if len(self._text) - self._at + self._more_size < self._need:
            return
        self._spent += self._at - self._from
        self._text = self._text[self._at :] + "".join(self._more)
        self._at = self._from = self._more_size = self._need = 0
        self._more.clear()

    def _read(self) -> Iterator[list[Any]]:
        going = not self._more
        while going:
            going = self._work()
            items, self._items = self._items, []
            yield items
        if self._spent + len(self._text) - self._from + self._more_size > self._largest:
            raise TooMuch("too large")

    def _work(self) -> bool:
        """Do a slice of work; False when it needs more text."""
        text = self._text
        for _ in range(_STEPS):
            at = self._at
            if text[at : at + 1] <= " " and not self._is_in_string:  # nothing, or perhaps white space
                space = _SPACE.match(text, at)
                self._at = at = space.end() if space else at
            if at == len(text) or not self._expected(text, at):
                return False
        return True

    # --- grammar -------------------------------------------------------------------------------------------------

    def _start(self, text: str, at: int) -> bool:
        if text[at] == "{":
            self._expected = self._value
        elif text[at] == "[":
            self.is_list = True
            self._at = at + 1
            self._expected = self._value_or_end
        else:
            raise NotJson("not JSON")
        return True

    def _value_or_end(self, text: str, at: int) -> bool:
        return self._close(at) if text[at] == "]" else self._value(text, at)

    def _value(self, text: str, at: int) -> bool:
        found, end = self._scanned(text, at)
        if end < 0:
            return self._part_of_value(text, at)
        if isinstance(found, dict | list) and not _is_flat(text, at, end, self._levels_left()):
            raise NotJson("too deep")
        if self._open:
            self._count(text, at, end)
        self._at = end
        self._put(found)
        return True

    def _scanned(self, text: str, at: int) -> tuple[Any, int]:
        """Return a value and where it ends; -1 if it is incomplete or not a value."""
        try:
            found, end = _scan(text, at)
        except json.JSONDecodeError:
            return None, -1
        except RecursionError:
            refused: NotJson = NotJson("too deep")
        except ValueError:  # NaN, or a number of thousands of digits
            refused = NotJson("not JSON")
        else:
            number = _NUMBER.match(text, at) if text[at] in _STARTS_NUMBER else None
            if number and number.end() == len(text):  # more digits may follow
                if self._final and end < len(text):
                    raise EndsEarly("ends early")
                end = end if self._final else -1
            return found, end
        raise refused

    def _part_of_value(self, text: str, at: int) -> bool:
        """Handle an incomplete value: wait for more of it, or read it level by level."""
        there = len(text) - at
        if not self._final and there < (_WINDOW if text[at] in '{["' else _LONGEST_TOKEN):
            self._need = 2 * there  # not again for every byte that arrives
            return False
        if text[at] in "{[":
            self._enter({} if text[at] == "{" else [], at)
        elif text[at] == '"':
            self._string = []
            self._is_in_string = True
            self._at = at + 1
            self._expected = self._rest_of_string
        else:
            rest = text[at : at + 16]
            is_cut = self._final and (rest == "-" or any(one.startswith(rest) for one in _LITERALS))
            raise EndsEarly("ends early") if is_cut else NotJson("not JSON")
        return True

    def _rest_of_string(self, text: str, at: int) -> bool:
        whole = _IN_STRING.match(text, at)
        end = whole.end() if whole else at
        self._string.append(_scan(f'"{text[at:end]}"')[0])
        self._at = end
        if text[end : end + 1] == '"':
            self._is_in_string = False
            self._at = end + 1
            self._count(text, at, at)
            self._put("".join(self._string))
        elif len(text) - end >= 12 or (self._final and end < len(text) and text[end] != "\\"):
            raise NotJson("not JSON")  # neither a character of a string nor the beginning of an escape
        else:
            self._need = len(text) - end + 1
            return False
        return True

    def _key_or_end(self, text: str, at: int) -> bool:
        return self._close(at) if text[at] == "}" else self._key(text, at)

    def _key(self, text: str, at: int) -> bool:
        if text[at] != '"':
            raise NotJson("not JSON")
        found, end = self._scanned(text, at)
        if end < 0:
            if len(text) - at >= _LONGEST_TOKEN:
                raise NotJson("not JSON")
            self._need = 2 * (len(text) - at)
            return False
        self._keys.append(found)
        self._at = end
        self._expected = self._colon
        return True

    def _colon(self, text: str, at: int) -> bool:
        if text[at] != ":":
            raise NotJson("not JSON")
        self._at = at + 1
        self._expected = self._value
        return True

    def _next(self, text: str, at: int) -> bool:
        in_object = bool(self._open) and isinstance(self._open[-1], dict)
        if text[at] == ",":
            self._at = at + 1
            self._expected = self._key if in_object else self._value
            return True
        if text[at] != ("}" if in_object else "]"):
            raise NotJson("not JSON")
        return self._close(at)

    def _nothing(self, _text: str, _at: int) -> bool:
        raise NotJson("not JSON")  # something after the end

    # --- levels --------------------------------------------------------------------------------------------------

    def _enter(self, container: dict[str, Any] | list[Any], at: int) -> None:
        if self._levels_left() < 1:
            raise NotJson("too deep")
        self._open.append(container)
        self._at = at + 1
        self._expected = self._key_or_end if isinstance(container, dict) else self._value_or_end

    def _close(self, at: int) -> bool:
        self._at = at + 1
        if self._open:
            self._put(self._open.pop())
        else:
            self._expected = self._nothing
        return True

    def _put(self, found: Any) -> None:
        """Put a complete value where it belongs: into the open container, or among the items."""
        self._expected = self._next
        holder = self._open[-1] if self._open else None
        if isinstance(holder, dict):
            holder[self._keys.pop()] = found
        elif holder is not None:
            holder.append(found)
        else:
            if self._spent + self._at - self._from > self._largest:
                raise TooMuch("too large")
            self._items.append(found)
            self._spent = self._values = 0
            self._from = self._at
            self._expected = self._next if self.is_list else self._nothing

    def _levels_left(self) -> int:
        return DEEPEST - len(self._open) - self.is_list

    def _count(self, text: str, at: int, end: int) -> None:
        self._values += 1 + sum(text.count(mark, at, end) for mark in ",[{") if end - at > 2 else 1
        if self._values > _MOST_VALUES:
            raise TooMuch("too many values")


_OTHER_BYTES = bytes(set(range(256)) - set(b'"{}[]'))
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"')


def _is_flat(text: str, at: int, end: int, levels: int) -> bool:
    """Return whether a complete value has at most this many levels; takes a twentieth of the time to read it."""
    if end - at < 2 * levels:
        return levels > 0
    data = text[at:end].encode("utf-8", "surrogatepass")
    if b"\\" in data:
        data = _ESCAPE.sub(b"", data)
    # Quotes and brackets are left. An odd number of quotes before a bracket means that it is inside a string.
    marks = data.translate(None, _OTHER_BYTES).replace(b'""', b"")
    if b'"' in marks:
        marks = _STRING.sub(b"", marks)
    for _ in range(levels):
        if not marks:
            return True
        marks = marks.replace(b"{}", b"").replace(b"[]", b"")
    return not marks


def read_json(text: bytes) -> Any:
    """Return the list or object in a whole text, None if it is empty. In a thread, it lets other threads run.

    Raises:
        NotJson: as for `JsonReader`.
    """
    reader = JsonReader(largest=len(text) + 1)
    found = [item for part in (reader.feed(text), reader.end()) for items in part for item in items]
    return found if reader.is_list else next(iter(found), None)


# --- the DICOM JSON model (PS3.18 annex F), from servers that do not always keep to it ----------------------------

DicomJson: TypeAlias = dict[str, Any]
"""One data set: 8-hex-digit tags to objects with ``vr`` and ``Value``."""


class NotDicomJson(ValueError):
    """The text is not JSON, or contains something other than data sets.

    Attributes:
        found: the value in place of a data set; None if the text is not JSON. It may contain anything.
    """

    def __init__(self, message: str, *, found: object = None) -> None:
        super().__init__(message)
        self.found = found


def objects_in(body: bytes) -> list[DicomJson]:
    """Return the data sets of an answer: an array, one bare object, or nothing at all.

    Raises:
        NotDicomJson: anything else, or a list that holds anything else.
    """
    found: list[DicomJson] = []
    reader = JsonReader(largest=len(body) + 1)
    with translated(NotJson, lambda error: NotDicomJson(str(error))):
        for items in chain(reader.feed(body), reader.end()):
            found += [data_set_in(item) for item in items]  # at once: the first non-data set ends the reading
    return found


def data_set_in(found: object) -> DicomJson:
    """Return the JSON value if it is a data set: an object of one or more DICOM elements and nothing else.

    An element is an object with a VR or a value, an empty object, or null, under a tag of 8 hex digits; lower-case
    tags, which some servers send, become upper-case. An error written as an object is not a data set, nor is an object
    without elements: PS3.18 has no such results, and it would say nothing. Element content is not checked here, but
    when it is read.

    Raises:
        NotDicomJson: it is not one.
    """
    if not isinstance(found, dict) or not found:
        raise NotDicomJson("no data set", found=found)
    data_set: DicomJson = {}
    as_it_is = True
    for key, element in found.items():
        tag = _tag_in(key) if len(key) == 8 else None
        if tag is None or not _is_element(element):
            by_keyword = any(key[:1].isupper() and tag_of_keyword(key) is not None for key in list(found)[:100])
            kind = "attributes under their names instead of their tags" if by_keyword else "no data set"
            raise NotDicomJson(kind, found=found)
        as_it_is = as_it_is and tag == key
        data_set[tag] = element
    return data_set if as_it_is else _in_upper_case(data_set)


_HEX = frozenset("0123456789abcdefABCDEF")
_ELEMENT_KEYS = frozenset({"vr", "Value", "InlineBinary", "BulkDataURI"})


@lru_cache(maxsize=4096)
def _tag_in(key: str) -> str | None:
    """Return the tag in 8 characters; one shared string for all results, of which there may be many."""
    return key.upper() if _HEX.issuperset(key) else None


def _is_element(element: object) -> bool:
    if not isinstance(element, dict):
        return element is None
    return "vr" in element or not element or not _ELEMENT_KEYS.isdisjoint(element)


def _in_upper_case(data_set: DicomJson) -> DicomJson:
    """Return a data set with the tags of its items in upper case too."""
    for element in data_set.values():
        values: Any = element.get("Value") if isinstance(element, dict) else None
        for place, item in enumerate(values if isinstance(values, list) else ()):
            if isinstance(item, dict) and item and all(len(key) == 8 and _tag_in(key) for key in item):
                values[place] = _in_upper_case({key.upper(): value for key, value in item.items()})
    return data_set


def values_of(item: DicomJson, tag: str) -> list[Any]:
    """Return an element's values; an absent, empty or malformed element has none."""
    element = item.get(tag)
    value = element.get("Value") if isinstance(element, dict) else None
    return value if isinstance(value, list) else []


def first_value(item: DicomJson, tag: str) -> Any:
    """Return an element's first value, or None."""
    return next(iter(values_of(item, tag)), None)


def items_of(item: DicomJson, tag: str) -> list[DicomJson]:
    """Return the items of a sequence."""
    return [value for value in values_of(item, tag) if isinstance(value, dict)]


_SMALL = 2000  # values and keys, or thousands of characters


def is_small(item: DicomJson) -> bool:
    """Return whether a data set can be dealt with quickly."""
    size = 0
    inside: list[Any] = [item]
    while inside and size < _SMALL:
        found = inside.pop()
        if isinstance(found, dict | list):
            inside += found.values() if isinstance(found, dict) else found
            size += len(found)
        elif isinstance(found, str):
            size += len(found) >> 10
    return size < _SMALL


def person_name(parts: Any) -> str | None:
    """Return a person's name as one text (PS3.18 section F.2.2), None for what is none."""
    if type(parts) is not dict or not all(key in _PARTS and type(part) is str for key, part in parts.items()):
        return None
    last = 3 if "Phonetic" in parts else 2 if "Ideographic" in parts else 1
    return "=".join([parts.get(part, "") for part in _PARTS[:last]])


_PARTS: Final = ("Alphabetic", "Ideographic", "Phonetic")
