"""How the documentation is built: ``nox -s docs``. Nothing is fetched, neither while it is built nor by a reader."""

from __future__ import annotations

import sys
from pathlib import Path

from postdicom_async import __version__

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "postdicom-async"
author = "postdicom-async"
copyright = author  # noqa: A001 - what Sphinx calls it
version = release = __version__
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "generated",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "_extensions", "_inventories"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
suppress_warnings = ["ref.python"]  # a field of several classes, named in a docstring: the first is as good

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = False
napoleon_attr_annotations = False  # a dataclass has its types in its signature
default_role = "py:obj"  # a name in single backticks, as docstrings have them

intersphinx_mapping = {
    "python": ("https://docs.python.org/3/", str(HERE / "_inventories" / "python.inv")),
    "pydicom": ("https://pydicom.github.io/pydicom/stable/", str(HERE / "_inventories" / "pydicom.inv")),
    "httpx": ("https://www.python-httpx.org/", str(HERE / "_inventories" / "httpx.inv")),
}
intersphinx_disabled_reftypes = ["std:doc"]

copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = f"postdicom-async {__version__}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
