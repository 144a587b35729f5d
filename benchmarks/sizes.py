"""How much is moved."""

from __future__ import annotations

from dataclasses import dataclass

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of instances and frames; a frame has half a megabyte.

    Attributes:
        many: instances of one frame in the study of CT slices.
        large_frames: frames of the large instance.
        tiny: instances of 10 kB in the study of tiny ones.
        single_small: the same where each has a request of its own.
        delayed: the same where each waits for a long line.
        huge_frames: frames of the instance in the memory cases; its pixels stay below the 4 GiB DICOM allows.
        beside: instances of one frame in each of the 15 studies moved beside that one.
        scale: numbers of instances of 1 kB.
        starts: how often each command is started.
        exits: processes that end with a cancelled request.
        needed: bytes free that all this takes.
    """

    many: int
    large_frames: int
    tiny: int
    single_small: int
    delayed: int
    huge_frames: int
    beside: int
    scale: tuple[int, ...]
    starts: int
    exits: int
    needed: int


FULL = Sizes(
    many=400,
    large_frames=1907,
    tiny=10_000,
    single_small=2_000,
    delayed=1_000,
    huge_frames=7629,
    beside=256,
    scale=(1_000, 10_000, 100_000),
    starts=15,
    exits=200,
    needed=14 * 10**9,
)
QUICK = Sizes(
    many=16,
    large_frames=16,
    tiny=100,
    single_small=50,
    delayed=20,
    huge_frames=64,
    beside=2,
    scale=(100, 1_000),
    starts=1,
    exits=3,
    needed=10**9,
)
