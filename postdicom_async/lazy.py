"""The public names of a package, imported when they are first used.

pydicom and the HTTP libraries take a third of a second to import, and `postdicom --help` or an ``except NotFound``
needs none of them. The names are listed once, in the stub beside the package's ``__init__.py``: type checkers read it
as it is, and at run time its lines say where each name is defined. A stub has one name per line: ``from
postdicom_async.errors import NotFound as NotFound``; a name imported like that is public to a type checker.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def attach(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package whose ``__init__.pyi`` names what it offers."""
    module = sys.modules[package]
    loader: Any = module.__loader__  # the loader that reads the code can read the stub too, even from a zip file
    stub: bytes = loader.get_data(f"{module.__path__[0]}/__init__.pyi")
    lines = [line.split() for line in stub.decode().splitlines()]
    homes = {words[3]: words[1] for words in lines if words[:1] == ["from"]}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name]), name)
        setattr(module, name, value)  # so that the next access is direct
        return value

    names = sorted(homes, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    return get, lambda: sorted({*vars(module), *names}), names
