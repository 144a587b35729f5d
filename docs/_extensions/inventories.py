"""Write the inventories that pages link to Python, pydicom and httpx by: ``python docs/_extensions/inventories.py``.

The real ones need a network when documentation is built. These are small, in the format of Sphinx (version 2), and
made of names that this package's pages use: each is looked up in what is installed, so that a name that is gone stops
this, and joined with the address at which its project documents it.
"""

from __future__ import annotations

import inspect
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any

INTO = Path(__file__).parents[1] / "_inventories"

# By page of docs.python.org/3/library: the module, and its names; methods as Class.method.
PYTHON: dict[str, tuple[str, str]] = {
    "functions": ("builtins", "bool float int object type"),
    "stdtypes": ("builtins", "bytearray bytes dict frozenset list memoryview set str tuple"),
    "exceptions": (
        "builtins",
        (
            "BaseException Exception ExceptionGroup OSError RuntimeError TypeError ValueError KeyError TimeoutError "
            "UserWarning KeyboardInterrupt StopAsyncIteration FileNotFoundError"
        ),
    ),
    "constants": ("builtins", "None"),
    "asyncio-task": ("asyncio", "Task TaskGroup gather run to_thread timeout"),
    "asyncio-eventloop": ("asyncio", "AbstractEventLoop"),
    "asyncio-exceptions": ("asyncio", "CancelledError"),
    "collections.abc": (
        "collections.abc",
        (
            "AsyncGenerator AsyncIterable AsyncIterator Awaitable Buffer Callable Collection Coroutine Generator "
            "Iterable Iterator Mapping MutableMapping Sequence Set"
        ),
    ),
    "contextlib": ("contextlib", "AbstractAsyncContextManager AbstractContextManager"),
    "dataclasses": ("dataclasses", "dataclass field replace"),
    "datetime": ("datetime", "date datetime time timedelta tzinfo"),
    "enum": ("enum", "Enum IntEnum StrEnum"),
    "fractions": ("fractions", "Fraction"),
    "io": ("io", "BytesIO IOBase"),
    "logging": ("logging", "Logger LoggerAdapter getLogger"),
    "os": ("os", "PathLike"),
    "pathlib": ("pathlib", "Path PurePath"),
    "ssl": ("ssl", "SSLContext"),
    "types": ("types", "ModuleType TracebackType MappingProxyType"),
    "typing": ("typing", "Any BinaryIO ClassVar Final Generic IO Literal NamedTuple Protocol Self TypeVar TypedDict"),
    "uuid": ("uuid", "UUID"),
}
ABSENT = {"Buffer"}  # of a later Python

PYDICOM = {  # the documented name, and where it stands
    "pydicom.dataset.Dataset": "class",
    "pydicom.dataset.FileDataset": "class",
    "pydicom.dataelem.DataElement": "class",
    "pydicom.uid.UID": "class",
    "pydicom.valuerep.PersonName": "class",
    "pydicom.filereader.dcmread": "function",
    "pydicom.filewriter.dcmwrite": "function",
    "pydicom.errors.InvalidDicomError": "exception",
}

HTTPX = {  # the page, and the kind
    "AsyncBaseTransport": ("advanced/transports/#custom-transports", "class"),
    "AsyncClient": ("api/#asyncclient", "class"),
    "AsyncHTTPTransport": ("advanced/transports/#http-transport", "class"),
    "Auth": ("advanced/authentication/#custom-authentication-schemes", "class"),
    "BaseTransport": ("advanced/transports/#custom-transports", "class"),
    "Client": ("api/#client", "class"),
    "Cookies": ("api/#cookies", "class"),
    "Headers": ("api/#headers", "class"),
    "HTTPError": ("exceptions/", "exception"),
    "HTTPStatusError": ("exceptions/", "exception"),
    "MockTransport": ("advanced/transports/#mock-transports", "class"),
    "Proxy": ("advanced/proxies/", "class"),
    "Request": ("api/#request", "class"),
    "Response": ("api/#response", "class"),
    "TimeoutException": ("exceptions/", "exception"),
    "TransportError": ("exceptions/", "exception"),
    "URL": ("api/#url", "class"),
}


def kind_of(value: Any) -> str:
    """Return what Sphinx calls an object."""
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if callable(value) else "data"


def python_entries() -> list[str]:
    """Return the lines of Python's own inventory."""
    lines = []
    for page, (module, names) in PYTHON.items():
        for name in sorted(set(names.split()) - ABSENT):
            kind = "data" if name == "None" else kind_of(getattr(import_module(module), name))
            full = name if module == "builtins" else f"{module}.{name}"
            lines.append(f"{full} py:{kind} 1 library/{page}.html#$ -")
    return lines


def pydicom_entries() -> list[str]:
    """Return the lines of pydicom's inventory."""
    for full in PYDICOM:
        module, _, name = full.rpartition(".")
        getattr(import_module(module), name)
    return [f"{full} py:{kind} 1 reference/generated/{full}.html#$ -" for full, kind in PYDICOM.items()]


def httpx_entries() -> list[str]:
    """Return the lines of httpx's inventory; its own documentation is not made by Sphinx and has none."""
    httpx = import_module("httpx")
    return [f"httpx.{name} py:{kind} 1 {place} -" for name, (place, kind) in HTTPX.items() if getattr(httpx, name)]


def write(name: str, entries: list[str]) -> None:
    """Write one inventory."""
    head = f"# Sphinx inventory version 2\n# Project: {name}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    body = zlib.compress("".join(f"{line}\n" for line in sorted(entries)).encode(), 9)
    (INTO / f"{name}.inv").write_bytes(head.encode() + body)


if __name__ == "__main__":
    write("python", python_entries())
    write("pydicom", pydicom_entries())
    write("httpx", httpx_entries())
