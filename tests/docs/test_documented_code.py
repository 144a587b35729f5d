"""The code in the README, the pages and the examples passes mypy in strict mode; whole programs run."""

from __future__ import annotations

import ast
import asyncio
import builtins
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from postdicom_async import DicomWeb
from postdicom_async.emulator import EmbeddedArchive
from tests.docs.pages import PROJECT, Block, blocks_of
from tests.support.dicom_files import small_dicom, study_files, uid

UNTYPED = ("app", "azure", "botocore", "dicomweb_client", "google", "nbformat", "pandas", "requests", "wsidicom")

# What a snippet may take for granted: what the text around it speaks of, or another snippet has imported.
GIVEN = {
    "archive": "postdicom_async.DicomWeb",
    "api": "postdicom_async.CloudApi",
    **dict.fromkeys(("url", "username", "password", "secret", "api_key", "account_key"), "str"),
    **dict.fromkeys(("institution", "folder"), "str"),
    "handler": "Callable[[httpx.Request], httpx.Response]",
}
IMPORTS = {
    "asyncio": "import asyncio",
    "date": "from datetime import date",
    "DicomWeb": "from postdicom_async import DicomWeb",
    "Path": "from pathlib import Path",
    "httpx": "import httpx",
    "PostDicom": "from postdicom_async import PostDicom",
}


def free_names(tree: ast.Module) -> set[str]:
    """Return the names that a snippet uses and does not make."""
    nodes = list(ast.walk(tree))
    made = names_made(tree)
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    return {name for name in used - made if not hasattr(builtins, name)}


def names_made(tree: ast.Module) -> set[str]:
    """Return the names that a snippet gives something to."""
    nodes = list(ast.walk(tree))
    made = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    made |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    made |= {node.name for node in nodes if isinstance(node, ast.ExceptHandler) and node.name}
    made |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            made |= {one.asname or one.name.partition(".")[0] for one in node.names}
    return made


def with_what_went_before(block: Block, before: list[Block]) -> str:
    """Return a block's code, below that of the earlier blocks of its page whose names it uses."""
    code = block.text
    for earlier in reversed(before):
        missing = free_names(ast.parse(code)) - GIVEN.keys() - IMPORTS.keys()
        if missing & names_made(ast.parse(earlier.text)):
            code = f"{earlier.text}\n{code}"
    return code


def as_function(block: Block, before: list[Block]) -> str:
    """Return a snippet as the body of a function whose arguments are what it takes for granted."""
    code = with_what_went_before(block, before).replace("from __future__ import annotations\n", "")
    names = free_names(ast.parse(code))  # top-level await is no mistake to the parser
    unknown = names - GIVEN.keys() - IMPORTS.keys()
    assert not unknown, f"{block} uses what nobody gives it: {', '.join(sorted(unknown))}"
    given = ", ".join(f"{name}: {GIVEN[name]}" for name in sorted(names & GIVEN.keys()))
    imports = "".join(f"{IMPORTS[name]}\n" for name in sorted(names & IMPORTS.keys()))
    name = re.sub(r"\W+", "_", str(block))
    return f"async def {name}({given}) -> None:\n{textwrap.indent(imports + code, '    ')}\n"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder in which what mypy finds out of the package is kept from one test to the next."""
    return tmp_path_factory.mktemp("documented")


def strictly_checked(folder: Path, *files: Path) -> str:
    """Return what mypy has to say about files, written as a user's are."""
    config = folder / "mypy.ini"
    config.write_text("[mypy]\n" + "".join(f"[mypy-{name}.*]\nignore_missing_imports = True\n" for name in UNTYPED))
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--follow-imports=silent"]
    options = ["--config-file", str(config), "--cache-dir", str(folder / "cache")]
    found = subprocess.run(
        [*command, *options, *map(str, files)], capture_output=True, text=True, check=False, cwd=PROJECT
    )
    return found.stdout + found.stderr


def written(folder: Path, *blocks: Block) -> Path:
    path = folder / "snippets.py"
    pages: dict[str, list[Block]] = {}
    functions = []
    for block in blocks:
        before = pages.setdefault(block.page, [])
        functions.append(as_function(block, before))
        before.append(block)
    head = "from collections.abc import Callable\n\nimport httpx\nimport postdicom_async\n\n"
    path.write_text(head + "\n\n".join(functions), encoding="utf-8")
    return path


@pytest.mark.large  # ``nox -s docs`` runs it, too
def test_the_code_in_the_pages_and_the_examples(workshop: Path) -> None:
    pytest.importorskip("mypy")
    pytest.importorskip("fastapi")
    blocks, examples = blocks_of("python"), sorted((PROJECT / "examples").glob("*.py"))
    assert len(blocks) >= 20
    assert {block.page for block in blocks} >= {"README.md", "docs/start/library.md"}
    assert len(examples) >= 4
    assert strictly_checked(workshop, written(workshop, *blocks), *examples) == ""


def snippet(code: str, page: str = "page.md") -> Block:
    return Block(page, 1, "python", code)


@pytest.mark.large
def test_a_mistake_in_a_snippet_is_seen(workshop: Path) -> None:
    pytest.importorskip("mypy")
    said = strictly_checked(
        workshop, written(workshop, snippet("report = await archive.upload(5)\nprint(report.failed_ones)\n"))
    )
    assert 'has incompatible type "int"' in said
    assert 'has no attribute "failed_ones"' in said
    with pytest.raises(AssertionError, match=r"page.md:1 .* nobody gives it: arhcive"):
        as_function(snippet("await arhcive.upload('x')"), [])


def test_a_snippet_has_what_earlier_ones_of_its_page_made() -> None:
    earlier = [snippet("import json"), snippet("rules = 1"), snippet("other = 2")]
    assert with_what_went_before(snippet("print(json.dumps(rules))"), earlier).split() == [
        "import", "json", "rules", "=", "1", "print(json.dumps(rules))",
    ]  # fmt: skip


# --- whole programs ---------------------------------------------------------------------------------------------------

PROGRAMS = [block for block in blocks_of("python") if "asyncio.run(" in block.text]


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
async def test_a_whole_program_runs(block: Block, tmp_path: Path) -> None:
    """On an archive with one study, beside a folder ``to-send`` with another."""
    there = [
        small_dicom("1.2.840.113619.2.1", uid(9, 1), uid(9, 1, number), patient_name="DOE^JANE") for number in (1, 2)
    ]
    (tmp_path / "to-send").mkdir()
    for name, data in study_files(4, series=2).items():
        (tmp_path / "to-send" / f"{name}.dcm").write_bytes(data)
    async with EmbeddedArchive(username="user", password="password") as embedded:
        async with DicomWeb(embedded.url, auth=embedded.auth) as client:
            await client.upload(there)
        (tmp_path / "program.py").write_text(block.text.replace("https://archive.example/dicom-web", embedded.url))
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "POSTDICOM_PASSWORD": "password"}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "program.py"),
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
