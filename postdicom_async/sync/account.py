"""`PostDicomClient`: a PostDICOM account for code without an event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, cast

from postdicom_async.dicomweb.dialects import POSTDICOM, Dialect
from postdicom_async.face import public_face
from postdicom_async.postdicom.client import PostDicom
from postdicom_async.sync.client import DICOMwebClient

if TYPE_CHECKING:
    from postdicom_async.dicomweb.client import DicomWeb
    from postdicom_async.settings import Settings

_T = TypeVar("_T")


def _account(url: str, *, auth: tuple[str, str], settings: Settings, dialect: Dialect) -> PostDicom:
    return PostDicom(url, *auth, settings=settings, dialect=dialect)


@public_face
class PostDicomClient(DICOMwebClient):
    """A `DICOMwebClient` in PostDICOM's URL shapes, and its operations by `call`.

    Args:
        url: the address PostDICOM gave for the account.
        username: the account's user name, an e-mail address.
        password: its password.
        settings: as for `DICOMwebClient`.

    Raises:
        UsageError: an argument is wrong.
    """

    _kind: Callable[..., DicomWeb] = staticmethod(_account)

    def __init__(self, url: str, username: str, password: str, *, settings: Settings | None = None) -> None:
        super().__init__(url, auth=(username, password), settings=settings, dialect=POSTDICOM)

    def call(self, work: Callable[[PostDicom], Coroutine[Any, Any, _T]]) -> _T:
        """Run a coroutine of `PostDicom`, and return its result.

        ``client.call(lambda account: account.folders.create(...))``
        """
        return super().call(lambda archive: work(cast(PostDicom, archive)))
