"""An account of PostDICOM's Cloud API as an end of a job: it stores and confirms, but cannot be read from."""

# ruff: noqa: ARG002 - what it cannot do it refuses, whatever the arguments
# ruff: noqa: SLF001 - the account's own parts, of this package

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Self

from postdicom_async.cloud.client import CloudApi
from postdicom_async.errors import UsageError
from postdicom_async.http.endpoint import origin_of, place_of
from postdicom_async.jobs.ends.end import Feature
from postdicom_async.jobs.ends.storing import stored

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from types import TracebackType
    from uuid import UUID

    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.disk.sources import IdentifiedSource
    from postdicom_async.jobs.ends.end import ListedInstance, ListedStudy, Selection
    from postdicom_async.results import InstanceUids, Outcome, UploadReport
    from postdicom_async.transfer.outcomes import Outcomes


_UPLOADS = 2  # at once, each over several sockets: while one upload waits for its last answers, another sends


class CloudEnd:
    """An institution of an account as an `ends.End`. The end opens and closes the client, unless that is open already.

    Instances that the service reports as present are not sent again: they are PRESENT.

    Args:
        api: the account.
        name: the name to show; by default the router's origin.
        institution_uuid: the institution that will own the images, by UUID or name; by default the user's only one.
        folder_uuid: a folder to put their orders into.

    Attributes:
        name, identity, features: see `ends.End`.

    Raises:
        UsageError: an argument is wrong.
    """

    features: Feature = Feature.STORES | Feature.CONFIRMS

    def __init__(
        self,
        api: CloudApi,
        *,
        name: str | None = None,
        institution_uuid: UUID | str | None = None,
        folder_uuid: UUID | str | None = None,
    ) -> None:
        if not isinstance(api, CloudApi):
            raise UsageError("give a CloudApi(...)", argument="api")
        self._api = api
        self._institution = institution_uuid
        self._folder = folder_uuid
        self._opens = True
        self._turns = asyncio.Semaphore(_UPLOADS)
        address = api._router_url
        self.name: str = origin_of(address) if name is None else name
        where = [str(institution_uuid or ""), str(folder_uuid or ""), str(api._user or "")]
        self.identity: str = " ".join(["cloud", place_of(address), *map(str.lower, where)])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    async def __aenter__(self) -> Self:
        self._opens = not self._api._connection.is_open
        if self._opens:
            await self._api.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opens:
            await self._api.__aexit__(kind, error, trace)

    async def store(
        self, sources: AsyncIterator[IdentifiedSource], *, anonymize: Anonymization | None = None
    ) -> AsyncGenerator[Outcome, None]:
        """Store instances; see `ends.End.store`."""

        def upload(given: AsyncIterator[IdentifiedSource]) -> Outcomes[UploadReport]:
            return self._api.upload_each(
                given,
                institution_uuid=self._institution,
                folder_uuid=self._folder,
                anonymize=anonymize,
            )

        async with self._turns, aclosing(stored(sources, upload, keeps=True)) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def probe(self) -> None:
        """Ask for the account's folders.

        Raises:
            PostdicomError: the service does not work at present.
        """
        async for _ in self._api.folders.search():
            return

    # --- what it cannot -----------------------------------------------------------------------------------------------

    def studies(self, *, since: str = "", until: str = "") -> AsyncGenerator[list[ListedStudy], None]:
        """Refuse: the Cloud API is not searched by study."""
        raise _cannot("list studies")

    async def study(self, study: str) -> ListedStudy | None:
        """Refuse."""
        raise _cannot("list studies")

    def instances(self, study: str) -> AsyncGenerator[list[ListedInstance], None]:
        """Refuse."""
        raise _cannot("list instances")

    def open(self, wanted: Selection) -> AsyncGenerator[IdentifiedSource, None]:
        """Refuse."""
        raise _cannot("give images")

    async def delete(self, study: str, instances: Sequence[InstanceUids] | None) -> None:
        """Refuse."""
        raise _cannot("delete images")


def _cannot(what: str) -> UsageError:
    return UsageError(f"the Cloud API cannot {what}; name the archive by its DICOMweb address")
