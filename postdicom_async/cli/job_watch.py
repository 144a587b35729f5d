"""``postdicom jobs watch`` and ``postdicom jobs serve``: a job on a terminal, and in a browser."""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from postdicom_async import NotFound, UsageError
from postdicom_async.cli import output
from postdicom_async.cli.exits import Exit, Interrupted
from postdicom_async.cli.job_look import ask, find_running, status_of, summary_of
from postdicom_async.cli.job_options import JobName
from postdicom_async.cli.job_progress import Picture
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import Common
from postdicom_async.cli.paths import given_path

_EVERY_ON_TERMINAL, _EVERY = 1.0, 30.0  # seconds
_TokenFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--metrics-token-file",
        metavar="FILE",
        parser=given_path,
        help="Holds the token with which Prometheus may read /metrics; readable for you alone.",
    ),
]
_Hosts: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="NAME",
        help="A name besides localhost that it is reached by, such as a proxy's. May be repeated.",
    ),
]


def watch(job: JobName, common: Common) -> int:
    """Look on while a job runs, until it ends or you press Ctrl-C; the job is not touched."""
    del common
    path = find_running(job)
    try:
        run_async(lambda: _watch(path))
    except Interrupted:
        return Exit.OK
    return Exit.OK


async def _watch(path: Path) -> None:
    with Picture(sys.stdout, stays=True) as picture:
        while picture.show(await asyncio.to_thread(summary_of, path)):
            if await status_of(path) is None:
                break
            await asyncio.sleep(_EVERY_ON_TERMINAL if picture.is_drawn else _EVERY)


async def _asked(path: Path, message: dict[str, Any]) -> dict[str, Any]:
    try:
        return await ask(path, message)
    except NotFound as error:
        return {"ok": False, "error": error.message}


def serve(
    job: JobName,
    common: Common,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, metavar="N", help="0 takes a free one.")] = 0,
    control: Annotated[
        bool, typer.Option("--control", help="Let the page pause, resume and change the job, and retry what failed.")
    ] = False,
    metrics_token_file: _TokenFile = None,
    allow_host: _Hosts = None,
) -> int:
    """Show a job in a browser on this machine until Ctrl-C, whether or not it runs.

    The address that is written opens the page once. It listens on the loopback address only.
    """
    from postdicom_async.jobs import find_job

    if not all(map(find_spec, ("starlette", "uvicorn"))):
        raise UsageError('jobs serve needs more: pip install "postdicom-async[cli,server]"')
    path = find_job(job)

    async def work() -> None:
        from postdicom_async.jobs import LedgerReader, LivePage

        page = LivePage(
            lambda: LedgerReader(path),
            ask=lambda message: _asked(path, message),
            control=control,
            port=port,
            names=allow_host or (),
            token_file=metrics_token_file,
        )
        async with page:
            output.write(page.address)
            if not common.quiet:
                output.note("Open it once, in one browser. Ctrl-C stops it, and not the job.")
            await page.serve_forever()

    try:
        run_async(work)
    except Interrupted:
        if not common.quiet:
            output.note("stopped; the job was not touched")
    return Exit.OK
