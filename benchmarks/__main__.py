"""``python -m benchmarks``: measure what users get, all sides in one run."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from shutil import disk_usage, rmtree
from subprocess import CalledProcessError
from tempfile import TemporaryDirectory, gettempdir

from benchmarks.page import page_with, section_block, table_of, target_lines, targets_table
from benchmarks.places import disk_folder, file_system
from benchmarks.runner import Bench
from benchmarks.sections import SECTIONS
from benchmarks.sizes import FULL, MILLION, QUICK, Sizes
from benchmarks.table import aligned, machine, versions
from benchmarks.targets import NOT_MEASURED

SHARED_MEMORY = Path("/dev/shm")
SETTINGS = "default settings: asyncio's own loop, fsync on, every file named, checked and renamed"


def main() -> int:
    options = _options()
    sizes, circumstances = _sizes(options), _circumstances(options)
    with (
        TemporaryDirectory(prefix="dicomweb-bench-", dir=_place(sizes.needed)) as folder,
        TemporaryDirectory(prefix="dicomweb-bench-", dir=options.disk) as disk,
    ):
        bench = Bench(Path(folder), Path(disk), options.repeat)
        print(f"Measured at {SETTINGS}.\n{circumstances}\n")
        for name in options.only or SECTIONS:
            bench.note(name, f"folder on {file_system(bench.disk if name == 'disk' else bench.root)}")
            _run(bench, name, sizes)
            print(f"{SECTIONS[name].title}\n\n{table_of(bench, name, aligned)}\n", flush=True)
            if options.markdown:
                _write(options.markdown, bench, name, circumstances)
    measured = [line for line in target_lines(bench) if line[3] != NOT_MEASURED or not options.only]
    print(f"Targets\n\n{targets_table(measured)}")
    for words in bench.wrong:
        print(f"WRONG: {words}", file=sys.stderr)
    return 1 if bench.wrong else 0


def _run(bench: Bench, name: str, sizes: Sizes) -> None:
    """Measure a section; one that cannot be measured does not take the others with it."""
    try:
        SECTIONS[name].run(bench, sizes)
    except (OSError, RuntimeError, CalledProcessError) as error:
        bench.note(name, f"**ended early**: {error}")
        for left in bench.root.iterdir():
            rmtree(left) if left.is_dir() else left.unlink()


def _circumstances(options: argparse.Namespace) -> str:
    runs = f"Default settings; median of {options.repeat}, sides in turn" + (
        "; little data: no figures" if options.quick else ""
    )
    busy = f"load {os.getloadavg()[0]:.1f} before" if hasattr(os, "getloadavg") else "load unknown"
    return f"{runs}. {machine()}, {busy}; {versions()}."


def _write(page: Path, bench: Bench, name: str, circumstances: str) -> None:
    """Write what there is so far: a long run that is ended loses nothing."""
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    block = section_block(bench, name, SECTIONS[name].title, circumstances)
    page.write_text(page_with(old, {name: block}, target_lines(bench)), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little data: a check that it runs, not a figure")
    parser.add_argument("--full", action="store_true", help="with a million instances, which takes long")
    parser.add_argument("--only", choices=SECTIONS, nargs="+", metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="runs of each side (3)")
    parser.add_argument("--disk", type=Path, metavar="FOLDER", default=disk_folder(), help="on a disk (%(default)s)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the tables into this page, too")
    options = parser.parse_args()
    if options.quick and options.markdown:
        parser.error("--markdown is for figures, which --quick does not give")
    if options.repeat < 1:
        parser.error("--repeat: give a number from 1 on")
    if not os.access(options.disk, os.W_OK | os.X_OK) or not options.disk.is_dir():
        parser.error("--disk: give a folder that can be written to")
    if options.markdown and (options.markdown.is_dir() or not options.markdown.absolute().parent.is_dir()):
        parser.error("--markdown: give a file in a folder that exists")
    return options


def _sizes(options: argparse.Namespace) -> Sizes:
    sizes = QUICK if options.quick else FULL
    return replace(sizes, scale=(*sizes.scale, MILLION)) if options.full else sizes


def _place(needed: int) -> str:
    """Memory-backed when there is room: then no disk is measured."""
    if os.access(SHARED_MEMORY, os.W_OK) and disk_usage(SHARED_MEMORY).free > needed:
        return str(SHARED_MEMORY)
    return gettempdir()


if __name__ == "__main__":
    sys.exit(main())
