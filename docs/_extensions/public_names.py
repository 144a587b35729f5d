"""Public names in the API's pages: which stand on which page, and how a short or inner name is resolved.

The stub beside ``__init__.py`` lists the public names with the modules that define them. ``PAGES`` sorts these modules
to pages; what no page claims stands on the page ``more``, so that no name can be left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes

import postdicom_async

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

ROOT = Path(postdicom_async.__file__).parent


def homes_of(package: str) -> dict[str, str]:
    """Return the public names of a package by its stub, each with the module that defines it."""
    stub = ROOT.joinpath(*package.split(".")[1:], "__init__.pyi")
    lines = [line.split() for line in stub.read_text(encoding="utf-8").splitlines()]
    return {words[3]: words[1] for words in lines if words[:1] == ["from"] and words[-2:-1] == ["as"]}


def resolve(_app: Sphinx, env: BuildEnvironment, node: Any, content: nodes.Node) -> nodes.Node | None:
    """Find what a name in a docstring or a signature means; what is no public name is text."""
    if node.get("refdomain") != "py":
        return None
    name = str(node.get("reftarget", "")).removeprefix("~")
    domain: Any = env.domains["py"]
    last = name.rpartition(".")[2]
    for tried in (f"postdicom_async.{name}", f"postdicom_async.{last}", f"postdicom_async.jobs.{last}"):
        if tried in domain.objects:
            found = domain.resolve_xref(env, node["refdoc"], _app.builder, "obj", tried, node, content)
            return found if found is not None else content
    inner = name.startswith("postdicom_async.") or node.get("reftype") == "obj" or "." not in name
    return content if inner else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect it."""
    app.connect("missing-reference", resolve, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
