"""QIDO-RS: search (PS3.18 section 10.6), in the standard's URL shapes and the vendor's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from starlette.requests import Request
from starlette.responses import Response

from postdicom_async.emulator.answers import DICOM_JSON, Refusal, accepted, base_url, dicom_json, header_text
from postdicom_async.emulator.context import ArchiveContext
from postdicom_async.emulator.dicomweb.matching import LONGEST_KEY, is_universal, matches, uid_list
from postdicom_async.emulator.store.archive import ArchiveStore, IndexRow
from postdicom_async.emulator.store.attributes import (
    KEPT_BY_LEVEL,
    RETURNED_BY_LEVEL,
    EntityLevel,
    is_uid,
    resolve_attribute,
    vr_of,
)
from postdicom_async.emulator.store.files import UnreadableHeader
from postdicom_async.emulator.store.header import Json, read_header

_UIDS = ("0020000D", "0020000E", "00080018")
_LEVELS = tuple(EntityLevel)
_UIDS_OF = {level: _UIDS[: depth + 1] for depth, level in enumerate(_LEVELS)}
_FROM_TOP = {level: _LEVELS[: depth + 1] for depth, level in enumerate(_LEVELS)}
"""A level and those above it, whose attributes its entities have too."""

_REQUIRED = """
    00080020 00080030 00080050 00080090 00100010 00100020 00100030 00100040 00200010 00080060 00200011 00080016 00200013
"""
_MOST_UIDS = 10_000  # SQLite takes so many in one statement, for each of the three levels
_TRUNCATED = "The number of results exceeded the maximum supported by the server. Additional results can be requested."


@dataclass
class Query:
    """A search, taken apart."""

    level: EntityLevel
    uids: dict[str, list[str]] = field(default_factory=dict)
    filters: dict[str, str] = field(default_factory=dict)
    fields: set[str] = field(default_factory=set)
    all_fields: bool = False
    fuzzy: bool = False
    limit: int | None = None
    offset: int = 0
    fixed: frozenset[EntityLevel] = frozenset()
    """Levels whose entity the path names: their attributes are not repeated in the answer."""
    ignored: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """Names of parameters that are neither known nor an attribute's; PS3.18 section 8.3.5 has them ignored."""


@dataclass(frozen=True)
class Page:
    """What a search found; ``truncated`` when the archive's own page limit cut it."""

    results: list[Json]
    truncated: bool


async def answer_search(context: ArchiveContext, level: EntityLevel, request: Request) -> Response:
    """Handle a search for the entities of a level, or for those within what the path names."""
    if not any(media.covers(name) for media in accepted(request) for name in (DICOM_JSON, "application/json")):
        raise Refusal(406, "search results are application/dicom+json")
    query = parse_query(level, request.path_params, request.query_params.multi_items())
    page = await context.run(search, context.store, query, context.options.max_page, base_url(request))
    headers = _warning(request, page, query)
    if not page.results and context.options.no_match_status == 204:
        return Response(status_code=204, headers=headers)
    return dicom_json(page.results, headers=headers)


def _warning(request: Request, page: Page, query: Query) -> dict[str, str]:
    texts = [_TRUNCATED] if page.truncated else []
    for kind, names in (("attributes are not supported", query.ignored), ("parameters are not known", query.unknown)):
        if names:
            texts.append(f"The following {kind} and were ignored: {', '.join(names)}")
    quotable = [header_text(text).replace("\\", "/").replace('"', "'") for text in texts]  # clients make names up
    return {"Warning": ", ".join(f'299 {base_url(request)} "{text}"' for text in quotable)} if texts else {}


def parse_query(level: EntityLevel, path: dict[str, str], parameters: Iterable[tuple[str, str]]) -> Query:
    """Take the path and the query parameters of a search apart.

    Raises:
        Refusal: 400 for what is not a number or not a UID, or longer than anything it could match.
    """
    query = Query(level, fixed=frozenset(map(EntityLevel, path)))
    for name, uid in path.items():
        if not is_uid(uid):
            raise Refusal(400, "a UID in the path is not a UID")
        query.uids[_UIDS_OF[EntityLevel(name)][-1]] = [uid]
    for name, value in parameters:
        if name in {"limit", "offset"}:
            if not value.isascii() or not value.isdigit() or len(value) > 9:
                raise Refusal(400, f"{name} must be a number, 0 or more")
            setattr(query, name, int(value))
        elif name == "includefield":
            _take_fields(query, value)
        elif name == "fuzzymatching":
            if value not in {"true", "false"}:
                raise Refusal(400, "fuzzymatching must be true or false")
            query.fuzzy = value == "true"
        elif name not in {"accept", "charset"}:
            _take_key(query, name, value)
    return query


def _take_fields(query: Query, value: str) -> None:
    for name in filter(None, (part.strip() for part in value.split(","))):
        tag = resolve_attribute(name)
        if name == "all":
            query.all_fields = True
        elif tag:
            query.fields.add(tag)
        elif "." not in name:  # a path into a sequence brings nothing here
            query.unknown.append(name)


def _take_key(query: Query, name: str, value: str) -> None:
    tag = resolve_attribute(name)
    if "." in name:
        query.ignored.append(name)
    elif tag is None:
        query.unknown.append(name)
    elif tag in _UIDS_OF[query.level]:
        if not is_universal(value):
            wanted, already = uid_list(value), query.uids.get(tag)
            if len(wanted) > _MOST_UIDS:
                raise Refusal(400, f"a list has at most {_MOST_UIDS} UIDs")
            query.uids[tag] = wanted if already is None else sorted(set(wanted) & set(already))
    elif len(value) > LONGEST_KEY:
        raise Refusal(400, f"a value to match has at most {LONGEST_KEY} characters")
    elif query.level is EntityLevel.INSTANCE or any(tag in KEPT_BY_LEVEL[level] for level in _FROM_TOP[query.level]):
        query.filters[tag] = value
        query.fields.add(tag)  # "the attributes matched" are part of every answer
    else:  # only an instance has all of its file's attributes
        query.ignored.append(name)


def search(store: ArchiveStore, query: Query, max_page: int | None, base: str) -> Page:
    """Run a search; blocks. One more result than the page holds is looked for, to know whether it was cut."""
    limits = [limit for limit in (query.limit, max_page) if limit is not None]
    page = min(limits, default=None)
    cut_by_server = page is not None and page == max_page and page != query.limit
    wanted = None if page is None else page + cut_by_server
    if all(is_universal(key) for key in query.filters.values()):
        rows = store.rows(query.level, query.uids, wanted, query.offset)
        found = [_answer(query, _attributes(query, row, base)) for row in rows]
    else:
        known = (_attributes(query, row, base) for row in store.rows(query.level, query.uids))
        end = None if wanted is None else query.offset + wanted
        matching = islice((one for one in known if _matches(query, one)), query.offset, end)
        found = [_answer(query, one) for one in matching]
    return Page(found[:page], cut_by_server and len(found) > (page or 0))


def _matches(query: Query, attributes: Json) -> bool:
    elements = ((key, attributes.get(tag, {"vr": vr_of(tag)})) for tag, key in query.filters.items())
    return all(matches(key, one["vr"], one.get("Value", []), fuzzy=query.fuzzy) for key, one in elements)


def _attributes(query: Query, row: IndexRow, base: str) -> Json:
    """Return what is known of an entity: from the index, computed, and from its file where more is asked for."""
    known = {**row.study, **row.series, **row.instance, **_computed(query.level, row, base)}
    asked = query.fields | query.filters.keys()
    if row.path and (query.all_fields or any(tag not in known and tag not in _INDEXED for tag in asked)):
        url = instance_url(row, base)
        try:
            return {**read_header(row.path).json(lambda path: f"{url}/bulkdata/{path}"), **known}
        except (OSError, UnreadableHeader):  # deleted meanwhile
            pass
    return known


_INDEXED = frozenset(tag for tags in KEPT_BY_LEVEL.values() for tag in tags)


def instance_url(row: IndexRow, base: str) -> str:
    """Return the address of the entity of a row."""
    names = zip(("studies", "series", "instances"), row.uids, strict=True)
    return base + "".join(f"/{name}/{uid}" for name, uid in names if uid)


def _computed(level: EntityLevel, row: IndexRow, base: str) -> Json:
    computed: dict[str, tuple[str, list[object]]] = {
        "00080005": ("CS", ["ISO_IR 192"]),  # the answer is JSON in UTF-8, whatever the file was
        "00080056": ("CS", ["ONLINE"]),
        "00081190": ("UR", [instance_url(row, base)]),
        "00080061": ("CS", list(row.modalities_in_study)),
        "00201206": ("IS", [row.series_in_study]),
        "00201208": ("IS", [row.instances_in_study]),
        "00201209": ("IS", [row.instances_in_series]),
    }
    computed |= {tag: ("UI", [uid]) for tag, uid in zip(_UIDS_OF[level], row.uids, strict=False)}
    return {tag: {"vr": vr, "Value": value} for tag, (vr, value) in computed.items() if value != [None] and value}


def _answer(query: Query, known: Json) -> Json:
    """Choose what an answer holds; attributes the standard requires are there even without a value."""
    tags = {"00080005", *_UIDS_OF[query.level], *query.fields}
    for level in set(_FROM_TOP[query.level]) - query.fixed:
        tags.update(RETURNED_BY_LEVEL[level])
    if query.all_fields:
        tags.update(known)
    return {tag: known.get(tag, {"vr": vr_of(tag)}) for tag in sorted(tags) if tag in known or tag in _REQUIRED.split()}
