"""Constants shared by the processes of the benchmark; imports nothing, so that the lean sides stay lean."""

from __future__ import annotations

ROOT = "1.2.826.0.1.3680043.8.498."
#: Every SOP Instance UID made here starts so and is `UID_LENGTH` long: the sink finds them by that.
INSTANCE_PREFIX = f"{ROOT}3."
UID_LENGTH = len(f"{INSTANCE_PREFIX}100.100001")
BOUNDARY = "benchmark-7f3a9c51d2e84b06"
#: Bytes of one uncompressed CT slice: 512 x 512 x 16 bit.
FRAME = 512 * 512 * 2
