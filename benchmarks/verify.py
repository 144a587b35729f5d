"""Checks that received instances equal the originals byte for byte; these are generated again, so none need be kept."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from benchmarks.data import Encoder, Study
from benchmarks.names import FIRST_INSTANCE, FRAME, INSTANCE_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_UID = re.compile(re.escape(INSTANCE_PREFIX.encode()) + rb"(\d+)\.(\d+)")
_LOOKED_AT = 1024


class WrongBytes(Exception):
    """A received instance differs from the original."""


class Expected:
    """The studies expected, each instance once."""

    def __init__(self, studies: Sequence[Study]) -> None:
        self._encoders = {study.number: (study, Encoder(study)) for study in studies}
        self._zeros = bytes(FRAME)
        self._seen: set[tuple[int, int]] = set()

    def check(self, target: Path) -> None:
        """Check all files below a folder: instances, or multipart answers kept whole.

        Raises:
            WrongBytes: an instance differs, is missing, or occurs twice.
        """
        for path in _files(target):
            with path.open("rb") as file:
                if path.suffix == ".dcm":
                    self._instance(file, path.name)
                    _require(not file.read(1), f"{path.name} goes on after its end")
                else:
                    self._parts(file, path.name)
        wanted = sum(study.instances for study, _ in self._encoders.values())
        _require(len(self._seen) == wanted, f"{len(self._seen)} of {wanted} instances arrived")

    def _parts(self, file: BinaryIO, name: str) -> None:
        line = file.readline()
        while line and not line.startswith(b"--"):  # the head of an answer that was kept too
            line = file.readline()
        boundary, line = line.rstrip(b"\r\n"), line.rstrip(b"\r\n")
        while line == boundary:
            while file.readline().strip():
                pass
            self._instance(file, name)
            file.readline()
            line = file.readline().rstrip(b"\r\n")
        _require(bool(boundary) and line == boundary + b"--", f"{name} does not end as it should")

    def _instance(self, file: BinaryIO, name: str) -> None:
        start = file.tell()
        found = _UID.search(file.read(_LOOKED_AT))
        _require(found is not None, f"{name} holds what is no instance")
        assert found
        key = int(found[1]), int(found[2]) - FIRST_INSTANCE
        study, encoder = self._encoders.get(key[0], (None, None))
        _require(study is not None and 0 <= key[1] < study.instances, f"{name} holds what was not asked for")
        assert study
        assert encoder
        _require(key not in self._seen, f"instance {key[1]} of study {key[0]} is there twice")
        self._seen.add(key)
        file.seek(start)
        head = encoder.head(key[1])
        _require(file.read(len(head)) == head, f"the header of instance {key[1]} of study {key[0]} differs")
        for wanted in self._pixels(study, encoder):
            _require(file.read(len(wanted)) == wanted, f"the pixels of instance {key[1]} of study {key[0]} differ")

    def _pixels(self, study: Study, encoder: Encoder) -> Iterator[bytes]:
        if not study.sparse:
            yield from (encoder.first_pixels for _ in range(study.frames))
            return
        left = study.pixels
        while left:
            piece = self._zeros[:left]
            yield piece
            left -= len(piece)


def _require(true: bool, words: str) -> None:
    if not true:
        raise WrongBytes(words)


def _files(target: Path) -> Iterator[Path]:
    for place, _, names in os.walk(target):
        yield from (Path(place, name) for name in names)
