"""Pictures of instances: what they look like, in which form they come, and what is said when there are none."""

from __future__ import annotations

import sys
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, RLELossless

from tests.emulator.support import TEST_FILES, encode, make_dataset, make_instance, parts_of, store
from tests.emulator.vendor_support import refused

if TYPE_CHECKING:
    import httpx
    from pydicom.uid import UID

    from postdicom_async.emulator import EmbeddedArchive

PATH = "/studies/1.2/series/1.2.1/instances/1.2.1.1"
PNG = {"Accept": "image/png"}


def picture(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    image = Image.open(BytesIO(answer.content))
    image.load()
    assert answer.headers["content-type"] == f"image/{(image.format or '').lower()}"
    return image


def pixels(answer: httpx.Response) -> list[list[int]]:
    found: list[list[int]] = np.asarray(picture(answer)).tolist()
    return found


def grey(values: list[Any], *, bits: int = 16, instance: str = "1.2.1.1", **keywords: Any) -> Dataset:
    """Return an image of signed values."""
    data = np.asarray(values, dtype=f"<i{bits // 8}")
    keywords = {"PhotometricInterpretation": "MONOCHROME2", **keywords}
    ds = make_dataset("1.2", "1.2.1", instance, Rows=data.shape[-2], Columns=data.shape[-1], **keywords)
    ds.SamplesPerPixel, ds.PixelRepresentation = 1, 1
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.PixelData = data.tobytes()
    ds["PixelData"].VR = "OW"
    return ds


WINDOWS: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [0, 64, 128, 255]),
    ({"PhotometricInterpretation": "MONOCHROME1"}, [255, 191, 127, 0]),
    ({"RescaleSlope": "2", "RescaleIntercept": "-100"}, [0, 64, 128, 255]),
    ({"WindowCenter": "100", "WindowWidth": "201"}, [0, 128, 255, 255]),
    ({"WindowCenter": "100", "WindowWidth": "201", "PhotometricInterpretation": "MONOCHROME1"}, [255, 127, 0, 0]),
    ({"WindowCenter": ["100", "7"], "WindowWidth": ["201", "2"]}, [0, 128, 255, 255]),
    ({"WindowCenter": "100", "WindowWidth": "200", "VOILUTFunction": "LINEAR_EXACT"}, [0, 128, 255, 255]),
    ({"WindowCenter": "100", "WindowWidth": "200", "VOILUTFunction": "SIGMOID"}, [30, 128, 225, 255]),
    ({"WindowCenter": "100", "WindowWidth": "0"}, [0, 64, 128, 255]),
    ({"WindowCenter": "100", "WindowWidth": "401", "RescaleSlope": "2", "RescaleIntercept": "0"}, [64, 192, 255, 255]),
]


@pytest.mark.parametrize(("keywords", "expected"), WINDOWS)
async def test_shades_of_grey(client: httpx.AsyncClient, keywords: dict[str, Any], expected: list[int]) -> None:
    await store(client, encode(grey([[0, 100, 200, 400]], **keywords)))

    (shades,) = pixels(await client.get(f"{PATH}/rendered", headers=PNG))

    assert shades == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ("100,201,linear", [0, 128, 255, 255]),
        ("100,201", [0, 128, 255, 255]),
        ("100,200,linear-exact", [0, 128, 255, 255]),
        ("100,200,sigmoid", [30, 128, 225, 255]),
    ],
)
async def test_a_window_that_is_asked_for(client: httpx.AsyncClient, window: str, expected: list[int]) -> None:
    await store(client, encode(grey([[0, 100, 200, 400]], WindowCenter="0", WindowWidth="1")))

    (shades,) = pixels(await client.get(f"{PATH}/rendered", headers=PNG, params={"window": window}))

    assert shades == pytest.approx(expected, abs=1)


async def test_a_table_of_shades(client: httpx.AsyncClient) -> None:
    table = Dataset()
    table.LUTDescriptor = [4, 0, 8]
    table.LUTData = [255, 10, 20, 30]
    table["LUTData"].VR = "US"
    ds = grey([[0, 1, 2, 3]])
    ds.PixelRepresentation = 0
    ds.VOILUTSequence = [table]
    ds.VOILUTSequence[0]["LUTDescriptor"].VR = "US"
    await store(client, encode(ds))

    assert pixels(await client.get(f"{PATH}/rendered", headers=PNG)) == [[255, 10, 20, 30]]


async def test_what_an_enhanced_object_says_of_its_frames(client: httpx.AsyncClient) -> None:
    def group(center: str, width: str) -> Dataset:
        item, voi = Dataset(), Dataset()
        voi.WindowCenter, voi.WindowWidth = center, width
        item.FrameVOILUTSequence = [voi]
        return item

    ds = grey([[[0, 100, 200, 400]], [[0, 100, 200, 400]]], NumberOfFrames=2)
    ds.PerFrameFunctionalGroupsSequence = [group("100", "201"), group("200", "401")]
    await store(client, encode(ds))

    for number, expected in ((1, [0, 128, 255, 255]), (2, [0, 64, 128, 255])):
        (shades,) = pixels(await client.get(f"{PATH}/frames/{number}/rendered", headers=PNG))
        assert shades == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
async def test_encodings_look_alike(client: httpx.AsyncClient, syntax: UID) -> None:
    ds = grey([[0, 100], [200, 400]])
    if syntax == RLELossless:
        ds.file_meta = dcmread(BytesIO(encode(ds))).file_meta
        ds.compress(RLELossless, generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, "<i2").astype(">i2").tobytes()
    await store(client, encode(ds, syntax))

    assert pixels(await client.get(f"{PATH}/rendered", headers=PNG)) == [[0, 64], [128, 255]]


@pytest.mark.parametrize(
    "name",
    ["SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_dcmtk_+eb+cy+n1.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_lossy_gdcm.dcm"],
)
async def test_colours(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient, name: str) -> None:
    """The bars from above: red, pink, green, light green, blue, light blue, black, greys, white."""
    (path,) = await url_of(embedded_archive, name)

    image = picture(await client.get(f"{path}/rendered", headers=PNG)).convert("RGB")

    assert image.size == (100, 100)
    for at, colour in ((5, (255, 0, 0)), (25, (0, 255, 0)), (45, (0, 0, 255)), (65, (0, 0, 0)), (95, (255, 255, 255))):
        found = image.getpixel((50, at))
        assert isinstance(found, tuple)
        assert found == pytest.approx(colour, abs=6), at


async def url_of(archive: EmbeddedArchive, *names: str) -> list[str]:
    stored = await archive.add([path for name in names for path in TEST_FILES if path.name == name])
    return ["/studies/{}/series/{}/instances/{}".format(*one.uids) for one in stored]


async def test_palettes(embedded_archive: EmbeddedArchive, client: httpx.AsyncClient) -> None:
    (path,) = await url_of(embedded_archive, "examples_palette.dcm")

    image = picture(await client.get(f"{path}/rendered", headers=PNG))

    assert (image.mode, image.size) == ("RGB", (800, 350))
    assert len(image.getcolors(2**20) or []) > 50


async def test_pydicoms_files_are_rendered_or_refused(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient
) -> None:
    stored = await embedded_archive.add(TEST_FILES)
    statuses = []
    for one in {one.uids.sop_instance_uid: one for one in stored}.values():
        url = "/studies/{}/series/{}/instances/{}".format(*one.uids)
        answer = await client.get(f"{url}/thumbnail")
        statuses.append(answer.status_code)
        if answer.status_code == 200:
            assert max(picture(answer).size) == 128
        else:
            assert answer.status_code in {404, 406}
            assert answer.headers["x-error-reason"]
    assert statuses.count(200) > 0.8 * (len(statuses) - statuses.count(404))


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "image/jpeg"),
        ("*/*", "image/jpeg"),
        ("image/*", "image/jpeg"),
        ("image/png", "image/png"),
        ("image/png, image/jpeg;q=0.5", "image/png"),
        ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", "image/jpeg"),
    ],
)
@pytest.mark.parametrize("end", ["rendered", "thumbnail", "frames/1/rendered", "frames/1/thumbnail"])
async def test_one_picture(client: httpx.AsyncClient, accept: str, kind: str, end: str) -> None:
    await store(client, encode(grey([[0, 100], [200, 400]])))

    answer = await client.get(f"{PATH}/{end}", headers={"Accept": accept} if accept else {})

    assert answer.headers["content-type"] == kind
    assert picture(answer).size == ((128, 128) if end.endswith("thumbnail") else (2, 2))
    head = await client.head(f"{PATH}/{end}", headers={"Accept": accept} if accept else {})
    assert (head.status_code, head.headers["content-length"]) == (200, answer.headers["content-length"])


@pytest.mark.parametrize("accept", ["image/gif", "application/dicom", 'multipart/related; type="image/gif"'])
async def test_other_kinds_are_refused(client: httpx.AsyncClient, accept: str) -> None:
    await store(client, encode(grey([[0, 100], [200, 400]])))

    for end in ("rendered", "thumbnail"):
        assert refused(await client.get(f"{PATH}/{end}", headers={"Accept": accept}), 406)


RELATED_PNG = {"Accept": 'multipart/related; type="image/png"'}


async def test_pictures_in_parts(client: httpx.AsyncClient) -> None:
    many = grey([[[0, 100]], [[100, 0]], [[50, 50]]], NumberOfFrames=3)
    no_image = make_instance("1.2", "1.2.1", "1.2.1.8")
    await store(client, no_image, encode(many))
    await store(client, encode(grey([[0, 1, 2]], instance="1.2.1.9")))  # those of one request come in any order

    async def sizes(path: str, **headers: str) -> list[tuple[int, int]]:
        answer = await client.get(path, headers=headers)
        assert answer.status_code == 200
        return [Image.open(BytesIO(part.body)).size for part in parts_of(answer)]

    every = [(2, 1), (2, 1), (2, 1), (3, 1)]
    assert await sizes("/studies/1.2/rendered", **RELATED_PNG) == every
    assert await sizes("/studies/1.2/rendered") == every
    assert await sizes("/studies/1.2/series/1.2.1/rendered", **RELATED_PNG) == every
    assert await sizes(f"{PATH}/rendered", **RELATED_PNG) == every[:3]
    assert await sizes(f"{PATH}/frames/3,1/rendered", **RELATED_PNG) == every[:2]
    assert picture(await client.get("/studies/1.2/rendered", headers=PNG)).size == (2, 1)
    assert picture(await client.get("/studies/1.2/thumbnail")).size == (128, 64)
    assert pixels(await client.get(f"{PATH}/frames/2/rendered", headers=PNG)) == [[255, 0]]
    assert refused(await client.get(f"{PATH}/frames/1,2/rendered", headers=PNG), 406)
    assert refused(await client.get(f"{PATH}/frames/4/rendered", headers=PNG), 404)
    assert refused(await client.get(f"{PATH}/frames/x/rendered", headers=PNG), 400)


async def test_sizes_and_quality(client: httpx.AsyncClient) -> None:
    noise = np.random.default_rng(1).integers(0, 1000, (64, 128)).tolist()
    await store(client, encode(grey(noise)))

    async def asked(**parameters: str) -> httpx.Response:
        return await client.get(f"{PATH}/rendered", params=parameters)

    assert picture(await asked(viewport="64,64")).size == (64, 32)
    assert picture(await asked(viewport="256,256")).size == (256, 128)
    assert picture(await asked(viewport="32,32,64,0,64,64")).size == (32, 32)
    assert picture(await asked(viewport="128,128,,,64,")).size == (128, 128)
    good, bad = await asked(quality="95"), await asked(quality="10")
    assert picture(good).size == picture(bad).size == (128, 64)
    assert len(good.content) > 2 * len(bad.content)
    assert picture(await client.get(f"{PATH}/thumbnail", params={"viewport": "16,16"})).size == (16, 8)


@pytest.mark.parametrize(
    "query",
    [
        "quality=0", "quality=101", "quality=x", "quality=²", "viewport=1", "viewport=0,10", "viewport=10,99999",
        "viewport=a,b", "viewport=nan,10", "viewport=10,10,1", "viewport=10,10,-1,0,5,5", "viewport=10,10,500,0,5,5",
        "window=1", "window=1,0,linear", "window=1,inf,linear", "window=1,2,cubic", "window=1,2,3,linear",
    ],
)  # fmt: skip
async def test_parameters_that_are_none(client: httpx.AsyncClient, query: str) -> None:
    await store(client, encode(grey([[0, 100], [200, 400]])))

    assert refused(await client.get(f"{PATH}/rendered?{query}"), 400)


async def test_what_is_no_image(client: httpx.AsyncClient) -> None:
    await store(client, make_instance("1.2", "1.2.1", "1.2.1.1"))

    for path in (f"{PATH}/rendered", "/studies/1.2/thumbnail", f"{PATH}/frames/1/rendered"):
        assert "no image" in refused(await client.get(path), 404)


async def test_what_cannot_be_decoded_is_refused_and_says_so(
    embedded_archive: EmbeddedArchive, client: httpx.AsyncClient
) -> None:
    (path,) = await url_of(embedded_archive, "JPEG-lossy.dcm")

    assert "1.2.840.10008.1.2.4.51" in refused(await client.get(f"{path}/rendered"), 406)


async def test_a_file_that_breaks_off_is_not_rendered(client: httpx.AsyncClient) -> None:
    await store(client, encode(grey([[1, 2, 3, 4]] * 16))[:-20])

    assert "breaks off" in refused(await client.get(f"{PATH}/rendered"), 500)


async def test_a_picture_that_would_fill_the_memory_is_refused(client: httpx.AsyncClient) -> None:
    """A frame of zeros of any size packs to next to nothing."""
    ds = grey([[0, 0], [0, 0]], bits=8)
    ds.file_meta = dcmread(BytesIO(encode(ds))).file_meta
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.Rows = ds.Columns = 60_000
    await store(client, encode(ds, RLELossless))

    assert "samples" in refused(await client.get(f"{PATH}/rendered"), 406)


@pytest.mark.parametrize("missing", ["PIL", "numpy"])
async def test_without_pillow_or_numpy(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    await store(client, encode(grey([[0, 100], [200, 400]])))
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.setitem(sys.modules, name, None)

    assert "'server'" in refused(await client.get(f"{PATH}/rendered"), 501)
    assert (await client.get(f"{PATH}/frames/1")).status_code == 200
