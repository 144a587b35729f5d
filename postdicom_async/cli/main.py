"""Where the command starts and ends: its extras, its exit code, and one line for whatever goes wrong.

Nothing of the extra ``cli`` is imported before it is known to be there.
"""

from __future__ import annotations

import errno
import logging
import sys
import traceback
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

from postdicom_async import PostdicomError
from postdicom_async.cli import output
from postdicom_async.cli.exits import Exit, Interrupted, code_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main", "run"]

_NEEDED = ("typer", "rich")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def run() -> NoReturn:
    """Run the command with the process's arguments, and end the process."""
    output.open_missing()
    code = main(sys.argv[1:])
    output.close()
    sys.exit(code)


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    if not all(map(find_spec, _NEEDED)):
        output.error('the command needs more than the library: pip install "postdicom-async[cli]"')
        return Exit.USAGE
    # Read here and not from the parsed options: what goes wrong may go wrong before there are any.
    debug = "--debug" in arguments
    output.prepare()
    if not debug:
        _silence_libraries()
    try:
        return _call_app(list(arguments))
    except BaseException as error:  # noqa: BLE001 - the end of the road: everything becomes a line and a code
        return _report(error, debug=debug)


def _silence_libraries() -> None:
    """Keep what pydicom and others warn about off the terminal: it may quote what is in a file."""
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())


def _call_app(arguments: list[str]) -> int:
    from postdicom_async.cli.app import app

    code = app(args=arguments, prog_name="postdicom", standalone_mode=False)
    return code if isinstance(code, int) else Exit.OK


def _report(error: BaseException, *, debug: bool) -> int:
    """Say in one line what went wrong; return the exit code."""
    if debug and not isinstance(error, SystemExit):
        traceback.print_exception(error)
        for place in getattr(error, "origin", ()):
            output.error(f"  in {place}")
    if isinstance(error, SystemExit | BrokenPipeError):
        return Exit.OK  # rich's and typer's way to say that nobody reads the help any more
    if isinstance(error, KeyboardInterrupt | Interrupted):
        output.error("interrupted")
        return error.code if isinstance(error, Interrupted) else Exit.INTERRUPTED
    if isinstance(error, PostdicomError):
        output.error(output.in_options(str(error)))
        return code_of(error)
    if (usage := _usage_message(error)) is not None:
        output.error(usage)
        return Exit.USAGE
    if isinstance(error, OSError) and error.errno in _FULL:
        output.error("the disk is full")
        return Exit.TEMPORARY
    hint = "" if debug else "; --debug shows where"
    output.error(f"unexpected {type(error).__name__}: this is a bug in postdicom-async{hint}")
    return Exit.ITEMS_FAILED


def _usage_message(error: BaseException) -> str | None:
    """Return what the parser of the command line has to say; None if the error is not its own.

    Told by what it has: typer brings click along in a package of its own or not, depending on its version.
    """
    if not hasattr(error, "format_message") or not hasattr(error, "exit_code"):
        return None
    command = getattr(getattr(error, "ctx", None), "command_path", "postdicom")
    message = str(error.format_message()).replace("Value error, ", "")  # pydantic's, in newer versions of typer
    return f"{message.rstrip('.')}; see {command} --help"
