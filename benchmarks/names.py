"""Constants shared by the processes of the benchmark; imports nothing, so that the lean sides stay lean."""

from __future__ import annotations

ROOT = "1.2.826.0.1.3680043.8.498."
#: Every SOP Instance UID made here starts so and is `UID_LENGTH` long: the sink finds them by that.
INSTANCE_PREFIX = f"{ROOT}3."
FIRST_INSTANCE = 1_000_001
UID_LENGTH = len(f"{INSTANCE_PREFIX}100.{FIRST_INSTANCE}")
BOUNDARY = "benchmark-7f3a9c51d2e84b06"
MULTIPART = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
PART_HEAD = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
CLOSING = f"--{BOUNDARY}--\r\n".encode()
#: Bytes of one uncompressed CT slice: 512 x 512 x 16 bit.
FRAME = 512 * 512 * 2
KIB, MIB = 1 << 10, 1 << 20
#: A user and a password that are no secret, for the servers that want some.
USER, PASSWORD = "bench", "loopback-only"


def study_uid(number: int) -> str:
    return f"{ROOT}1.{number}"


def series_uid(number: int, series: int) -> str:
    return f"{ROOT}2.{number}.{series + 1}"


def instance_uid(number: int, index: int) -> str:
    return f"{INSTANCE_PREFIX}{number}.{FIRST_INSTANCE + index}"
