"""``python -m benchmarks``: measure all sides in one run and print one table."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryDirectory, gettempdir

from benchmarks.cases import FULL, QUICK, SECTIONS
from benchmarks.runner import Bench
from benchmarks.table import bullets, machine, render
from benchmarks.targets import verdicts

SHARED_MEMORY = Path("/dev/shm")


def main() -> int:
    options = _options()
    sizes = QUICK if options.quick else FULL
    with TemporaryDirectory(prefix="dicomweb-bench-", dir=_place(sizes.needed)) as folder:
        bench = Bench(Path(folder), options.repeat)
        bench.note(_loop_note())
        for name in options.only or SECTIONS:
            SECTIONS[name](bench, sizes)
    report = [render(bench.rows, markdown=options.markdown)]
    targets = verdicts(bench.rows)
    report += [bullets("Targets", targets)] if targets else []
    report += [bullets("Notes", [f"median of {options.repeat}, sides in turn", *bench.notes]), machine()]
    print("\n\n".join(report))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little data: a check that it runs, not a figure")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="this section alone; may be repeated")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each side (3)")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    return parser.parse_args()


def _place(needed: int) -> str:
    """Memory-backed when there is room: then no disk is measured."""
    if os.access(SHARED_MEMORY, os.W_OK) and disk_usage(SHARED_MEMORY).free > needed:
        return str(SHARED_MEMORY)
    return gettempdir()


def _loop_note() -> str:
    loop = "uvloop" if find_spec("uvloop") else "asyncio's own loop"
    return f"postdicom_async on {loop} (httpx: asyncio's own), without fsync; naming, checking and atomic writes on"


if __name__ == "__main__":
    sys.exit(main())
