"""Options that change how an archive is spoken to: what is assumed of it, how many connections, which proxy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from postdicom_async import CloudWire, UsageError, Wire
from postdicom_async.dicomweb.dialects import DICOMWEB, POSTDICOM
from postdicom_async.profiles import options_of, values_of, with_fields
from tests.cli.conftest import Cli
from tests.faults.archive import MemoryArchive
from tests.support.dicom_files import study_files
from tests.support.faulty_server import FaultyServer, Reply


@dataclass(frozen=True)
class Kinds:
    """A field of every kind that a text can change, and one that it cannot."""

    flag: bool = True
    number: int | None = None
    text: str = "a"
    word: Literal["one", "two"] = "one"
    numbers: frozenset[int] = frozenset()
    table: dict[str, str] | None = None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("flag=false", False), ("flag=No", False), ("flag=1", True), ("number=3", 3), ("number=none", None),
        ("text=x=y", "x=y"), ("text=", ""), ("word=two", "two"), ("numbers=4,6", frozenset({4, 6})),
    ],
)  # fmt: skip
def test_values(text: str, value: object) -> None:
    (changed,) = with_fields([text], Kinds())
    assert getattr(changed, text.partition("=")[0]) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("flag", "fields are flag, number, text, word, numbers"),
        ("table=x", "fields are flag"),
        ("flag=maybe", "flag: give true or false"),
        ("number=many", "number: give none or a whole number"),
        ("word=three", "word: give one or two"),
        ("numbers=a", "numbers: give whole numbers"),
    ],
)
def test_what_is_no_field_or_value(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        with_fields([text], Kinds())


def test_each_goes_where_its_field_is() -> None:
    dialect, wire = with_fields(["pages=false", "true=1"], POSTDICOM, Wire())
    assert (dialect.pages, wire.true) == (False, "1")
    with pytest.raises(UsageError, match="part_bytes"):
        with_fields(["part_bytes=0"], CloudWire())


@pytest.mark.parametrize(
    "base", [DICOMWEB, POSTDICOM, Wire(), CloudWire()], ids=["PS3.18", "PostDICOM", "wire", "cloud"]
)
def test_every_assumption_but_routes_can_be_changed(base: object) -> None:
    fields = set(type(base).__dataclass_fields__)  # type: ignore[attr-defined]
    assert fields - set(options_of(base)) <= {"name", "routes"}


@pytest.mark.parametrize(
    "base", [Wire(), CloudWire(), Kinds(numbers=frozenset({3, 4})), Kinds(number=7, numbers=frozenset({1}))], ids=repr
)
def test_what_is_listed_can_be_given(base: object) -> None:
    assert with_fields([f"{name}={value}" for name, value in values_of(base).items()], base) == (base,)


@pytest.mark.parametrize("dialect", ["dicomweb", "postdicom"])
async def test_the_doctor_lists_the_fields(dialect: str, cli_with_archive: Cli) -> None:
    doctor = ["doctor", "--dialect", dialect]
    raw = await cli_with_archive.here(*doctor, "-o", "url_bytes=3000", "--json")
    assert (raw.code, raw.json["ok"]) == (0, True)
    options = raw.json["options"]
    assert options["url_bytes"] == "3000"
    assert options["pages"] == "true"
    assert ("inner_order_key" in options) == (dialect == "postdicom")
    again = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    shown = await cli_with_archive.here(*doctor, *again)
    assert shown.code == 0
    assert "-o FIELD=" in shown.out
    assert all(name in shown.out for name in options)


async def test_paging_is_switched_off(cli: Cli) -> None:
    async with FaultyServer(Reply(204)) as server:
        search = ["search", "studies", "--url", server.url]
        assert (await cli.here(*search)).code == 0
        assert (await cli.here(*search, "-o", "pages=false")).code == 0
        with_pages, without = server.requests
    assert "limit" in dict(with_pages.query)
    assert "limit" not in dict(without.query)


async def test_how_an_operation_is_written(cli: Cli) -> None:
    cli.environment |= {"POSTDICOM_USERNAME": "u", "POSTDICOM_PASSWORD": "p"}
    async with FaultyServer(Reply(200, body=b"[]")) as server:
        search = ["folders", "search", "--name", "a", "--with-orders", "--url", server.url]
        for options in ([], ["-o", "true=yes"]):
            assert (await cli.here(*search, *options)).code == 0
        written = [json.loads(request.header("searchfolderparameters")) for request in server.requests]
    assert [one["GetOrdersInFolder"] for one in written] == ["True", "yes"]


@pytest.mark.parametrize("number", [1, 3])
async def test_connections(number: int, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for name, data in study_files(12).items():
        (folder / name).write_bytes(data)
    archive = MemoryArchive()

    def slow(request: object) -> Reply:
        reply = archive(request)  # type: ignore[arg-type]
        return Reply(reply.status, reply.headers, reply.body, delay_before=0.05)

    one_each = ["-o", "instances_per_store=1"]
    async with FaultyServer(slow) as server:
        ran = await cli.here("upload", folder, "--url", server.url, "--connections", str(number), *one_each)
    assert ran.code == 0
    assert len(archive.stored) == 12
    assert server.peak_in_flight == number


async def test_proxies_of_the_environment(cli: Cli) -> None:
    async with FaultyServer(Reply(204)) as proxy:
        cli.environment["HTTP_PROXY"] = proxy.url
        search = ["search", "studies", "--url", "http://archive.invalid/dicom-web", "--attempts", "1"]
        assert (await cli.here(*search)).code == 5
        assert not proxy.requests
        assert (await cli.here(*search, "--environment-proxy")).code == 0
    assert proxy.requests[0].target.startswith("http://archive.invalid/dicom-web/studies")
