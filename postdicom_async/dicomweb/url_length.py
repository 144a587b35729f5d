"""Lists that are too long for one URL, in pieces. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypeVar

from postdicom_async.dicomweb.filters import LISTED, vr_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Pairs", "in_pieces", "queries"]

_T = TypeVar("_T")
Pairs: TypeAlias = tuple[tuple[str, str], ...]
"""A query: tags, or names of other parameters, and values."""


def in_pieces(items: Sequence[_T], fits: Callable[[Sequence[_T]], bool]) -> list[Sequence[_T]]:
    """Return consecutive pieces that fit, in order, as few as halving gives; one item alone is never refused."""
    if len(items) < 2 or fits(items):
        return [items]
    middle = len(items) // 2
    return in_pieces(items[:middle], fits) + in_pieces(items[middle:], fits)


def queries(pairs: Pairs, fits: Callable[[Pairs], bool]) -> list[Pairs]:
    """Return queries that fit and together match what ``pairs`` match: lists of UIDs are cut in two, the longest first.

    What holds no such list is returned as it is, however long.
    """
    lists = [_uids(name, value) for name, value in pairs]
    longest = max(range(len(lists)), key=lambda n: len(lists[n]), default=0)
    if not pairs or fits(pairs) or len(lists[longest]) < 2:
        return [pairs]
    uids, name = lists[longest], pairs[longest][0]
    halves = uids[: len(uids) // 2], uids[len(uids) // 2 :]
    parts = [(*pairs[:longest], (name, ",".join(half)), *pairs[longest + 1 :]) for half in halves]
    return [query for part in parts for query in queries(part, fits)]


def _uids(name: str, value: str) -> list[str]:
    """Return the UIDs of a filter that lists some (PS3.4 section C.2.2.2.2), each once."""
    is_attribute = all(len(part) == 8 for part in name.split("."))
    if not is_attribute or vr_of(name) != "UI":
        return []
    return [uid for uid in dict.fromkeys(LISTED.split(value)) if uid]
