"""The code that the README shows, and that of the examples, is what a type checker in strict mode takes."""

from __future__ import annotations

import ast
import builtins
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

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

BLOCKS = BLOCK.findall((PROJECT / "README.md").read_text(encoding="utf-8"))


def free_names(tree: ast.Module) -> set[str]:
    """Return the names that a snippet uses and does not make."""
    nodes = list(ast.walk(tree))
    made = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    made |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    made |= {node.name for node in nodes if isinstance(node, ast.ExceptHandler) and node.name}
    made |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            made |= {one.asname or one.name.partition(".")[0] for one in node.names}
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    return {name for name in used - made if not hasattr(builtins, name)}


def as_function(number: int, code: str) -> str:
    """Return a snippet as the body of a function whose arguments are what it takes for granted."""
    names = free_names(ast.parse(code))  # top-level await is no mistake to the parser
    unknown = names - GIVEN.keys() - IMPORTS.keys()
    assert not unknown, f"snippet {number} of the README uses what nobody gives it: {', '.join(sorted(unknown))}"
    given = ", ".join(f"{name}: {GIVEN[name]}" for name in sorted(names & GIVEN.keys()))
    imports = "".join(f"{IMPORTS[name]}\n" for name in sorted(names & IMPORTS.keys()))
    return f"async def snippet_{number}({given}) -> None:\n{textwrap.indent(imports + code, '    ')}\n"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder in which what mypy finds out of the package is kept from one test to the next."""
    return tmp_path_factory.mktemp("documented")


def strictly_checked(folder: Path, *files: Path) -> str:
    """Return what mypy has to say about files, written as a user's are."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--follow-imports=silent"]
    options = ["--config-file", os.devnull, "--cache-dir", str(folder / "cache")]
    found = subprocess.run(
        [*command, *options, *map(str, files)], capture_output=True, text=True, check=False, cwd=PROJECT
    )
    return found.stdout + found.stderr.replace(f"{os.devnull}: No [mypy] section in config file\n", "")


def written(folder: Path, *snippets: str) -> Path:
    path = folder / "snippets.py"
    functions = [as_function(number, code) for number, code in enumerate(snippets, 1)]
    head = "from collections.abc import Callable\n\nimport httpx\nimport postdicom_async\n\n"
    path.write_text(head + "\n\n".join(functions), encoding="utf-8")
    return path


@pytest.mark.large  # ``nox -s docs`` runs it, too
def test_the_code_in_the_readme_and_the_examples(workshop: Path) -> None:
    pytest.importorskip("mypy")
    pytest.importorskip("fastapi")
    examples = sorted((PROJECT / "examples").glob("*.py"))
    assert len(BLOCKS) >= 5
    assert len(examples) >= 4
    assert strictly_checked(workshop, written(workshop, *BLOCKS), *examples) == ""


@pytest.mark.large
def test_a_mistake_in_a_snippet_is_seen(workshop: Path) -> None:
    pytest.importorskip("mypy")
    said = strictly_checked(
        workshop, written(workshop, "report = await archive.upload(5)\nprint(report.failed_ones)\n")
    )
    assert 'has incompatible type "int"' in said
    assert 'has no attribute "failed_ones"' in said
    with pytest.raises(AssertionError, match=r"snippet 1 .* nobody gives it: arhcive"):
        as_function(1, "await arhcive.upload('x')")
