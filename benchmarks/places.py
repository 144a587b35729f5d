"""Where files are put: in memory, or on a disk, and which file system that is."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import gettempdir

MOUNTS = Path("/proc/mounts")
IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
UNKNOWN = "an unknown file system"


def disk_folder() -> Path:
    """Return a folder that can be written to and is not known to be in memory."""
    candidates = [Path(gettempdir()), Path("/var/tmp"), Path.cwd(), Path.home()]
    usable = [place for place in candidates if os.access(place, os.W_OK)]
    return next((place for place in usable if file_system(place) not in IN_MEMORY), usable[0])


def file_system(place: Path) -> str:
    """Return the type of the file system that a folder is on."""
    return file_system_in(MOUNTS.read_text(), place.resolve()) if MOUNTS.exists() else UNKNOWN


def file_system_in(mounts: str, place: Path) -> str:
    """Return it by a table of mounts as ``/proc/mounts`` has it. Pure."""
    table = [line.split() for line in mounts.splitlines()]
    found = [(len(words[1]), words[2]) for words in table if place.is_relative_to(words[1].replace("\\040", " "))]
    return max(found, key=lambda one: one[0])[1] if found else UNKNOWN
