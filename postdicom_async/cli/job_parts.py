"""``postdicom jobs partition`` and ``merge``: a job in parts that run anywhere, and the parts back in one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from postdicom_async.cli import output
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.job_options import JobName
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import Common
from postdicom_async.cli.paths import given_path

__all__ = ["merge", "partition"]


def partition(
    job: JobName,
    parts: Annotated[int, typer.Argument(metavar="N", help="Into how many.")],
    common: Common,
    to: Annotated[
        Path, typer.Option("--to", metavar="FOLDER", parser=given_path, help="Where the ledgers of the parts are put.")
    ],
) -> int:
    """Split a job that does not run by study, into ledgers that run anywhere: postdicom jobs resume PART."""
    from postdicom_async.jobs.parts import partition
    from postdicom_async.jobs.places import find_job

    path = find_job(job)
    made = run_async(lambda: partition(path, parts, to))
    for part in made:
        output.write(str(part))
    if not common.quiet:
        output.note("the job itself waits until its parts are back: postdicom jobs merge JOB PART...")
    return Exit.OK


def merge(
    job: JobName,
    parts: Annotated[list[Path], typer.Argument(metavar="PART...", parser=given_path, help="Ledgers of its parts.")],
    common: Common,
) -> int:
    """Join parts of a job back into it; with none left the job can go on."""
    from postdicom_async.jobs.parts import merge
    from postdicom_async.jobs.places import find_job

    path = find_job(job)
    left = run_async(lambda: merge(path, parts))
    if not common.quiet:
        output.note(f"parts that are still out: {left}" if left else "every part is back: the job can go on")
    return Exit.OK
