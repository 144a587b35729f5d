"""Answers that are packed, huge, deep or not what they say: bounded, and never half believed."""

from __future__ import annotations

import contextlib
import gzip
import json
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async import ConnectionFailed, IncompleteDownload, PostdicomError, ProtocolError, ServerError
from tests.faults.archive import MemoryArchive, name_of
from tests.faults.clients import FAST, files_below, settings
from tests.support.bodies import dicom_json, json_reply, multipart_related
from tests.support.dicom_files import study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, Request

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.clients import Connect

STUDY = uid(1)
FILES = list(study_files(3).values())
STUDIES = [dicom_json(StudyInstanceUID=uid(n), StudyDescription="x" * 50) for n in range(30)]
TEXT = json.dumps(STUDIES).encode()
MIB = 1 << 20


def packed(encoding: str, body: bytes, **more: Any) -> Reply:
    return Reply(200, {"Content-Type": "application/dicom+json", "Content-Encoding": encoding}, body, **more)


async def searched(connect: Connect, reply: Reply, using: Any = FAST) -> list[Any]:
    async with FaultyServer(reply) as server, connect(server.url, using) as archive:
        return await archive.search_for_studies(limit=30).raw.all()


# --- packed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "deflate", "identity"])
@pytest.mark.parametrize("framing", ["content-length", "chunked", "until-close"])
async def test_an_answer_packed_unasked_is_unpacked(encoding: str, framing: Any, connect: Connect) -> None:
    bodies = {"deflate": zlib.compress(TEXT), "identity": TEXT}
    body = bodies.get(encoding, gzip.compress(TEXT))
    assert await searched(connect, packed(encoding, body, framing=framing, chunk_size=100)) == STUDIES


async def test_packed_is_asked_for_where_the_answer_is_json(connect: Connect, tmp_path: Path) -> None:
    one = (STUDY, uid(1, 1), uid(1, 1, 1))

    def answer(request: Request) -> Reply:
        return Reply(404) if request.method == "GET" and "json" not in request.header("accept") else json_reply([])

    async with FaultyServer(answer) as server, connect(server.url) as archive:
        await archive.search_for_studies().all()
        await archive.search_for_instances(study_instance_uid=STUDY).all()
        await archive.retrieve_study_metadata(STUDY).all()
        asked = [request.all_headers("accept-encoding") for request in server.requests]
        assert asked == [["gzip"]] * len(asked)
        del server.requests[:]
        for call in (
            archive.retrieve_instance(*one),
            archive.retrieve_instance_frames(*one, [1]),
            archive.retrieve_instance_rendered(*one),
            archive.retrieve_bulkdata("bulk/1"),
            archive.download_study(STUDY, to=tmp_path, compare_with_search=False),
            archive.delete_study(STUDY),
            archive.upload(FILES[0]),
        ):
            with contextlib.suppress(PostdicomError):
                await call
        asked = [
            request.all_headers("accept-encoding")
            for request in server.requests
            if request.method != "GET" or "json" not in request.header("accept")
        ]
    assert len(asked) >= 7
    assert asked == [["identity"]] * len(asked)


@pytest.mark.above_the_transport
async def test_metadata_that_is_much_alike_packs_well(connect: Connect) -> None:
    """More than 100 to 1, and honest."""
    same = {f"0018{tag:04X}": {"vr": "LO", "Value": [f"STANDARD VALUE {tag}"]} for tag in range(0x10, 0x10 + 100)}
    item = {"00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]}}
    series = [same | {"00081140": {"vr": "SQ", "Value": [item] * 200}, "00200013": {"vr": "IS", "Value": [n]}}
              for n in range(500)]  # fmt: skip
    text = json.dumps(series).encode()
    body = gzip.compress(text, 9)
    assert len(text) > 100 * len(body)
    async with FaultyServer(packed("gzip", body)) as server, connect(server.url) as archive:
        assert await archive.retrieve_study_metadata(STUDY).raw.all() == series


async def test_a_packed_study_is_unpacked(connect: Connect, tmp_path: Path) -> None:
    whole = multipart_related(FILES)
    reply = Reply(200, {"Content-Type": whole.content_type, "Content-Encoding": "gzip"}, gzip.compress(whole.body))

    def fault(request: Request) -> Reply | None:
        return reply if request.path == f"/studies/{STUDY}" else None

    async with FaultyServer(MemoryArchive(FILES, fault)) as server, connect(server.url) as archive:
        report = await archive.download_study(STUDY, to=tmp_path)
    assert report.ok
    assert files_below(tmp_path) == {name_of(file): file for file in FILES}


CUTS = [
    (framing, cut)
    for framing in ("content-length", "chunked", "until-close", "shorter length")
    for cut in (0, 5, 20, -9, -1)
    if (framing, cut) != ("shorter length", 0)  # nothing, announced as nothing
]


@pytest.mark.parametrize(("framing", "cut"), CUTS)
async def test_a_packed_answer_cut_inside_is_a_cut_answer(framing: Any, cut: int, connect: Connect) -> None:
    """Repeated as any that is cut, whatever tells where it ends; and never taken for less than it was."""
    body = gzip.compress(TEXT)
    end = len(body[:cut])
    if framing == "shorter length":
        broken = packed("gzip", body[:end])
    else:
        broken = packed("gzip", body, framing=framing, cut_after=end)
    async with FaultyServer([broken, packed("gzip", body)]) as server, connect(server.url) as archive:
        assert await archive.search_for_studies(limit=30).raw.all() == STUDIES
    assert len(server.requests) == 2
    with pytest.raises(ConnectionFailed) as caught:
        await searched(connect, broken)
    assert (caught.value.temporary, caught.value.attempts) == (True, 3)


async def test_nothing_may_be_called_packed(connect: Connect) -> None:
    nothing = Reply(204, {"Content-Encoding": "gzip"}, keep_alive=False)
    assert await searched(connect, nothing) == []


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "aes128gcm", "x"])
async def test_other_encodings_are_refused(encoding: str, connect: Connect) -> None:
    with pytest.raises(ProtocolError, match="packed"):
        await searched(connect, packed(encoding, TEXT))


async def test_what_is_not_packed_as_it_says(connect: Connect) -> None:
    with pytest.raises(ProtocolError, match="damaged"):
        await searched(connect, packed("gzip", TEXT))


@pytest.mark.parametrize("twice", [True, False])
async def test_a_bomb_is_stopped(twice: bool, connect: Connect, tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(64 * MIB))
    body = gzip.compress(bomb) if twice else bomb
    encoding = "gzip"
    tracemalloc.start()
    try:
        async with FaultyServer(packed(encoding, body)) as server, connect(server.url) as archive:
            with pytest.raises(PostdicomError):
                await archive.search_for_studies().all()
            with pytest.raises(PostdicomError):
                await archive.download_study(STUDY, to=tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * MIB
    assert files_below(tmp_path) == {}


# --- huge -----------------------------------------------------------------------------------------------------------


async def test_an_answer_beyond_the_cap(connect: Connect) -> None:
    with pytest.raises(ProtocolError, match="larger than the limit") as caught:
        await searched(connect, json_reply(STUDIES), settings(json_item_bytes=100))
    assert not caught.value.temporary
    assert await searched(connect, json_reply(STUDIES), settings(json_item_bytes=300)) == STUDIES


async def test_an_endless_answer_is_left(connect: Connect) -> None:
    """The server would send 2 GB; the client takes little more than the cap."""
    piece = b" " * MIB
    endless = Reply(200, {"Content-Type": "application/dicom+json"}, [piece] * 2000, framing="chunked")
    async with FaultyServer(endless) as server, connect(server.url, settings(json_item_bytes=2 * MIB)) as archive:
        with pytest.raises(ProtocolError, match="larger than the limit"):
            await archive.search_for_studies().all()
        with pytest.raises(ProtocolError, match="larger than the limit"):
            await archive.retrieve_study_metadata(STUDY).all()


async def test_an_endless_error_text_is_left(connect: Connect) -> None:
    text = Reply(400, {"Content-Type": "text/plain"}, [b"no " * 30000] * 20000, framing="chunked")
    async with FaultyServer(text) as server, connect(server.url) as archive:
        with pytest.raises(ServerError) as caught:
            await archive.retrieve_study_metadata(STUDY).all()
    assert len(str(caught.value)) < 500


async def test_an_instance_in_memory_is_bounded(connect: Connect) -> None:
    reply = multipart_related([FILES[0]]).reply()
    async with FaultyServer(reply) as server, connect(server.url, settings(in_memory_bytes=1000)) as archive:
        with pytest.raises(ProtocolError, match="larger than"):
            await archive.retrieve_instance(uid(1), uid(1, 1), uid(1, 1, 1))
        with pytest.raises(ProtocolError, match="larger than"):
            await archive.retrieve_bulkdata("bulk/1")
        with pytest.raises(ProtocolError, match="larger than"):
            await archive.retrieve_instance_rendered(uid(1), uid(1, 1), uid(1, 1, 1))


async def test_the_number_of_parts_is_bounded(connect: Connect, tmp_path: Path) -> None:
    reply = multipart_related([b"x"] * 100).reply()
    async with FaultyServer(reply) as server, connect(server.url, settings(parts=50)) as archive:
        with pytest.raises(IncompleteDownload):
            await archive.download_study(STUDY, to=tmp_path, compare_with_search=False)
        with pytest.raises(ProtocolError):
            _ = [await part.read() async for part in archive.iter_study(STUDY)]


@pytest.mark.parametrize(
    "headers",
    [
        [("X-Long", "x" * 2_000_000)],
        [(f"X-{n}", "y" * 50) for n in range(20_000)],
    ],
    ids=["one of 2 MB", "20,000"],
)
async def test_huge_headers(headers: list[tuple[str, str]], connect: Connect) -> None:
    """Refused or read past, but neither a crash nor a hang."""
    reply = Reply(200, [*headers, ("Content-Type", "application/json")], b"[]")
    async with FaultyServer(reply) as server, connect(server.url) as archive:
        with pytest.raises((ConnectionFailed, ProtocolError)):
            await archive.search_for_studies(limit=1).all()


# --- not DICOM JSON -------------------------------------------------------------------------------------------------

NOT_JSON = {
    "HTML": b"<html>Sign in</html>",
    "text": b"no",
    "two documents": b"[] []",
    "a number": b"1",
    "a string": b'"x"',
    "null": b"null",
    "numbers": b"[1, 2]",
    "mixed": TEXT[:-1] + b', "x"]',
    "an empty object": b"{}",
    "empty objects": b"[{}, {}]",
    "attributes by their names": b'[{"StudyInstanceUID": {"vr": "UI", "Value": ["1.2"]}}]',
    "nested lists": b"[[{}]]",
    "depth": b"[" * 200_000,
    "depth of objects": b'{"a":' * 200_000,
    "closed depth": b"[" * 100_000 + b"]" * 100_000,
    "NaN": b'[{"00280010": {"vr": "US", "Value": [NaN]}}]',
    "a number of 100,000 digits": b'[{"a": ' + b"9" * 100_000 + b"}]",
    "invalid UTF-8": b'[{"a": "\xff\xfe"}]',
}


@pytest.mark.parametrize("kind", NOT_JSON)
async def test_what_is_not_dicom_json(kind: str, connect: Connect) -> None:
    reply = Reply(200, {"Content-Type": "application/dicom+json"}, NOT_JSON[kind])
    async with FaultyServer(reply) as server, connect(server.url) as archive:
        for results in (archive.search_for_studies(), archive.retrieve_study_metadata(STUDY)):
            with pytest.raises(ProtocolError, match="not DICOM JSON"):
                await results.all()
    assert len(server.requests) == 2


async def test_odd_values_are_left_out_and_told(connect: Connect) -> None:
    odd = {
        "0020000D": {"vr": "UI", "Value": [STUDY]},
        "00201208": {"vr": "IS", "Value": ["not a number"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": {"deep": []}}]},
        "00080005": None,
        "00081030": {"vr": "LO"},
        "00080061": {"vr": "CS", "Value": None},
        "00080020": {"vr": "??", "Value": ["x"]},
    }
    async with FaultyServer(json_reply([odd])) as server, connect(server.url) as archive:
        results = archive.search_for_studies(limit=1)
        found = await results.all()
    assert found[0].StudyInstanceUID == STUDY
    assert results.warnings
    assert all("not a number" not in warning for warning in results.warnings)
