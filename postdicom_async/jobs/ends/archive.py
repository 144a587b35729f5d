"""A DICOMweb archive of either dialect as an end of a job: all that `ends.End` asks for.

It adds no transfer engine of its own: instances are retrieved by `Opening` and stored by `Upload`. Lists are searches,
and since the job acts on their results, a result that contradicts the query is an error. All chunks of a job share the
two concurrency policies kept here, one for retrieve and one for store requests.
"""

from __future__ import annotations

from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, Self

from postdicom_async.dicomweb.client import DicomWeb
from postdicom_async.dicomweb.dialects import Route
from postdicom_async.dicomweb.filters import filter_pairs
from postdicom_async.dicomweb.listing import list_as_counted
from postdicom_async.dicomweb.opening import Opening, Retrieves
from postdicom_async.dicomweb.retrieve import Target
from postdicom_async.dicomweb.studies import Studies, ask_study, probe
from postdicom_async.dicomweb.upload import Stores, Upload
from postdicom_async.errors import NotFound, UsageError
from postdicom_async.http.endpoint import origin_of, place_of
from postdicom_async.jobs.ends.end import Feature, ListedInstance, ListedStudy
from postdicom_async.jobs.ends.storing import stored
from postdicom_async.transfer.arrivals import Arrivals
from postdicom_async.transfer.outcomes import Gathered, Outcomes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from types import TracebackType

    from postdicom_async.dicom.anonymize import Anonymization
    from postdicom_async.disk.sources import IdentifiedSource
    from postdicom_async.events import OnEvent
    from postdicom_async.jobs.ends.end import Selection
    from postdicom_async.results import InstanceUids, Outcome, UploadReport


_NOT_AS_STORED = "it takes only requests that let it change the transfer syntax: images may come in another than stored"
_LACKS_UNDATED = "it cuts its lists of studies: some without a study date may not have been found"


class ArchiveEnd:
    """An archive as an `ends.End`. A client that is not open is opened and closed with it.

    Args:
        client: the archive.
        name: the name to show; by default the archive's origin.
        filters: DICOM keywords or tags and the values that studies must match, as for ``search_for_studies``.

    Attributes:
        name, identity, features: see `ends.End`.
        notes: remarks on its answers for people, a line each; the run that reports them removes them.

    Raises:
        UsageError: an argument is wrong.
    """

    def __init__(self, client: DicomWeb, *, name: str | None = None, filters: Mapping[str, Any] | None = None) -> None:
        if not isinstance(client, DicomWeb):
            raise UsageError("give a DicomWeb(...)", argument="client")
        self._take(client)
        self._opens = False
        self._filters = tuple(filter_pairs(filters))
        dialect = self._retrieval.dialect
        self.name: str = origin_of(self._session.url) if name is None else name
        self.identity: str = place_of(self._session.url)
        self.features: Feature = Feature.LISTS | Feature.OPENS | Feature.STORES | Feature.CONFIRMS | Feature.PASSES
        if Route.STUDY in dialect.routes:
            self.features |= Feature.UNLISTED
        if Route.STUDY in dialect.routes and Route.INSTANCE in dialect.routes:
            self.features |= Feature.DELETES
        self.notes: list[str] = []
        self._noted: set[str] = set()

    def _take(self, client: DicomWeb) -> None:
        self._client = client
        self._retrieval = client.internals
        self._session = self._retrieval.session
        self._stores = Stores(self._session.settings.limits.parallel_stores)
        self._retrieves = Retrieves(self._retrieval)

    def pace_requests(self, before_request: Callable[[], Awaitable[None]], on_event: OnEvent | None = None) -> None:
        """Await ``before_request`` before each request of this end, to limit its rate; call it before opening.

        ``on_event`` is told of its requests, unless the client's own settings name somebody.
        """
        told = self._client.settings.on_event or on_event
        self._take(self._client.with_options(before_request=before_request, on_event=told))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    async def __aenter__(self) -> Self:
        self._opens = not self._session.is_open
        if self._opens:
            await self._client.__aenter__()
        self._retrieves = Retrieves(self._retrieval)  # on the connections that are open now
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opens:
            await self._client.__aexit__(kind, error, trace)

    # --- lists --------------------------------------------------------------------------------------------------------

    async def studies(self, *, since: str = "", until: str = "") -> AsyncGenerator[list[ListedStudy], None]:
        """Yield every study within the filters; see `ends.End.studies`."""
        studies = Studies(self._retrieval, self._filters, since, until)
        async with aclosing(studies.each()) as slices:
            async for some in slices:
                yield [ListedStudy(*one) for one in some]
        if studies.may_lack_undated:
            self._note(_LACKS_UNDATED)

    async def study(self, study: str) -> ListedStudy | None:
        """Return the archive's entry for one study, whether or not it matches the filters."""
        found = await ask_study(self._retrieval, study)
        return None if found is None else ListedStudy(*found)

    async def instances(self, study: str) -> AsyncGenerator[list[ListedInstance], None]:
        """Yield every instance of a study, series by series.

        Archives have several ways to list instances, and not all work everywhere. The first list with as many entries
        as the archive counts is taken; a shorter one is incomplete.

        Raises:
            ProtocolError: every list is shorter than the archive's own count.
            PostdicomError: see `ends.End.instances`.
        """
        found = await ask_study(self._retrieval, study)
        if found is None:
            return
        first = [found.instances]

        async def count() -> int | None:
            if first:
                return first.pop()
            again = await ask_study(self._retrieval, study)
            return 0 if again is None else again.instances

        with closing(Arrivals(study, Gathered(keeps_all=False))) as arrivals:
            await list_as_counted(self._retrieval, Target(study), arrivals, count)
            async for some in arrivals.missing_slices():
                yield [ListedInstance(uids.series_instance_uid, uids.sop_instance_uid) for uids in some]

    async def probe(self) -> None:
        """Search for one study."""
        await probe(self._retrieval)

    # --- instances ----------------------------------------------------------------------------------------------------

    async def open(self, wanted: Selection) -> AsyncGenerator[IdentifiedSource, None]:
        """Retrieve the wanted instances; see `ends.End.open`."""
        opening = Opening(
            self._retrieves,
            Target(wanted.study, wanted.series),
            ((one.series, one.uid) for one in wanted.instances),
            whole=wanted.whole,
            once=wanted.once,
            probe=self.probe,
        )
        async with aclosing(opening.each()) as each:
            async for one in each:
                yield one
                del one
        if not self._retrieval.as_stored:
            self._note(_NOT_AS_STORED)

    def _note(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self.notes.append(text)

    async def store(
        self, sources: AsyncIterator[IdentifiedSource], *, anonymize: Anonymization | None = None
    ) -> AsyncGenerator[Outcome, None]:
        """Store instances; see `ends.End.store`. No two sources may share a SOP Instance UID."""

        def upload(given: AsyncIterator[IdentifiedSource]) -> Outcomes[UploadReport]:
            async def engine(gathered: Gathered) -> UploadReport:
                upload = Upload(
                    self._retrieval,
                    study_instance_uid=None,
                    anonymize=anonymize,
                    on_progress=None,
                    gathered=gathered,
                    stores=self._stores,
                    distinct=True,
                )
                return await upload.run(given)

            return Outcomes(engine)

        async with aclosing(stored(sources, upload, keeps=anonymize is not None, probe=self.probe)) as outcomes:
            async for outcome in outcomes:
                yield outcome

    # --- delete -------------------------------------------------------------------------------------------------------

    async def delete(self, study: str, instances: Sequence[InstanceUids] | None) -> None:
        """Delete instances of a study, or all of it; what the archive's own list lacks counts as deleted."""
        if instances is None:
            await self._delete_study(study)
            return
        refused: dict[str, NotFound] = {}
        for uids in instances:
            try:
                await self._client.delete_instance(*uids)
            except NotFound as error:
                refused[uids.sop_instance_uid] = error
        if refused:
            async with aclosing(self.instances(study)) as slices:
                async for some in slices:
                    for one in some:
                        if one.uid in refused:
                            raise refused[one.uid]

    async def _delete_study(self, study: str) -> None:
        problem: NotFound | None = None
        try:
            await self._client.delete_study(study)
        except NotFound as error:
            problem = error
        if problem is not None and await self.study(study) is not None:
            raise problem  # it is not the study that is missing, but the route to delete it
