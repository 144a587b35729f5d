"""A static server for studies too large to be kept: every answer is made on the fly, at little cost.

Run as ``python -m benchmarks.generated FD STUDY...``, with a listening socket inherited as file descriptor FD and
studies as JSON. It answers retrieves of a study, series or instance, and their listings by pages of at most `PAGE`.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from benchmarks.data import Encoder, Study, listed_instance, listed_series, listed_study
from benchmarks.names import CLOSING, FIRST_INSTANCE, MULTIPART, PART_HEAD, series_uid

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = 5000
AT_ONCE = 256  # parts made for one write
DICOM_JSON = "application/dicom+json"


class Held:
    """A study and what it takes to make its answers."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self._encoder = Encoder(study)
        self._part_length = len(PART_HEAD) + len(self._encoder.whole(0)) + len(b"\r\n")

    def body(self, indexes: range) -> tuple[int, Iterator[bytes]]:
        """Return the length of a multipart answer, and the answer in pieces."""
        return len(indexes) * self._part_length + len(CLOSING), self._pieces(indexes)

    def _pieces(self, indexes: range) -> Iterator[bytes]:
        whole, joint = self._encoder.whole, b"\r\n" + PART_HEAD
        for start in range(0, len(indexes), AT_ONCE):
            yield PART_HEAD + joint.join(map(whole, indexes[start : start + AT_ONCE])) + b"\r\n"
        yield CLOSING

    def indexes(self, below: list[str]) -> range:
        """Return the instances below a series or instance, named by the rest of the path."""
        match below:
            case []:
                return range(self.study.instances)
            case ["series", series]:
                return self.study.in_series(self._number(series))
            case ["series", _, "instances", instance]:
                index = int(instance.rpartition(".")[2]) - FIRST_INSTANCE
                return range(index, index + 1)
        raise KeyError

    def listing(self, below: list[str], query: dict[str, str]) -> str:
        """Return the answer to a search below the study."""
        if below == ["series"]:
            wanted = query.get("SeriesInstanceUID")
            numbers = range(self.study.series) if wanted is None else [self._number(wanted)]
            return _page([listed_series(self.study, number) for number in numbers], query)
        offset, limit = int(query.get("offset", "0")), min(int(query.get("limit", PAGE)), PAGE)
        found = self.indexes(below[:-1])[offset : offset + limit]
        return f"[{','.join(listed_instance(self.study, index) for index in found)}]"

    def _number(self, series: str) -> int:
        return [series_uid(self.study.number, number) for number in range(self.study.series)].index(series)


def _page(items: list[str], query: dict[str, str]) -> str:
    offset = int(query.get("offset", "0"))
    return f"[{','.join(items[offset : offset + int(query.get('limit', PAGE))])}]"


def answer(target: str, studies: dict[str, Held]) -> tuple[str, int, Iterator[bytes]]:
    """Return content type, length and pieces of the answer to a request.

    Raises:
        KeyError, ValueError: there is no such resource.
    """
    url = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    match url.path.strip("/").split("/"):
        case ["studies"]:
            text = _page([listed_study(studies[query["StudyInstanceUID"]].study)], query)
        case ["studies", uid, *below] if below[-1:] in (["series"], ["instances"]):
            text = studies[uid].listing(below, query)
        case ["studies", uid, *below]:
            return MULTIPART, *studies[uid].body(studies[uid].indexes(below))
        case _:
            raise KeyError
    return DICOM_JSON, len(text), iter([text.encode()])


def serve(connection: socket.socket, studies: dict[str, Held]) -> None:
    """Answer GET requests on one connection until the client ends it."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with suppress(OSError), connection, connection.makefile("rb") as stream:
        while request := stream.readline():
            while stream.readline().strip():
                pass
            try:
                kind, length, pieces = answer(request.split()[1].decode(), studies)
            except (KeyError, ValueError):
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                continue
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n".encode())
            for piece in pieces:
                connection.sendall(piece)


def main() -> None:
    listener = socket.socket(fileno=int(sys.argv[1]))
    held = [Held(Study(**json.loads(text))) for text in sys.argv[2:]]
    studies = {one.study.uid: one for one in held}
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, studies), daemon=True).start()


if __name__ == "__main__":
    main()
