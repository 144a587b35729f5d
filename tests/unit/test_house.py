"""Which part may import which, read from the source: a wrong arrow fails here."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import postdicom_async

PACKAGE = "postdicom_async"
ROOT = Path(inspect.getfile(postdicom_async)).parent
MODULES = {
    ".".join((PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
# The rooms from the ground up, each with those it may import besides itself and what lies at the top of the package.
FLOORS = {
    "telemetry": set[str](),
    "dicom": set[str](),
    "http": set[str](),
    "disk": {"dicom"},
    "transfer": {"dicom", "http", "disk"},
    "dicomweb": {"dicom", "http", "disk", "transfer"},
    "vendor": {"dicom", "http"},
    "tokens": {"http"},
    "postdicom": {"dicom", "http", "disk", "transfer", "dicomweb", "vendor"},
    "cloud": {"dicom", "http", "disk", "transfer", "vendor"},
    "doctor": {"dicom", "http", "dicomweb", "vendor", "postdicom"},
    "profiles": {"http", "disk", "dicomweb", "vendor", "postdicom", "cloud", "tokens"},
    "sync": {"dicom", "http", "dicomweb", "disk", "transfer", "vendor", "postdicom", "tokens"},
    "jobs": {"dicom", "http", "disk", "transfer", "dicomweb", "vendor", "cloud", "profiles"},
    "web": {"dicom", "disk", "dicomweb", "jobs"},
}
# The rooms of jobs, each with those it may import while it runs, besides itself and the two tables below them all. The
# engine stands above: only ``machines``, where chunks are done elsewhere, imports some of it.
TABLES = {"states", "summary"}
JOB_ROOMS = {
    "pace": set[str](),
    "ends": {"pace"},
    "ledger": {"job_files"},
    "pages": set[str](),
    "machines": {"ends", "pace", "plan", "chunk_runner", "compare_bytes"},
}
TOP = {
    f"{PACKAGE}.{name}"
    for name in (
        "bodies",
        "csv_lines",
        "errors",
        "events",
        "face",
        "frames",
        "lazy",
        "markup",
        "paging",
        "results",
        "settings",
        "watching",
    )
}
FACE = f"{PACKAGE}.face"  # touches nothing, but awaits what it wraps

# No I/O, no clock, no randomness, no logging; of ours they import only one another and what callers get.
PURE = {
    f"{PACKAGE}.{name}"
    for name in (
        "errors",
        "events",
        "frames",
        "results",
        "settings",
        "bodies",
        "csv_lines",
        "http.retry",
        "jobs.pages.eta",
        "jobs.pages.figures",
        "jobs.pages.page",
        "jobs.pages.page_assets",
        "jobs.pages.serve_page",
        "jobs.states",
        "jobs.summary",
        "markup",
        "cloud.frames",
        "cloud.operations",
        "dicom.anonymize",
        "dicom.anonymize.anonymization",
        "dicom.anonymize.pieces",
        "dicom.anonymize.identities",
        "dicom.anonymize.plan",
        "dicom.anonymize.rules",
        "dicom.anonymize.values",
        "dicom.columns",
        "dicom.data_sets",
        "dicom.deflated",
        "dicom.digest",
        "dicom.tags",
        "dicom.elements",
        "dicom.header",
        "dicom.silence",
        "dicom.json_reading",
        "dicom.native_xml",
        "dicom.layout",
        "dicom.sameness",
        "dicom.scan",
        "dicom.text",
        "dicom.wholeness",
        "dicomweb.filters",
        "dicomweb.dialects",
        "dicomweb.multipart",
        "dicomweb.store_answer",
        "jobs.ends.end",
        "jobs.machines.in_flight",
        "jobs.ends.folder_match",
        "jobs.ledger.schema",
        "jobs.plan",
        "jobs.pace.outage_policy",
        "jobs.pace.windows",
        "doctor.checks",
        "postdicom.operations",
        "sync.accept",
        "profiles.model",
        "tokens.answers",
        "tokens.sigv4",
        "transfer.adaptive",
        "vendor.answers",
        "vendor.fields",
        "vendor.values",
        "vendor.wire",
        "web.statuses",
    )
}
IMPURE = {
    "aiofiles", "anyio", "asyncio", "http.client", "httpx", "logging", "random", "secrets", "shutil", "socket",
    "sqlite3", "ssl", "subprocess", "tempfile", "time", "urllib.request",
}  # fmt: skip
IMPURE_CALLS = {"open", "print", "now", "utcnow", "today", "monotonic", "urandom"}
WRITES = {
    "mkdir",
    "write_bytes",
    "write_text",
    "unlink",
    "rename",
    "replace_file",
    "rmdir",
    "touch",
    "makedirs",
    "fsync",
}
CLIENT_NAMES = {"AsyncClient", "Client", "AsyncHTTPTransport", "HTTPTransport", "get", "post", "request", "stream"}

LONGEST_MODULE = 500  # what is read together stands together, and still fits a head
LONGEST_FUNCTION = 60


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node but those for the type checker alone."""
    for child in ast.iter_child_nodes(tree):
        if is_type_checking(child):
            continue
        yield child
        yield from running_nodes(child)


def names_imported(node: ast.AST) -> Iterator[str]:
    """Yield the modules an import statement names, and what it takes from them."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        assert node.level == 0, "imports are absolute"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(name: str) -> str:
    """Return the module of ours that an imported name lies in, or the name."""
    while name not in MODULES and name.startswith(PACKAGE + "."):
        name = name.rpartition(".")[0]
    return name


@cache
def imports_of(module: str, *, running_only: bool = False) -> set[str]:
    nodes = running_nodes(tree_of(module)) if running_only else ast.walk(tree_of(module))
    return {module_of(name) for node in nodes for name in names_imported(node)}


def part_of(module: str) -> str:
    """Return the folder a module lies in below the package; empty at the top."""
    names = module.split(".")
    return names[1] if len(names) > 1 and f"{PACKAGE}.{names[1]}" in MODULES and (ROOT / names[1]).is_dir() else ""


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] == PACKAGE}


def test_the_house_is_found() -> None:
    assert len(MODULES) > 40
    assert set(MODULES) >= PURE


def of_each(modules: Iterable[str]) -> Callable[[Callable[[str], None]], Callable[[], None]]:
    """Make one test of a check of each module: as many tests they would take longer to collect than to run."""

    def test_of(check: Callable[[str], None]) -> Callable[[], None]:
        def test() -> None:
            wrong = {}
            for module in sorted(modules):
                try:
                    check(module)
                except AssertionError as error:
                    wrong[module] = str(error)
            assert not wrong

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return test_of


def test_what_calls_itself_pure_is_held_to_it() -> None:
    claims = {module for module in MODULES if re.search(r"\bPure\b", ast.get_docstring(tree_of(module)) or "")}
    assert {module for module in claims if part_of(module) != "emulator" and MODULES[module].stem != "__init__"} <= PURE


@of_each(PURE)
def test_pure_files_import_only_pure_files(module: str) -> None:
    imported = imports_of(module, running_only=True)
    assert ours(imported) <= PURE | {FACE}
    foreign = {name for name in imported for bad in IMPURE if name == bad or name.startswith(bad + ".")}
    assert not foreign


@of_each(PURE)
def test_pure_files_touch_nothing(module: str) -> None:
    called = {
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Call)
    }
    assert not called & IMPURE_CALLS
    assert not [
        node for node in ast.walk(tree_of(module)) if isinstance(node, ast.AsyncFor | ast.AsyncWith | ast.Await)
    ]


@cache
def edges() -> list[tuple[str, str]]:
    return [(module, name) for module in MODULES for name in ours(imports_of(module))]


@pytest.mark.parametrize("room", JOB_ROOMS)
def test_the_rooms_of_jobs_stand_on_one_another(room: str) -> None:
    inside = f"{PACKAGE}.jobs."
    wrong = {
        (module, name)
        for module in MODULES
        if module.startswith(f"{inside}{room}.")
        for name in ours(imports_of(module, running_only=True))
        if name.startswith(inside) and name.split(".")[2] not in JOB_ROOMS[room] | TABLES | {room}
    }
    assert not wrong


@pytest.mark.parametrize("room", FLOORS)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    of_room = {(module, name) for module, name in edges() if part_of(module) == room}
    wrong = {(module, name) for module, name in of_room if part_of(name) not in FLOORS[room] | {room, ""}}
    assert not wrong
    version = {PACKAGE} if room == "jobs" else set[str]()  # workers elsewhere must have the same
    assert {name for _, name in of_room if not part_of(name)} <= TOP | version


def test_errors_know_nothing_of_results() -> None:
    assert not ours(imports_of(f"{PACKAGE}.errors"))


def test_what_lies_at_the_top_imports_nothing_that_runs_below() -> None:
    assert not {
        (module, name) for module in TOP for name in ours(imports_of(module, running_only=True)) if name not in TOP
    }


def test_the_disk_imports_only_pure_files() -> None:
    """Not for types alone either: ``edges`` reads both."""
    of_disk = {(module, name) for module, name in edges() if part_of(module) == "disk"}
    assert not {(module, name) for module, name in of_disk if part_of(name) == "http"}
    assert not {(module, name) for module, name in of_disk if part_of(name) != "disk" and name not in PURE | {FACE}}


@pytest.mark.parametrize("apart", ["emulator", "cli"])
def test_nothing_imports_what_stands_apart(apart: str) -> None:
    allowed = {"cli"} if apart == "emulator" else set()  # the command starts the archive
    wrong = [
        (module, name)
        for module, name in edges()
        if part_of(name) == apart and part_of(module) != apart and part_of(module) not in allowed
    ]
    assert not wrong


def test_the_archive_is_a_second_reading_of_the_protocols() -> None:
    """What client and archive read by the same code, tests of one against the other would never find wrong."""
    of_archive = {(module, name) for module, name in edges() if part_of(module) == "emulator"}
    assert not {(module, name) for module, name in of_archive if part_of(name) != "emulator" and name not in TOP}


def test_only_http_uses_httpx_as_a_client() -> None:
    wrong = [
        (module, node.attr)
        for module in MODULES
        if part_of(module) != "http"
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "httpx"
        and node.attr in CLIENT_NAMES
    ]
    assert not wrong
    assert not [module for module in MODULES if part_of(module) != "http" and "aiohttp" in " ".join(imports_of(module))]


def test_only_the_disk_writes_files() -> None:
    """The embedded archive keeps its own files, and the command's demonstration cleans up after itself."""
    inside = {"disk", "emulator", "cli"}
    wrong = [
        (module, node.func.attr)
        for module in MODULES
        if part_of(module) not in inside
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WRITES
    ]
    assert not wrong
    assert not [module for module in MODULES if part_of(module) != "disk" and "aiofiles" in imports_of(module)]


def test_no_circles() -> None:
    graph = {module: ours(imports_of(module, running_only=True)) - {module} for module in MODULES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for name in graph.get(module, ()):
                if name != PACKAGE:
                    visit(name, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def names_of_things(module: str) -> Iterator[str]:
    """Yield the classes and types that a module declares for others."""
    for node in tree_of(module).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            yield from (name for name in _bound(node) if name[0].isupper() and not name.isupper())


def test_one_name_means_one_thing() -> None:
    """The archive, a second reading of the protocols, has names of its own too."""
    homes: dict[str, set[str]] = {}
    for module in MODULES:
        for name in names_of_things(module):
            homes.setdefault(name, set()).add(module)
    assert not {name: modules for name, modules in homes.items() if len(modules) > 1 and name[0] != "_"}


PAGES = sorted(str(path.relative_to(ROOT.parent)) for path in (ROOT.parent / "docs").glob("[a-z]*/**/*.md"))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", *PAGES])
def test_the_files_that_are_named_exist(page: str) -> None:
    """A path in a page is below the package, or below the project."""
    named = re.findall(r"`([\w./]+/[\w.]+\.(?:py|md|toml|txt))`", (ROOT.parent / page).read_text(encoding="utf-8"))
    assert not {path for path in named if not any((base / path).exists() for base in (ROOT, ROOT.parent))}


# --- shape -----------------------------------------------------------------------------------------------------------


@of_each(MODULES)
def test_length_of_the_module(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) < LONGEST_MODULE


def functions_of(module: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree_of(module)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@of_each(MODULES)
def test_length_of_functions(module: str) -> None:
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions_of(module)}
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION}


def documented(nodes: list[ast.stmt], *, inside: str = "") -> Iterator[tuple[str, bool]]:
    """Yield public names and whether they have a docstring."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield inside + node.name, ast.get_docstring(node) is not None
            if isinstance(node, ast.ClassDef):
                yield from documented(node.body, inside=f"{node.name}.")


def overrides(module: str, name: str) -> bool:
    """Whether a method has its docstring from the class above it (in the standard library or a dependency)."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    owner = getattr(importlib.import_module(module), name.partition(".")[0], None)
    method = getattr(owner, name.rpartition(".")[2], None)
    return "." in name and bool(inspect.getdoc(method))


@of_each(MODULES)
def test_public_names_are_documented(module: str) -> None:
    tree = tree_of(module)
    assert ast.get_docstring(tree), "the module"
    missing = [name for name, has in documented(tree.body) if not has and not overrides(module, name)]
    assert not missing


@of_each(MODULES)
def test_all_names_what_there_is(module: str) -> None:
    if module == PACKAGE:
        return  # its names are imported when they are asked for
    tree = tree_of(module)
    listed = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    ]
    for names in listed:
        assert len(names) == len(set(names))
        defined = {name for node in tree.body for name in _bound(node)}
        assert set(names) <= defined


def _bound(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        targets = [one for target in node.targets for one in getattr(target, "elts", [target])]
        yield from (target.id for target in targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.If | ast.Try):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                yield from _bound(child)


@of_each(MODULES)
def test_an_argument_is_named_as_one_and_not_in_the_text(module: str) -> None:
    """``UsageError("...", argument="limit")``: the command says ``--limit`` for it, and reads no sentences for that."""
    texts = [
        node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "UsageError" and node.args
        if not any(keyword.arg == "argument" for keyword in node.keywords)
    ]
    begin = [str(one.value) for one in texts if isinstance(one, ast.Constant)]
    assert not [text for text in begin if re.match(r"[a-z]+(_[a-z]+)*(\.[a-z_]+)?: ", text)]
