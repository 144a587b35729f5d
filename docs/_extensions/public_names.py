"""Public names in the API's pages: which stand on which page, and how a short or inner name is resolved.

The stub beside a package's ``__init__.py`` lists its public names with the modules that define them. ``PAGES`` sorts
these modules to pages; what no page claims stands on the page ``more``, so that no name can be left out.
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import inventories
from sphinx.ext.intersphinx import resolve_reference_any_inventory
from sphinx.util import logging

import postdicom_async

if TYPE_CHECKING:
    from docutils import nodes  # type: ignore[import-untyped]
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

ROOT = Path(postdicom_async.__file__).parent
LOG = logging.getLogger(__name__)

PAGES: dict[str, tuple[str, ...]] = {
    "clients": (
        "dicomweb.client",
        "postdicom.client",
        "cloud.client",
        "dicomweb.retrieve",
        "dicomweb.filters",
        "dicom.layout",
    ),
    "results": ("results", "paging", "transfer.outcomes"),
    "settings": ("settings", "dicomweb.dialects", "vendor.wire"),
    "errors": ("errors",),
    "anonymise": ("dicom.anonymize", "disk.anonymize_files"),
    "scan": ("dicom.scan", "disk.scan"),
    "postdicom": ("vendor.answers", "vendor.sharing"),
    "doctor": ("doctor.diagnosis",),
    "tokens": ("tokens.client_credentials", "http.credentials"),
}
OF_MANY = {"Client", "Headers", "Proxy", "Request", "Response", "URL"}  # without httpx's name: of other packages
FACADES = {  # what is reached through a client and has no public name of its own
    "postdicom": (
        "postdicom_async.postdicom.facades",
        "postdicom_async.cloud.facades",
        "postdicom_async.cloud.orders",
        "postdicom_async.cloud.folders",
    ),
}


def packages() -> list[str]:
    """Return the packages and modules whose names are public: those with a stub, and a few more."""
    stubs = (".".join(("postdicom_async", *path.parent.relative_to(ROOT).parts)) for path in ROOT.rglob("__init__.pyi"))
    more = ("emulator", "emulator.pytest_fixtures", "events", "sync", "sync.session_utils")
    return sorted({*stubs, *(f"postdicom_async.{name}" for name in more)})


@cache
def homes_of(package: str) -> dict[str, str]:
    """Return the public names of a package, each with the module that defines it."""
    stub = ROOT.joinpath(*package.split(".")[1:], "__init__.pyi")
    if stub.is_file():
        lines = [line.split() for line in stub.read_text(encoding="utf-8").splitlines()]
        return {words[3]: words[1] for words in lines if words[:1] == ["from"] and words[-2:-1] == ["as"]}
    module = import_module(package)
    return {name: getattr(getattr(module, name), "__module__", package) for name in module.__all__}


def page_of(home: str) -> str:
    """Return the page of names that a module defines."""
    inner = home.removeprefix("postdicom_async.")
    return next((page for page, modules in PAGES.items() if inner in modules), "more")


def names_on(page: str) -> list[str]:
    """Return the names at the top of the package that stand on a page, in the order of the page's modules."""
    homes = homes_of("postdicom_async")
    order = [f"postdicom_async.{module}" for module in PAGES.get(page, ())]
    names = [name for name, home in homes.items() if page_of(home) == page]
    return sorted(names, key=lambda name: order.index(homes[name]) if homes[name] in order else 0)


def page(subject: str) -> str:
    """Return one page of the API: that of a part of the package's names, or a package's or module's own."""
    if subject.startswith("postdicom_async"):
        return "".join(_entry(subject, name) for name in homes_of(subject) if not is_at_the_top(subject, name))
    made = [_entry("postdicom_async", name) for name in names_on(subject) if name != "__version__"]
    for module in FACADES.get(subject, ()):
        made.extend(_entry(module, name) for name in _facades_in(module))
    return "".join(made)


def is_at_the_top(package: str, name: str) -> bool:
    """Whether a name of a package is a name at the top as well, where it is described."""
    if package == "postdicom_async" or name not in homes_of("postdicom_async"):
        return False
    return getattr(postdicom_async, name) is getattr(import_module(package), name)


def _facades_in(module: str) -> list[str]:
    loaded = import_module(module)
    kinds = [one for one in vars(loaded).values() if inspect.isclass(one) and one.__module__ == module]
    return [kind.__name__ for kind in kinds if not kind.__name__.startswith("_")]


def _entry(package: str, name: str) -> str:
    """Return the directive for one name."""
    value = getattr(import_module(package), name)
    lines: list[str] = []
    if inspect.isclass(value):
        kind = "autoexception" if issubclass(value, BaseException) else "autoclass"
        lines = _class_options(value)
    elif inspect.isroutine(value):
        kind = "autofunction"
    else:  # its docstring is that of its class
        is_type = type(value).__module__ in {"typing", "types"} and not isinstance(value, MappingProxyType)
        shown = re.sub(r"\b(?:\w+\.)+(?=\w)", "", str(value)) if is_type else type(value).__name__
        kind, lines = "py:data", [f":{'value' if is_type else 'type'}: {shown}"]
    body = "\n".join(f"   {line}" for line in lines)
    return f"```{{eval-rst}}\n.. {kind}:: {package}.{name}\n{body}\n```\n\n"


def _class_options(kind: type[Any]) -> list[str]:
    """Show what a class has of inner bases; what it has of public ones or of Python's stands with those."""
    public = [getattr(postdicom_async, name) for name in homes_of("postdicom_async")]
    inner = [base for base in kind.__mro__[1:] if base.__module__.startswith("postdicom_async")]
    lines = [":undoc-members:"] if hasattr(kind, "__members__") else []
    if set(kind.__bases__) & {*filter(inspect.isclass, public)} or issubclass(kind, BaseException | tuple):
        lines.append(":show-inheritance:")
    if documented := getattr(kind, "_fields", ()):  # of a named tuple: the docstring says what they are
        lines.append(f":exclude-members: {', '.join(documented)}")
    if [base for base in inner if base not in public]:
        others = {base.__name__ for base in kind.__mro__[1:] if base in public or base not in inner}
        lines.append(f":inherited-members: {', '.join(sorted(others))}")
    return lines


# --- names in texts and signatures ------------------------------------------------------------------------------------


@cache
def _by_last_word() -> dict[str, str]:
    """Return what a short name in a signature stands for: a name of Python's, pydicom's or httpx's inventory."""
    lines = [*inventories.python_entries(), *inventories.pydicom_entries(), *inventories.httpx_entries()]
    return {full.rpartition(".")[2]: full for full in (line.split()[0] for line in lines)}


def resolve(app: Sphinx, env: BuildEnvironment, node: Any, content: nodes.Node) -> nodes.Node | None:
    """Find what a name in a docstring or a signature means; an inner or foreign one stays text."""
    if node.get("refdomain") != "py":
        return None
    name = str(node.get("reftarget", "")).removeprefix("~")
    domain: Any = env.domains["py"]
    last = name.rpartition(".")[2]
    tails = (name, ".".join(name.split(".")[-2:]), last)
    for tried in (f"{package}.{tail}" for tail in tails for package in ("postdicom_async", "postdicom_async.jobs")):
        if tried in domain.objects:
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", tried, node, content) or content
    full = _by_last_word().get(last)
    if full and name.partition(".")[0] in {last, full.partition(".")[0]} and not (name == last and last in OF_MANY):
        copy = node.copy()
        copy["reftarget"], copy["reftype"] = full, "obj"
        found = resolve_reference_any_inventory(env, honor_disabled_refs=False, node=copy, contnode=content)
        if found is not None:
            return found
    asked_for = node.get("refexplicit") or env.doc2path(node["refdoc"]).suffix != ".md"
    return content if not asked_for or node.get("reftype") in {"obj", "class"} else None


def check(env: BuildEnvironment) -> None:
    """Warn of public names that stand on no page."""
    domain: Any = env.domains["py"]
    for package in packages():
        names = {name for name in homes_of(package) if not is_at_the_top(package, name) and name != "__version__"}
        missing = {f"{package}.{name}" for name in names} - set(domain.objects)
        if missing:
            LOG.warning("public names on no page: %s", ", ".join(sorted(missing)))
