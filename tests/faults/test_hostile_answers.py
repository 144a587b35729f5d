"""A server, or whoever can write into the folder, tries to lead a file elsewhere."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from postdicom_async import IncompleteDownload, InstanceUids, LocalFileError, PostdicomError, UsageError
from tests.faults.archive import MemoryArchive, is_search, name_of, uids_of
from tests.faults.clients import files_below
from tests.support.bodies import json_reply, multipart_related
from tests.support.dicom_files import EXPLICIT, IMPLICIT, small_dicom, study_files, uid
from tests.support.faulty_server import FaultyServer, Reply, Request

if TYPE_CHECKING:
    from tests.faults.clients import Connect

pytestmark = pytest.mark.above_the_transport

STUDY = uid(1)
FILES = list(study_files(3).values())
UIDS = [uids_of(file) for file in FILES]

HOSTILE = {
    "parents": "../../../outside",
    "one parent": "..",
    "dot": ".",
    "absolute": "/tmp/outside-of-the-tests",
    "parents among digits": "1.2/../../../../3",
    "backslashes": "..\\..\\outside",
    "drive": "C:\\outside",
    "NUL inside": "1.2.3\0.4",
    "NUL and path": "1.2.3\0/../../x",
    "300 digits": "1." + "2" * 298,
    "65 digits": "1." + "2" * 63,
    "newline": "1.2\n.3",
    "space": "1.2 .3",
    "wide digits": "\uff11.\uff12.\uff13",
    "superscript": "1.2.\u00b3",
    "empty": "",
    "dots": "1..2",
    "dot first": ".1.2",
    "dot last": "1.2.",
    "device": "CON",
    "letters": "1.2.a",
    "wildcard": "*",
    "home": "~root",
    "format": "{study.__class__}",
    "percent": "%2e%2e%2fx",
    "surrogate": "\udce9",
}


def lies_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def renamed(file: bytes, old: str, new: str) -> bytes:
    """Put another value into the header, where the length stays the same or the element is rebuilt."""
    raw = new.encode("utf-8", "surrogateescape")
    padded = raw + b"\0" * (len(raw) % 2)
    old_raw = old.encode() + b"\0" * (len(old) % 2)
    start = file.index(b"UI" + len(old_raw).to_bytes(2, "little") + old_raw, 140 if old == STUDY else 0)
    element = b"UI" + len(padded).to_bytes(2, "little") + padded
    return file[:start] + element + file[start + 4 + len(old_raw) :]


# --- in the DICOM header --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("level", [0, 1, 2])
async def test_in_the_header_of_an_instance(kind: str, level: int, connect: Connect, tmp_path: Path) -> None:
    folder = tmp_path / "in" / "here"
    folder.mkdir(parents=True)
    evil = FILES[0][:300] + renamed(FILES[0][300:], UIDS[0][level], HOSTILE[kind])
    reply = multipart_related([evil, FILES[1]]).reply()
    async with FaultyServer(reply) as server, connect(server.url) as archive:
        report = await archive.download_study(STUDY, to=folder, compare_with_search=False)
    assert files_below(folder) == {name_of(FILES[1]): FILES[1]}
    assert (report.refused, report.ok) == (1, False)
    assert lies_in(tmp_path) - {str(Path("in/here", one)) for one in lies_in(folder)} == {"in", "in/here"}


async def test_a_path_in_the_uids_of_another_transfer_syntax(connect: Connect, tmp_path: Path) -> None:
    for syntax in (IMPLICIT, EXPLICIT):
        whole = small_dicom(STUDY, uid(1, 1), "1.2.3.4.5.6.7", transfer_syntax=syntax)
        evil = whole.replace(b"1.2.3.4.5.6.7", b"../../../../x")
        assert evil != whole
        reply = multipart_related([evil]).reply()
        async with FaultyServer(reply) as server, connect(server.url) as archive:
            report = await archive.download_study(STUDY, to=tmp_path / "a" / "b", compare_with_search=False)
        assert report.refused == 1
        assert files_below(tmp_path) == {}


# --- in the list ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HOSTILE)
async def test_in_the_list_of_instances(kind: str, connect: Connect, tmp_path: Path) -> None:
    """The list names an instance whose UIDs cannot be: it is not asked for, and nothing is named after it."""
    folder = tmp_path / "in" / "here"
    listed: list[dict[str, Any]] = [
        {
            "0020000D": {"vr": "UI", "Value": [study]},
            "0020000E": {"vr": "UI", "Value": [series]},
            "00080018": {"vr": "UI", "Value": [instance]},
        }
        for study, series, instance in [
            UIDS[0],
            (STUDY, HOSTILE[kind], UIDS[1][2]),
            (STUDY, UIDS[1][1], HOSTILE[kind]),
            (HOSTILE[kind], UIDS[1][1], UIDS[1][2]),
        ]
    ]

    def fault(request: Request) -> Reply | None:
        return json_reply(listed) if is_search(request) else None

    async with FaultyServer(MemoryArchive(FILES[:1], fault)) as server, connect(server.url) as archive:
        try:
            await archive.download_study(STUDY, to=folder)
        except IncompleteDownload as error:
            named = error.report.missing
        else:
            named = ()
    assert all(all(part.replace(".", "").isdigit() and part.isascii() for part in one) for one in named)
    assert files_below(folder) == {name_of(FILES[0]): FILES[0]}
    assert files_below(tmp_path).keys() == {f"in/here/{name_of(FILES[0])}"}
    for request in server.requests:
        assert ".." not in request.path
        assert request.target.isascii()


@pytest.mark.parametrize("value", [[], [None], [1.5], [[]], [{}], ["1.2", "3.4"], "1.2", None, [True], [10**400]])
async def test_odd_values_in_the_list(value: Any, connect: Connect, tmp_path: Path) -> None:
    odd = {"00080018": {"vr": "UI", "Value": value}, "0020000D": {"vr": "UI", "Value": value}, "0020000E": value}

    def fault(request: Request) -> Reply | None:
        return json_reply([odd, {}, {"00080018": None}]) if is_search(request) else None

    async with FaultyServer(MemoryArchive(FILES, fault)) as server, connect(server.url) as archive:
        with contextlib.suppress(PostdicomError):
            await archive.download_study(STUDY, to=tmp_path)
    assert files_below(tmp_path) == {name_of(file): file for file in FILES}


# --- in the parts' headers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../../x.dcm", "/tmp/outside-of-the-tests.dcm", "a\0b", "x" * 3000, "=?utf-8?b?Li4v?="]
)
async def test_in_headers_of_parts(name: str, connect: Connect, tmp_path: Path) -> None:
    headers = {
        "Content-Type": f'application/dicom; name="{name}"',
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Location": name,
        "Content-ID": f"<{name}>",
    }
    whole = multipart_related(FILES, part_headers=headers)
    reply = Reply(
        200,
        {"Content-Type": whole.content_type, "Content-Disposition": 'attachment; filename="../../y"'},
        whole.body,
    )

    def fault(request: Request) -> Reply | None:
        return reply if request.path == f"/studies/{STUDY}" else None

    async with FaultyServer(MemoryArchive(FILES, fault)) as server, connect(server.url) as archive:
        report = await archive.download_study(STUDY, to=tmp_path / "a" / "b")
    assert not report.missing
    assert files_below(tmp_path / "a" / "b") == {name_of(file): file for file in FILES}
    assert len(files_below(tmp_path)) == len(FILES)


# --- links in the folder --------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize("at", ["study", "series"])
@pytest.mark.parametrize("listed", [True, False])
async def test_a_link_instead_of_a_folder_is_not_followed(
    at: str, listed: bool, connect: Connect, tmp_path: Path
) -> None:
    folder, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = folder / STUDY if at == "study" else folder / STUDY / UIDS[0].series_instance_uid
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere, target_is_directory=True)
    async with FaultyServer(MemoryArchive(FILES)) as server, connect(server.url) as archive:
        with pytest.raises(LocalFileError):
            await archive.download_study(STUDY, to=folder, compare_with_search=listed)
    assert list(elsewhere.iterdir()) == []
    assert link.is_symlink()


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize("target", ["file", "missing", "folder", "the same instance", "loop"])
async def test_a_link_of_the_final_name_is_replaced(target: str, connect: Connect, tmp_path: Path) -> None:
    folder, victim = tmp_path / "in", tmp_path / "victim"
    link = folder / name_of(FILES[0])
    link.parent.mkdir(parents=True)
    content = FILES[0] if target == "the same instance" else b"precious"
    if target == "folder":
        victim.mkdir()
    elif target != "missing":
        victim.write_bytes(content)
    link.symlink_to(link if target == "loop" else victim)
    async with FaultyServer(MemoryArchive(FILES)) as server, connect(server.url) as archive:
        report = await archive.download_study(STUDY, to=folder)
    assert report.ok
    assert not link.is_symlink()
    assert files_below(folder) == {name_of(file): file for file in FILES}
    if target == "folder":
        assert list(victim.iterdir()) == []
    else:
        assert not victim.exists() if target == "missing" else victim.read_bytes() == content


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
async def test_links_with_the_names_of_temporary_files(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever guesses the temporary name gains nothing: the file must not exist when it is made."""
    monkeypatch.setattr(secrets, "token_hex", lambda _size: "guessed")
    folder, victim = tmp_path / "in", tmp_path / "victim"
    victim.write_bytes(b"precious")
    place = folder / Path(name_of(FILES[0])).parent
    place.mkdir(parents=True)
    (place / ".postdicom-guessed-0.part").symlink_to(victim)
    async with FaultyServer(MemoryArchive(FILES)) as server, connect(server.url) as archive:
        with pytest.raises(LocalFileError):
            await archive.download_study(STUDY, to=folder)
    assert victim.read_bytes() == b"precious"


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
async def test_something_else_of_the_final_name(connect: Connect, tmp_path: Path) -> None:
    """A named pipe does not make the look at what is there wait; a folder is an error."""
    for kind in ("pipe", "folder"):
        folder = tmp_path / kind
        final = folder / name_of(FILES[0])
        final.parent.mkdir(parents=True)
        if kind == "pipe":
            os.mkfifo(final)
        else:
            final.mkdir()
        async with FaultyServer(MemoryArchive(FILES)) as server, connect(server.url) as archive:
            if kind == "pipe":
                assert (await archive.download_study(STUDY, to=folder)).ok
                assert final.read_bytes() == FILES[0]
            else:
                with pytest.raises(LocalFileError):
                    await archive.download_study(STUDY, to=folder)
        assert not [one for one in files_below(folder) if "part" in one]


# --- names of the caller's own --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layout",
    [
        "../{instance}",
        "/tmp/{instance}",
        "{study}/../../{instance}",
        "{study}",
        "{study}/{instance}/{unknown}",
        "{instance.__class__}",
        "{instance[0]}",
        "{",
        "",
        "{instance!r:>1000}",
        "a\0{instance}",
        "~/{instance}:x",
        lambda uids: f"../{uids.sop_instance_uid}",
        lambda uids: Path("/tmp") / uids.sop_instance_uid,
        lambda uids: "",
        lambda uids: "CON",
        lambda uids: "x" * 300,
    ],
)
async def test_a_layout_that_leaves_the_folder(layout: Any, connect: Connect, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    async with FaultyServer(MemoryArchive(FILES)) as server, connect(server.url) as archive:
        with pytest.raises(UsageError, match="layout"):
            await archive.download_study(STUDY, to=folder, layout=layout)
    assert files_below(tmp_path) == {}


@pytest.mark.parametrize(
    "given", ["../..", "1.2/../3", "", "1" * 65, "1.2.3 4", "a", "1.2\0", "1..2", None, 12, "\uff11.\uff12"]
)
async def test_uids_given_are_checked_before_anything_is_sent(given: Any, connect: Connect, tmp_path: Path) -> None:
    async with FaultyServer([]) as server, connect(server.url) as archive:
        for call in (
            lambda: archive.download_study(given, to=tmp_path),
            lambda: archive.download_series(STUDY, given or "x", to=tmp_path),
            lambda: archive.delete_instance(STUDY, uid(1, 1), given or "x"),
            lambda: archive.retrieve_instance(STUDY, given or "x", uid(1, 1, 1)),
            lambda: archive.upload(FILES, study_instance_uid=given or "x"),
        ):
            with pytest.raises(UsageError):
                await call()
    assert server.connections == 0
    assert InstanceUids(*UIDS[0]) == UIDS[0]
