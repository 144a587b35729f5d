"""wsidicom, which is written for the incumbent's client, reads a slide through this one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit

from postdicom_async.emulator import archive_in_thread
from postdicom_async.sync import DICOMwebClient
from tests.sync.raw_server import RawServer, raw_server
from tests.sync.slides import LEVELS, SERIES, STUDY, picture, slide_files

wsidicom = pytest.importorskip("wsidicom")


@pytest.fixture(params=["embedded", "Orthanc"])
def empty_archive(request: pytest.FixtureRequest) -> Iterator[DICOMwebClient]:
    """Give a client of an archive that the test may fill."""
    if request.param == "embedded":
        with archive_in_thread() as archive, DICOMwebClient(archive.url, auth=archive.auth) as client:
            yield client
    else:
        orthanc: Any = request.getfixturevalue("orthanc")
        with DICOMwebClient(orthanc.url, auth=(orthanc.username, orthanc.password)) as client:
            yield client


# wsidicom reads metadata as they are, and does not say what to do with pixels that they refer to
@pytest.mark.filterwarnings("ignore:No bulk data URI handler:UserWarning")
@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, ExplicitVRLittleEndian])
def test_a_slide(empty_archive: DICOMwebClient, syntax: UID) -> None:
    empty_archive.upload(slide_files(syntax)).raise_for_failures()
    web = wsidicom.WsiDicomWebClient(empty_archive)
    near = 0 if syntax == ExplicitVRLittleEndian else 6  # JPEG loses a little
    wanted = None if syntax == JPEGBaseline8Bit else syntax  # without one, wsidicom finds out which there is
    with wsidicom.WsiDicom.open_web(web, STUDY, [SERIES], requested_transfer_syntax=wanted) as slide:
        assert [level.size.width for level in slide.pyramid] == list(LEVELS)
        for number, side in enumerate(LEVELS):
            region = slide.read_region((16, 16), number, (side - 32, side - 32), threads=4)
            drawn = picture(side).crop((16, 16, side - 16, side - 16))
            assert region.mode == "RGB"
            assert np.abs(np.asarray(region, dtype=int) - np.asarray(drawn, dtype=int)).max() <= near
        with ThreadPoolExecutor(8) as threads:
            tiles = list(threads.map(lambda at: slide.read_tile(0, (at % 4, at // 4)).tobytes(), range(16)))
        assert len(set(tiles)) == 16
    assert web.is_transfer_syntax_supported(UID(STUDY), UID(SERIES), UID(f"{SERIES}.1"), syntax)


def test_a_transfer_syntax_that_is_not_there() -> None:
    """It is told by status 406 of a ``requests.HTTPError``; the embedded archive does not convert."""
    with archive_in_thread() as archive, DICOMwebClient(archive.url, auth=archive.auth) as client:
        client.upload(slide_files(JPEGBaseline8Bit)).raise_for_failures()
        web = wsidicom.WsiDicomWebClient(client)
        assert not web.is_transfer_syntax_supported(UID(STUDY), UID(SERIES), UID(f"{SERIES}.1"), JPEG2000Lossless)


def test_tiles_come_over_connections_that_are_kept() -> None:
    """Wsidicom takes one frame of each iterator and drops it."""
    body = b"--b\r\nContent-Type: image/jpeg\r\n\r\n" + b"tile" + b"\r\n--b--\r\n"
    kind = "multipart/related; type=image/jpeg; boundary=b"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    def serve(server: RawServer, connection: socket.socket) -> None:
        while True:
            server.send(connection, head)
            server.send(connection, body)
            if not connection.recv(65536):
                return

    with raw_server(serve) as server, DICOMwebClient(server.url) as client:
        assert [next(client.iter_instance_frames(STUDY, SERIES, SERIES, [n])) for n in range(1, 17)] == [b"tile"] * 16
        assert len(server.heads) == 1, "a head for each connection"
