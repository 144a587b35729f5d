"""Links, and the pages that they open."""

from __future__ import annotations

import html
import json
import re
import time
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from postdicom_async.emulator import EmbeddedArchive, create_app
from postdicom_async.emulator.pages.page import STYLE, Section, share_page
from postdicom_async.emulator.samples import write_benchmark_series
from postdicom_async.emulator.vendor.orders import StoredOrder
from postdicom_async.markup import element, empty, joined
from tests.emulator.support import client_of, make_instance, store
from tests.emulator.vendor_support import UNKNOWN, call, create_order, order_uuids, properties, refused, told, upload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LATER = "2099-12-31"
PASSWORD = "pässwörd & = % +"


@pytest.fixture
async def visitor() -> AsyncIterator[httpx.AsyncClient]:
    """Somebody without an account."""
    async with client_of() as client:
        yield client


async def share(
    client: httpx.AsyncClient, *orders: str, password: str = "", download: str = "", until: str = LATER
) -> str:
    answer = await told(
        client,
        "sharepatientorderwithurl",
        OrderUuidList=list(orders),
        ExpireDate=until,
        SharePassword=password,
        UserCanDownloadStudies=download,
    )
    url: str = answer["Result"]
    return url


def files_of(answer: httpx.Response) -> dict[str, bytes]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/zip"
    with ZipFile(BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def text_of(page: httpx.Response) -> str:
    without_head = page.text.partition("<body>")[2]
    return html.unescape(re.sub(r"<[^>]+>", " ", without_head))


async def test_a_link_shows_orders(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, visitor: httpx.AsyncClient
) -> None:
    known = {"PatientName": "Święty^Łukasz", "StudyDate": "20240131", "StudyDescription": "CT <b>& more</b>"}
    study = await upload(embedded_archive, client, **known)
    await store(client, make_instance("1.2.3", "1.2.3.2", "1.2.3.2.1", Modality="SR", **known))
    order = await create_order(embedded_archive, client, PatientName="Yamada^Tarou=山田^太郎")
    await create_order(embedded_archive, client, PatientName="Not^Shared")

    url = await share(client, order, study)
    page = await visitor.get(url)

    assert page.status_code == 200
    assert re.fullmatch(re.escape(embedded_archive.url) + r"/share/[A-Za-z0-9_-]{22}", url)
    text = re.sub(r"\s+", " ", text_of(page))
    for expected in (
        "2 studies",
        "Święty, Łukasz",
        "31 Jan 2024",
        "CT <b>& more</b>",
        "CT, SR",
        "Yamada, Tarou",
        "山田 太郎",
    ):
        assert expected in text
    assert "Series 2 Images 2" in text
    assert "until the end of 31 December 2099" in text
    assert text.index("Yamada") < text.index("Święty")
    assert "Not, Shared" not in text
    assert "Download" not in text
    assert (await properties(embedded_archive, client, order))["IsShared"] is True


async def test_the_headers_of_pages(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, visitor: httpx.AsyncClient
) -> None:
    url = await share(client, await create_order(embedded_archive, client))
    for address in (url, url + "/", f"{embedded_archive.url}/share/{'x' * 22}", url + "/download"):
        page = await visitor.get(address)

        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert page.headers["x-content-type-options"] == "nosniff"
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        assert "<script" not in page.text
        assert STYLE in page.text
        assert "://" not in page.text.replace(STYLE, "")


async def test_create_share_link_does_the_same(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, visitor: httpx.AsyncClient
) -> None:
    uuid = await upload(embedded_archive, client, PatientName="Doe^Jane")
    answer = await told(
        client,
        "createsharelink",
        PatientOrderInfoList=[json.dumps({"PatientOrderUuid": uuid})],
        ExpireDate=LATER,
        SharePassword="",
        Downloadable="True",
    )

    assert "Doe, Jane" in (await visitor.get(answer["Result"])).text
    assert list(files_of(await visitor.get(answer["Result"] + f"/download/{uuid}"))) == ["1.2.3.1/1.2.3.1.1.dcm"]


@pytest.mark.parametrize(
    ("operation", "given"),
    [
        ("createsharelink", {"PatientOrderInfoList": [json.dumps({"PatientOrderUuid": UNKNOWN})], "ExpireDate": LATER}),
        ("sharepatientorderwithurl", {"OrderUuidList": [UNKNOWN], "ExpireDate": LATER}),
        ("sharefolderwithurl", {"FolderUuid": UNKNOWN}),
    ],
)
async def test_what_is_unknown_is_not_shared(client: httpx.AsyncClient, operation: str, given: dict[str, Any]) -> None:
    refused(await call(client, operation, **given), 404)


async def test_a_folder_is_shared_with_what_is_below(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, visitor: httpx.AsyncClient
) -> None:
    below = (await told(client, "createfolder", FolderName="Top/Below & <i>"))["FolderUuid"]
    top = (await told(client, "searchfolder"))["FolderList"][0]["FolderUuid"]
    url = (await told(
        client, "sharefolderwithurl", FolderUuid=top, ShareTitle="Title <i>", ShareDescription="One\nTwo",
        UserCanDownloadStudies="True",
    ))["Result"]  # fmt: skip
    empty_page = await visitor.get(url)
    first = await upload(embedded_archive, client, "1.1", PatientName="First^A")
    second = await upload(embedded_archive, client, "1.2", PatientName="Second^B")
    await told(client, "addordertofolder", PatientOrderUuid=first, FolderUuidList=[top, below])
    await told(client, "addordertofolder", PatientOrderUuid=second, FolderUuidList=[below])

    text = text_of(await visitor.get(url))
    files = files_of(await visitor.get(url + "/download"))

    assert "nothing yet" in empty_page.text
    for expected in ("Title <i>", "One\nTwo", "2 studies", "First, A", "Second, B", "Below & <i>", "Download all"):
        assert expected in text
    assert "until" not in text
    assert list(files) == ["study1/1.1.1/1.1.1.1.dcm", "study2/1.2.1/1.2.1.1.dcm"]
    shared = {
        folder["FolderName"]: folder["IsShared"]
        for folder in (await told(client, "searchfolder", FolderName="e"))["FolderList"]
    }
    assert shared == {"Below & <i>": False}
    assert (await told(client, "searchfolder"))["FolderList"][0]["IsShared"] is True


async def test_a_password_opens_the_page(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, visitor: httpx.AsyncClient
) -> None:
    uuid = await upload(embedded_archive, client, PatientName="Doe^Jane")
    url = await share(client, uuid, password=PASSWORD, download="True")
    other = await share(client, uuid, password="other")

    asked = await visitor.get(url)
    refused_files = await visitor.get(f"{url}/download/{uuid}")
    wrong = [await visitor.post(url, data=data) for data in ({"password": "pässwörd"}, {"password": ""}, {})]
    entered = await visitor.post(url, data={"password": PASSWORD.replace("ä", "a\u0308")})
    shown = await visitor.get(url)

    assert asked.status_code == 200
    assert refused_files.status_code == 403
    assert [answer.status_code for answer in wrong] == [403] * 3
    for page in (asked, refused_files, *wrong):
        assert "Doe" not in page.text
        assert 'type="password"' in page.text
    assert 'role="alert"' in wrong[0].text
    assert "alert" not in asked.text
    assert entered.status_code == 303
    assert entered.headers["location"] == httpx.URL(url).path
    cookie = entered.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=lax", f"Path={httpx.URL(url).path}"} <= set(cookie.split("; "))
    assert "Doe, Jane" in shown.text
    assert files_of(await visitor.get(f"{url}/download/{uuid}"))
    token = cookie.partition(";")[0]
    assert 'type="password"' in (await visitor.get(other, headers={"Cookie": token})).text


async def test_a_guessed_cookie_opens_nothing(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, visitor: httpx.AsyncClient
) -> None:
    url = await share(client, await create_order(embedded_archive, client), password="p")

    for cookie in ("share=", "share=ł", "share=" + "0" * 64):
        assert 'type="password"' in (await visitor.get(url, headers={b"Cookie": cookie.encode()})).text


async def test_forms_that_are_none(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, visitor: httpx.AsyncClient
) -> None:
    url = await share(client, await create_order(embedded_archive, client), password="p")

    assert (await visitor.post(url, content=b"password=" + b"p" * 10_000)).status_code == 413
    assert (await visitor.post(url, content=b"a=1&" * 100)).status_code == 400
    assert (await visitor.post(url, content=b"\xff\x00")).status_code == 403


async def test_neither_token_nor_password_is_kept(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    url = await share(client, await create_order(embedded_archive, client), password="canary-password")

    kept = b"".join(path.read_bytes() for path in embedded_archive.folder.glob("index.sqlite*"))

    assert b"2099-12-31" in kept
    assert b"canary-password" not in kept
    assert url.rpartition("/")[2].encode() not in kept


async def test_a_link_expires_when_its_last_day_is_over(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, visitor: httpx.AsyncClient
) -> None:
    uuid = await upload(embedded_archive, client, PatientName="Doe^Jane")
    today = datetime.now(UTC).date()
    over = await share(client, uuid, until=(today - timedelta(days=1)).isoformat(), download="True")

    assert (await properties(embedded_archive, client, uuid))["IsShared"] is False
    for method, address in (("GET", over), ("POST", over), ("GET", f"{over}/download/{uuid}")):
        page = await visitor.request(method, address)
        assert page.status_code == 410
        assert "Doe" not in page.text
        assert page.headers["x-error-reason"]
    if datetime.now(UTC).date() == today:  # not at midnight
        assert (await visitor.get(await share(client, uuid, until=today.isoformat()))).status_code == 200


async def test_files_only_when_allowed(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, visitor: httpx.AsyncClient
) -> None:
    instances = [make_instance("1.2.3", f"1.2.3.{n % 2}", f"1.2.3.{n % 2}.{n}") for n in range(4)]
    await store(client, *instances)
    uuid = embedded_archive.order_uuid("1.2.3")
    other = await upload(embedded_archive, client, "1.3")
    bare = await create_order(embedded_archive, client)
    closed, opened = await share(client, uuid), await share(client, uuid, bare, download="True")

    assert (await visitor.get(f"{closed}/download/{uuid}")).status_code == 403
    for wrong in (other, bare, "x", UNKNOWN):
        assert (await visitor.get(f"{opened}/download/{wrong}")).status_code == 404
    answer = await visitor.get(f"{opened}/download/{uuid}")
    assert answer.headers["content-disposition"] == 'attachment; filename="study.zip"'
    assert sorted(files_of(answer).values()) == sorted(instances)
    assert sorted(files_of(answer)) == sorted(f"1.2.3.{n % 2}/1.2.3.{n % 2}.{n}.dcm" for n in range(4))
    assert "No images yet" in (await visitor.get(opened)).text


async def test_a_deleted_order_is_no_longer_shown(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, visitor: httpx.AsyncClient
) -> None:
    url = await share(client, await upload(embedded_archive, client), download="True")

    await client.delete("/studies/1.2.3")

    assert "nothing here any more" in text_of(await visitor.get(url))
    assert (await visitor.get(f"{url}/download")).status_code == 404


async def test_other_addresses_still_need_the_account(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, visitor: httpx.AsyncClient
) -> None:
    url = await share(client, await upload(embedded_archive, client))

    for path in ("/share", "/share/", "/shares", "/share/../studies", "/share%2f..%2fstudies", "/studies", "//studies"):
        answer = await visitor.get(httpx.URL(embedded_archive.url).copy_with(raw_path=path.encode()))
        assert answer.status_code in {401, 404}, path
        assert "1.2.3" not in answer.text
    for bad in (url[:-1], url + "x", url + "%00", url[:-1] + "%C5%82", url + "/download/x/y"):
        assert (await visitor.get(bad)).status_code == 404
    assert (await visitor.put(url)).status_code == 405


async def test_shares_survive_a_restart(tmp_path: Path) -> None:
    async with EmbeddedArchive(tmp_path) as archive, client_of(archive) as client:
        url = await share(client, await create_order(archive, client), password=PASSWORD)

    async with EmbeddedArchive(tmp_path) as archive, client_of() as visitor:
        again = archive.url + httpx.URL(url).path
        answer = await visitor.post(again, data={"password": PASSWORD}, follow_redirects=True)

    assert "Doe, Jane" in answer.text


async def test_links_of_a_mounted_archive(tmp_path: Path) -> None:
    app = create_app(tmp_path, username="u", password="p")
    transport = httpx.ASGITransport(app=Starlette(routes=[Mount("/dicom-web", app=app)]))
    base = "https://archive.test/dicom-web"

    async with httpx.AsyncClient(transport=transport, base_url=base, auth=("u", "p")) as client:
        answer = await store(client, make_instance())
        (uuid,) = await order_uuids(client)
        url = await share(client, uuid, password="p", download="true")
    async with httpx.AsyncClient(transport=transport) as visitor:
        entered = await visitor.post(url, data={"password": "p"})
        page = await visitor.get(url)
        link = re.findall(r'href="([^"]+)"', page.text)
        files = files_of(await visitor.get("https://archive.test" + link[0]))

    app.state.close()
    assert answer.status_code == 200
    assert url.startswith(f"{base}/share/")
    assert entered.headers["location"] == httpx.URL(url).path
    assert "Secure" in entered.headers["set-cookie"]
    assert list(files) == ["1.2.3.1/1.2.3.1.1.dcm"]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
async def test_a_large_study_is_zipped_in_flat_memory(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, visitor: httpx.AsyncClient, tmp_path: Path
) -> None:
    await embedded_archive.add(write_benchmark_series(tmp_path, 2, 30_000_000))
    (uuid,) = await order_uuids(client)
    url = await share(client, uuid, download="True")
    await visitor.get(url)

    received, before, peak = 0, _resident(), 0
    async with visitor.stream("GET", f"{url}/download") as answer:
        async for chunk in answer.aiter_raw():
            received += len(chunk)
            peak = max(peak, _resident())

    assert received > 60_000_000
    assert peak - before < 16_000_000


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_a_download_that_nobody_reads_on_ends_quietly(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, visitor: httpx.AsyncClient, tmp_path: Path
) -> None:
    await embedded_archive.add(write_benchmark_series(tmp_path, 3, 10_000_000))
    (uuid,) = await order_uuids(client)
    url = await share(client, uuid, download="True")

    async with visitor.stream("GET", f"{url}/download") as answer:
        async for _ in answer.aiter_raw():
            break
    started = time.perf_counter()
    assert (await visitor.get(url)).status_code == 200
    assert time.perf_counter() - started < 1


def order(**fields: str) -> StoredOrder:
    return StoredOrder(UNKNOWN, UNKNOWN, "", fields, ("CT",))


def test_everything_on_the_page_is_escaped() -> None:
    evil = "\"><script>alert('x')</script>&amp;\x00\x1b"
    names = ("PatientName", "StudyDescription", "PerformedDatetime", "OrderScheduledDatetime")
    evil_order = StoredOrder(UNKNOWN, UNKNOWN, "1.2", dict.fromkeys(names, evil), (evil,), images_count=2)

    page = share_page(evil, evil, [Section(evil, [evil_order])], expires=None, download=f"/share/{evil}")

    assert "<script" not in page
    assert "alert('x')" not in page
    assert "&amp;amp;" in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", page.replace("\n", ""))
    assert page.count("&lt;script&gt;") >= 8


def test_odd_values_on_the_page() -> None:
    orders = [
        order(),
        order(PatientName="^^^="),
        order(PerformedDatetime="2024-02-31 10:00"),
        order(PatientName="قباني^لنزار"),
    ]

    page = share_page("T", "", [Section("", orders[:1]), Section("S", orders[1:])], expires=date(2030, 1, 2))

    assert page.count("No name") == 3
    assert "2024-02-31" in page
    assert "قباني, لنزار" in page
    assert "2 January 2030" in page


def test_html_elements() -> None:
    made = element("p", "a < b", empty("br"), joined("&", element("b", "x")), class_='"quoted"', hidden=True, id=False)

    assert made == '<p class="&quot;quoted&quot;" hidden>a &lt; b<br>&amp;<b>x</b></p>'
