"""The release recipe looks at everything that users may install, and says how it is used where it is described."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECIPE = (ROOT / ".ci" / "release").read_text(encoding="utf-8")
OF_THIS_PROJECT = {"bench", "dev", "docs", "examples", "pytest"}


def test_every_extra_of_users_is_in_the_list_of_components() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (named,) = re.findall(r"^runtime=(.+)$", RECIPE, re.MULTILINE)
    assert sorted(named.split(",")) == sorted(set(extras) - OF_THIS_PROJECT)


def test_it_can_be_run() -> None:
    assert (ROOT / ".ci" / "release").stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", ROOT / ".ci" / "release"], check=False).returncode == 0


def test_the_page_names_its_options_and_tools() -> None:
    page = (ROOT / "docs" / "internals" / "releasing.md").read_text(encoding="utf-8")
    assert "--no-audit" in RECIPE
    assert not [
        word for word in ("--no-audit", "twine", "cyclonedx-bom", "pip-audit", "SHA256SUMS") if word not in page
    ]
