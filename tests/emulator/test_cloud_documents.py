"""Documents attached to orders over the Cloud API."""

from __future__ import annotations

import random
from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async.emulator import ArchiveOptions, EmbeddedArchive
from tests.emulator.cloud_support import (
    INSTITUTION,
    PART,
    UNKNOWN,
    Account,
    RawSocket,
    account_fixture,  # noqa: F401 - a fixture
    create,
    main_socket,
    make,
    order_of,
    parts,
)
from tests.emulator.vendor_support import create_order, told, upload

if TYPE_CHECKING:
    from pathlib import Path

    from tests.emulator.cloud_support import Answer

PDF = {"FileName": "Łukasz's report.pdf", "FileType": "application/pdf", "IsDocument": True}


def content(size: int, number: int = 1) -> bytes:
    return random.Random(number).randbytes(size)


def form(socket: RawSocket, session: str, order: str, index: int, total: int, **more: Any) -> dict[str, Any]:
    """Return the parameters of a part, in the order the library sends them."""
    count = {"TotalFileCount": more.pop("TotalFileCount")} if "TotalFileCount" in more else {}
    buffer = {"FileBuffer": more.pop("FileBuffer")} if "FileBuffer" in more else {}
    return {
        "SessionUniqueUuid": session,
        "InstitutionUuid": INSTITUTION,
        "UserUuid": socket.archive.cloud_user_uuid,
        "FileIndex": more.pop("FileIndex", 0),
        **count,
        "CurrentFilePartIndex": index,
        "CurrentFileTotalPartCount": total,
        **buffer,
        "PatientOrderUuid": order,
        **PDF,
        **more,
        "ApiKey": socket.archive.cloud_api_key,
        "AccountKey": socket.archive.cloud_account_key,
    }


async def send(
    socket: RawSocket, session: str, order: str, data: bytes, index: int = 0, total: int = 1, **more: Any
) -> Answer:
    given = form(socket, session, order, index, total, **more)
    answer = await socket.ask(23, 4, given, data, socket.archive.cloud_user_uuid)
    assert answer.message_type == 6
    return answer


async def as_the_library_does(socket: RawSocket, session: str, order: str, data: bytes, **more: Any) -> list[Answer]:
    """Send a large document: each part as a list of numbers, and the whole of it again beside each."""
    pieces = parts(data)
    return [
        await send(socket, session, order, data, index, len(pieces), **more, FileBuffer=list(piece))
        for index, piece in enumerate(pieces)
    ]


def order_in(answer: Answer) -> str | None:
    assert answer.envelope["ResponseCode"] == 1, answer.envelope
    order = answer.envelope["ResponseMessage"]["PatientOrder"]
    return None if order is None else str(order["PatientOrderUuid"])


def kept(archive: EmbeddedArchive, order: str) -> list[bytes]:
    return [document.content for document in archive.cloud.documents(order)]


@pytest.mark.parametrize("size", [1, PART - 1])
async def test_a_small_document(account: Account, size: int) -> None:
    socket, data = account.socket, content(size)
    order = await create(socket)

    answer = await send(socket, await socket.begin_upload(), order, data)

    assert order_in(answer) == order
    (document,) = account.archive.cloud.documents(order.upper())
    assert (document.name, document.type, document.size) == (PDF["FileName"], "application/pdf", size)
    assert document.content == data
    assert document.path.is_relative_to(account.archive.folder)
    assert "Łukasz" not in repr(document)
    assert not account.archive.cloud.deviations


@pytest.mark.parametrize("size", [PART, PART + 1, 3 * PART])
async def test_a_large_document_as_the_library_sends_it(account: Account, size: int) -> None:
    socket, data = account.socket, content(size)
    order = await create(socket)

    answers = await as_the_library_does(socket, await socket.begin_upload(), order, data, TotalFileCount=1)

    assert [order_in(answer) for answer in answers] == [None] * (len(answers) - 1) + [order]
    assert kept(account.archive, order) == [data]
    assert not account.archive.cloud.deviations
    frames = account.archive.cloud.sent((23, 4))
    assert [frame.parameters["FileBuffer"] for frame in frames] == [len(piece) for piece in parts(data)]
    assert {frame.data_length for frame in frames} == {size}


@pytest.mark.parametrize("turn", list(permutations(range(3))))
async def test_a_large_document_in_binary_parts_in_any_order(account: Account, turn: tuple[int, ...]) -> None:
    socket, data = account.socket, content(2 * PART + 500)
    order, session = await create(socket), await socket.begin_upload()

    answers = [await send(socket, session, order, parts(data)[index], index, 3) for index in turn]

    assert [order_in(answer) for answer in answers] == [None, None, order]
    assert kept(account.archive, order) == [data]


async def test_documents_are_seen_in_their_orders(account: Account) -> None:
    socket = account.socket
    study = await upload(account.archive, account.client, PatientName="Doe^Jane")
    created = await create_order(account.archive, account.client)
    folder = await make(socket, "a")
    await told(account.client, "addordertofolder", PatientOrderUuid=study, FolderUuidList=[folder])
    session = await socket.begin_upload()

    for number, (order, name, kind) in enumerate(
        [(study, "a.pdf", "application/pdf"), (created, "c", ""), (study, "b.mp4", "video/mp4")]
    ):
        more: dict[str, Any] = {"FileIndex": number, "TotalFileCount": 3, "FileName": name, "FileType": kind}
        answer = await send(socket, session, order, content(10 * number + 5, number), **more)
        assert order_in(answer) == order
    documents = answer.envelope["ResponseMessage"]["PatientOrder"]["DocumentsCount"]

    assert documents == 2
    assert (await order_of(socket, study))["DocumentList"] == [
        {"FileName": "a.pdf", "FileType": "application/pdf", "FileSize": 5},
        {"FileName": "b.mp4", "FileType": "video/mp4", "FileSize": 25},
    ]
    assert (await order_of(socket, created))["DocumentList"] == [{"FileName": "c", "FileType": "", "FileSize": 15}]
    assert [order["DocumentsCount"] for order in (await socket.told(1))["SearchResultList"]] == [2, 1]
    found = (await socket.told(3, ParentFolderUuid=folder, GetOrdersInFolder=True))["Folder"]
    assert found["PatientOrderList"][0]["DocumentsCount"] == 2
    assert len((await account.client.get("/instances")).json()) == 1, "documents are no instances"


async def test_the_same_document_twice_is_two(account: Account) -> None:
    socket, data = account.socket, content(100)
    order, other = await create(socket), await create(socket)
    session = await socket.begin_upload()

    for number in range(2):
        await send(socket, session, order, data, FileIndex=number)
    await send(socket, await socket.begin_upload(), order, data)
    await send(socket, await socket.begin_upload(), other, data)

    assert kept(account.archive, order) == [data] * 3
    assert kept(account.archive, other) == [data]


@pytest.mark.parametrize("size", [100, PART + 100])
async def test_messages_that_close_an_upload_are_tolerated(account: Account, size: int) -> None:
    """The library repeats the last part after each of several files; it meant to send zeros."""
    socket, files = account.socket, [content(size, number) for number in (1, 2)]
    order, session = await create(socket), await socket.begin_upload()

    for number, data in enumerate(files):
        pieces = parts(data)
        for index in (*range(len(pieces)), len(pieces) - 1):
            buffer = {"FileBuffer": list(pieces[index])} if size > PART else {}
            more = {"FileIndex": number, "TotalFileCount": 2, **buffer}
            answer = await send(socket, session, order, data, index, len(pieces), **more)
        assert order_in(answer) == order
        closing = {"FileIndex": 0, "TotalFileCount": 0, "FileBuffer": []}
        assert order_in(await send(socket, session, order, b"", 0, 0, **closing)) == order

    assert kept(account.archive, order) == files


async def test_parts_sent_twice_at_once_make_one_document(account: Account) -> None:
    socket, user = account.socket, account.archive.cloud_user_uuid
    order, session = await create(socket), await socket.begin_upload()
    files = [content(PART + number, number) for number in range(1, 9)]

    sent = [
        await socket.send(23, 4, form(socket, session, order, index, 2, FileIndex=number), piece, user)
        for number, data in enumerate(files)
        for index, piece in enumerate(parts(data))
        for _ in range(3)
    ]
    answers = await socket.answers(sent)

    assert {answer.envelope["ResponseCode"] for answer in answers} == {1}
    assert sorted(kept(account.archive, order)) == sorted(files)
    assert list((account.archive.folder / "incoming").iterdir()) == []


@pytest.mark.parametrize("name", ["../../../x.pdf", "/etc/x", "a\x00b", "C:\\x", "x" * 5_000, " "])
async def test_names_are_only_told(account: Account, name: str) -> None:
    socket, order = account.socket, await create(account.socket)

    await send(socket, await socket.begin_upload(), order, b"data", FileName=name)

    (document,) = account.archive.cloud.documents(order)
    assert (document.name, document.content) == (name, b"data")
    assert document.path.parent == account.archive.folder / "documents" / order


@pytest.mark.parametrize(
    ("changed", "data", "reason"),
    [
        ({"PatientOrderUuid": UNKNOWN}, b"x", "no such order"),
        ({"PatientOrderUuid": ""}, b"x", "PatientOrderUuid must be given"),
        ({"SessionUniqueUuid": UNKNOWN}, b"x", "no such upload session"),
        ({"InstitutionUuid": UNKNOWN}, b"x", "no such institution"),
        ({"FileName": ""}, b"x", "FileName must be given"),
        ({"FileName": 5}, b"x", "FileName: text is expected"),
        ({"IsDocument": "true"}, b"x", "IsDocument: true or false is expected"),
        ({"IsDocument": None}, b"x", "IsDocument must be given"),
        ({"FileIndex": -1}, b"x", "FileIndex: a whole number of at least 0 is expected"),
        ({"FileBuffer": [1, 300]}, b"x", "FileBuffer: a list of bytes is expected"),
        ({"FileBuffer": "QUJD"}, b"x", "FileBuffer: a list of bytes is expected"),
        ({"FileBuffer": [0] * (PART + 1)}, b"x", "the part has another length than 512 KiB"),
        ({"CurrentFileTotalPartCount": 2}, b"x", "the part has another length than 512 KiB"),
        ({"CurrentFilePartIndex": 1}, b"x", "there is no such part"),
        ({}, b"", "the part is empty"),
    ],
)
async def test_documents_that_are_refused(account: Account, changed: dict[str, Any], data: bytes, reason: str) -> None:
    socket, order = account.socket, await create(account.socket)
    given = {**form(socket, await socket.begin_upload(), order, 0, 1), **changed}

    answer = await socket.ask(23, 4, given, data, socket.archive.cloud_user_uuid)

    assert answer.reason == reason
    assert kept(account.archive, order) == []
    assert account.archive.cloud.executed[23, 4] == 0


@pytest.mark.parametrize("by", ["17/6", "DELETE"])
async def test_documents_go_with_their_order(account: Account, by: str) -> None:
    socket = account.socket
    study = await upload(account.archive, account.client)
    await send(socket, await socket.begin_upload(), study, b"data")
    (document,) = account.archive.cloud.documents(study)

    if by == "DELETE":
        await account.client.delete("/studies/1.2.3")
    else:
        await socket.told(6, PatientOrderInstitutionUuid=INSTITUTION, PatientOrderUuid=study)
        assert not document.path.exists()

    assert account.archive.cloud.documents(study) == []
    await upload(account.archive, account.client)
    assert (await order_of(socket, study))["DocumentList"] == []


async def test_documents_survive_a_restart(tmp_path: Path) -> None:
    institutions = {INSTITUTION: "North"}
    async with (
        EmbeddedArchive(tmp_path, options=ArchiveOptions(institutions=institutions)) as archive,
        main_socket(archive) as socket,
    ):
        order = await create(socket)
        await send(socket, await socket.begin_upload(), order, b"data")

    async with (
        EmbeddedArchive(tmp_path, options=ArchiveOptions(institutions=institutions)) as archive,
        main_socket(archive) as socket,
    ):
        assert kept(archive, order) == [b"data"]
        assert (await order_of(socket, order))["DocumentsCount"] == 1
