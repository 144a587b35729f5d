"""Where the command starts and ends: its extras, its exit code, and one line for whatever goes wrong.

The packages of the extra ``cli`` are imported only after a check that they are installed.
"""

from __future__ import annotations

import errno
import logging
import sys
import traceback
import warnings
from contextlib import contextmanager, nullcontext, suppress
from difflib import get_close_matches
from importlib.util import find_spec
from os import environ
from typing import TYPE_CHECKING, NoReturn

from postdicom_async import PostdicomError
from postdicom_async.cli import output
from postdicom_async.cli.exits import Exit, Interrupted, code_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COMPLETE = "_COMPLETE_POSTDICOM"
"""The variable by which the script of a shell asks for completions; it holds the shell."""
_NEEDED = ("typer", "rich")
_VERSION = ["--version"]  # answered without the parser, whose import takes most of such a run
_MEANT = {
    "--concurrency": "--connections",
    "--jobs": "--connections",
    "--parallel": "--connections",
    "--threads": "--connections",
    "--workers": "--connections",
    "--output": "--to",
    "--dest": "--to",
    "--user": "--username",
    "--password": "POSTDICOM_PASSWORD",
    "--token": "POSTDICOM_TOKEN",
    "--client-secret": "POSTDICOM_CLIENT_SECRET",
    "--retries": "--attempts",
}
"""The names here of other programs' options. A secret is not an option, but a variable."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def run() -> NoReturn:
    """Run the command with the process's arguments, and end the process."""
    output.open_missing()
    code = main(sys.argv[1:])
    output.close()
    sys.exit(code)


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    if COMPLETE in environ:
        from postdicom_async.cli.completion import answer

        return answer(environ[COMPLETE], arguments)
    if list(arguments) != _VERSION and not all(map(find_spec, _NEEDED)):
        output.error('the command needs more than the library: pip install "postdicom-async[cli]"')
        return Exit.USAGE
    # Read from the raw arguments: an error may come before they are parsed.
    debug = "--debug" in arguments
    output.prepare()
    if not debug:
        _silence_libraries()
    try:
        with _logged_to_terminal() if debug else nullcontext():
            return _call_app(list(arguments))
    except BaseException as error:  # noqa: BLE001 - last resort: every error becomes a line and an exit code
        if debug and not isinstance(error, SystemExit):
            traceback.print_exception(error)
            for place in getattr(error, "origin", ()):
                output.note(f"  in {place}")
        code, line = _end_of(error, debug=debug)
    if line is not None:
        from postdicom_async.cli.forms import wants_document

        output.error(line)
        if wants_document(arguments) and not output.was_document_written():
            with suppress(PostdicomError):  # standard output may be what failed
                output.write_document(error=line)
    return code


def _silence_libraries() -> None:
    """Keep the warnings of pydicom and others off the terminal: they may quote what is in a file."""
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())


@contextmanager
def _logged_to_terminal() -> Iterator[None]:
    """Show the library's own log on standard error: a line for each request, with nothing private in it."""
    logger, handler = logging.getLogger("postdicom_async"), _ToTerminal()
    before = logger.level
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _ToTerminal(logging.Handler):
    """Writes each record as a note."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        output.note(self.format(record))


def _call_app(arguments: list[str]) -> int:
    if arguments == _VERSION:
        from postdicom_async import __version__

        output.write(f"postdicom-async {__version__}")
        return Exit.OK
    from postdicom_async.cli.app import app

    code = app(arguments)(args=arguments, prog_name="postdicom", standalone_mode=False)
    return code if isinstance(code, int) else Exit.OK


def _end_of(error: BaseException, *, debug: bool) -> tuple[int, str | None]:
    """Return the exit code, and one line with the error."""
    if isinstance(error, SystemExit | BrokenPipeError):
        return Exit.OK, None  # how rich and typer report that the output of the help was closed
    if isinstance(error, KeyboardInterrupt | Interrupted):
        return error.code if isinstance(error, Interrupted) else Exit.INTERRUPTED, "interrupted"
    if isinstance(error, PostdicomError):
        return code_of(error), output.in_options(error)
    if (usage := _usage_message(error)) is not None:
        return Exit.USAGE, usage
    if isinstance(error, OSError) and error.errno in _FULL:
        return Exit.LIMIT, "the disk is full"
    hint = "" if debug else "; --debug shows where"
    return Exit.ITEMS_FAILED, f"unexpected {type(error).__name__}: this is a bug in postdicom-async{hint}"


def _meant(name: str, error: BaseException) -> str | None:
    """Suggest the option or variable meant by an unknown option."""
    command = getattr(getattr(error, "ctx", None), "command", None)
    offered = {option for parameter in getattr(command, "params", ()) for option in parameter.opts}
    for close in get_close_matches(name, _MEANT, 1, 0.8):
        if _MEANT[close] in offered or _MEANT[close].startswith("POSTDICOM"):
            return _MEANT[close]
    return None


def _usage_message(error: BaseException) -> str | None:
    """Return the message of the command line's parser; None if it is not the parser's error.

    Recognised by its attributes: depending on its version, typer uses click or a copy of its own.
    """
    if not hasattr(error, "format_message") or not hasattr(error, "exit_code"):
        return None
    command = getattr(getattr(error, "ctx", None), "command_path", "postdicom")
    name = str(getattr(error, "option_name", ""))
    if (instead := _meant(name, error)) is not None:
        return f"no such option: {name}; {'give' if instead[0] == '-' else 'set'} {instead}; see {command} --help"
    message = str(error.format_message()).replace("Value error, ", "")  # pydantic's, in newer versions of typer
    return f"{message.rstrip('.')}; see {command} --help"
