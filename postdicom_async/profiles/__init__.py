"""Named archives: ``profiles.toml`` in the user's configuration folder says where each is, and as whom; no secret.

>>> from postdicom_async.profiles import open_profile
>>> async with open_profile("hospital") as archive: ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from postdicom_async.face import public_face

if TYPE_CHECKING:
    from postdicom_async.cloud.client import CloudApi
    from postdicom_async.dicomweb.client import DicomWeb
    from postdicom_async.postdicom.client import PostDicom

__all__ = ["open_profile"]


@public_face
def open_profile(name: str, *, ask: bool = False) -> DicomWeb | PostDicom | CloudApi:
    """Return the client of a named archive, to be used in ``async with``.

    Its secret comes from ``POSTDICOM_PASSWORD_NAME`` (or ``TOKEN``, ``API_KEY``, ``ACCOUNT_KEY``), a file that the
    profile names, ``$CREDENTIALS_DIRECTORY``, the variable without the name, or the keyring. Asking the keyring takes
    up to ten seconds, in which the thread stands still.

    Args:
        name: of the profile.
        ask: ask in the terminal for what is found nowhere.

    Raises:
        UsageError: there is no such profile, it cannot be used, or a secret is missing.
        LocalFileError: a file cannot be read.
    """
    from getpass import getpass

    from postdicom_async.profiles.file import load_profile
    from postdicom_async.profiles.opening import client_of

    return client_of(load_profile(name), ask=getpass if ask else None)
