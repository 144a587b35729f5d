"""What is assumed of an archive (its dialect, how its operations are written), changed by ``FIELD=VALUE`` texts."""

from __future__ import annotations

from dataclasses import fields, replace
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from postdicom_async.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["options_of", "values_of", "with_fields"]

_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _flag(text: str) -> bool:
    return _WORDS[text.lower()]


def _numbers(text: str) -> frozenset[int]:
    return frozenset(int(number) for number in text.split(","))


_READERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    bool: (_flag, "true or false"),
    int: (int, "a whole number"),
    str: (str, "text"),
    frozenset[int]: (_numbers, "whole numbers with commas between"),
}


def with_fields(given: Sequence[str] | None, *bases: Any, where: str = "-o") -> tuple[Any, ...]:
    """Return the dataclasses with the fields that ``FIELD=VALUE`` texts name changed; ``where`` is their place.

    Raises:
        UsageError: no base has such a field, or the value is not of its kind. A value is not repeated.
    """
    known = {name: index for index, base in enumerate(bases) for name in options_of(base)}
    changes: list[dict[str, Any]] = [{} for _ in bases]
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            raise UsageError(f"{where}: give FIELD=VALUE; fields are {', '.join(known)}")
        changes[known[name]][name] = _value(f"{where} {name}", options_of(bases[known[name]])[name], value)
    return tuple(_replaced(base, change, where) for base, change in zip(bases, changes, strict=True))


def _replaced(base: Any, changes: dict[str, Any], where: str) -> Any:
    try:
        return replace(base, **changes)
    except UsageError as error:
        field = (error.argument or "").rpartition(".")[2].removesuffix("wire")
        problem = f"{field}: {error.problem}" if field else error.problem
    raise UsageError(f"{where} {problem}")


def options_of(base: Any) -> dict[str, Any]:
    """Return the fields that a text can change, by name, with their types."""
    hints = get_type_hints(type(base))
    named = {field.name: hints[field.name] for field in fields(base) if field.name != "name"}
    return {name: kind for name, kind in named.items() if all(map(_can_be_read, _kinds(kind)))}


def values_of(base: Any) -> dict[str, str]:
    """Return these fields as ``-o`` takes them."""
    return {name: _text(getattr(base, name)) for name in options_of(base)}


def _text(value: object) -> str:
    if isinstance(value, frozenset):
        return ",".join(map(str, sorted(value)))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _can_be_read(kind: Any) -> bool:
    return kind in _READERS or _is_word(kind)


def _kinds(annotation: Any) -> Iterator[Any]:
    """Yield the types that an annotation allows, None apart."""
    if get_origin(annotation) in (Union, UnionType):
        yield from (kind for kind in get_args(annotation) if kind is not NoneType)
    else:
        yield annotation


def _is_word(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _value(where: str, annotation: Any, text: str) -> Any:
    optional = NoneType in get_args(annotation)
    if optional and text.lower() in ("", "none"):
        return None
    expected: list[str] = ["none"] if optional else []
    for kind in _kinds(annotation):
        if _is_word(kind):
            if text in get_args(kind):
                return text
            expected.append(" or ".join(map(str, get_args(kind))))
            continue
        read, words = _READERS[kind]
        try:
            return read(text)
        except (ValueError, KeyError):
            expected.append(words)
    raise UsageError(f"{where}: give {' or '.join(expected)}")
