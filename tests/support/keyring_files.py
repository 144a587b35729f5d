"""A keyring in a JSON file, for the separate process in which the library runs keyring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

__all__ = ["FileKeyring", "file_keyring"]

_BACKEND = """
import json, os
from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError

PLACE = os.environ["KEYRING_OF_THE_TESTS"]

class Kept(KeyringBackend):
    priority = 9
    def _all(self):
        return json.load(open(PLACE)) if os.path.exists(PLACE) else {}
    def _write(self, all):
        json.dump(all, open(PLACE, "w"))
    def get_password(self, service, username):
        return self._all().get(f"{service} {username}")
    def set_password(self, service, username, password):
        self._write({**self._all(), f"{service} {username}": password})
    def delete_password(self, service, username):
        known = self._all()
        if known.pop(f"{service} {username}", None) is None:
            raise PasswordDeleteError("not there")
        self._write(known)

class Forgetful(Kept):
    def _write(self, all): ...
"""


class FileKeyring:
    """Where it is, and what is in it.

    Attributes:
        environment: what a process needs to use it.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "keyring_of_the_tests.py").write_text(_BACKEND)
        self._place = folder / "keyring.json"
        self.environment = {
            "PYTHONPATH": str(folder),
            "PYTHON_KEYRING_BACKEND": "keyring_of_the_tests.Kept",
            "KEYRING_OF_THE_TESTS": str(self._place),
        }

    @property
    def entries(self) -> dict[str, Any]:
        """What it holds, by service and entry."""
        return dict(json.loads(self._place.read_text())) if self._place.exists() else {}

    def put(self, entry: str, secret: str) -> None:
        """Put something in."""
        self._place.write_text(json.dumps({**self.entries, f"postdicom-async {entry}": secret}))


@pytest.fixture
def file_keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileKeyring:
    pytest.importorskip("keyring")
    folder = tmp_path / "keyring"
    folder.mkdir()
    made = FileKeyring(folder)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made
