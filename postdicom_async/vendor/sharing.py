"""Upload files, put their orders into a folder, make a link: the steps that both PostDICOM APIs share.

Nothing undoes a step. So when one fails, or is cancelled, what the steps before have made is told, and nothing is done
twice when the same call is made again: what is stored is skipped, and an order is in a folder or it is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias
from uuid import UUID

from postdicom_async.errors import OutcomeUnknown, PostdicomError, ProtocolError, UsageError
from postdicom_async.face import public_face
from postdicom_async.results import Status, UploadReport
from postdicom_async.vendor.values import is_given

if TYPE_CHECKING:
    from postdicom_async.vendor.answers import ShareLink
    from postdicom_async.vendor.caller import VendorCaller

Step: TypeAlias = Literal["upload", "orders", "folder", "share", ""]
"""Where `SharedUpload` ended: at the files, at finding their orders, at the folder, at the link; empty at the end."""

_THERE = frozenset({Status.STORED, Status.WARNED, Status.DUPLICATE, Status.PRESENT})
_NOTHING: Mapping[str, Any] = {}
_ANY_UUID = "00000000-0000-0000-0000-000000000000"  # to check the other arguments before there is one
TITLE = "share uploaded files"

_AGAIN = "to finish: make the same call again"
_LOOK_FIRST = f"{_AGAIN}, which makes the folder; look with folders.search whether it is there already"
_ADD = "to finish: folders.add_order(order, [shared.folder_uuid]) for each of shared.patient_order_uuids"
_SHARE = "folders.share(shared.folder_uuid, expires=...), with the password and title, makes the link"


@public_face
@dataclass(frozen=True, slots=True)
class SharedUpload:
    """What ``upload_and_share`` has made, also when it did not come to its end.

    Cancelled after the upload, the call tells it by the attribute ``shared`` of the ``CancelledError``, which is the
    ``__cause__`` of the ``TimeoutError`` of ``asyncio.timeout``.

    Attributes:
        report: what became of each file.
        patient_order_uuids: the orders that hold them.
        folder_uuid: the folder, new or given; None without one, or where it was not made.
        in_folder: the orders that were put into it.
        link: the link; None where it was not made.
        step: the step that failed, empty if none did.
        problem: why, None if nothing failed. `OutcomeUnknown` says that this step may have been done all the same: look
            before it is done again. Its traceback ends with `to_finish`.
        new_folder: whether a new folder was asked for, which the link is to open.
    """

    report: UploadReport
    patient_order_uuids: tuple[str, ...] = ()
    folder_uuid: str | None = None
    in_folder: tuple[str, ...] = ()
    link: ShareLink | None = field(default=None, repr=False)
    step: Step = ""
    problem: PostdicomError | None = None
    new_folder: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if self.problem is not None:
            self.problem.add_note(self.to_finish)

    @property
    def to_finish(self) -> str:
        """The calls that do what is missing, as text; empty if nothing is. An order is in a folder once at most."""
        if not self.step:
            return ""
        if self.folder_uuid is None or not self.new_folder:
            return _LOOK_FIRST if self.new_folder and self.step == "folder" else _AGAIN
        return f"to finish: {_SHARE}" if self.step == "share" else f"{_ADD}; {_SHARE}"

    @property
    def url(self) -> str | None:
        """The address of the link, None where there is none."""
        return None if self.link is None else self.link.url

    @property
    def ok(self) -> bool:
        """Whether everything was done: every DICOM file is stored, and there is a link to all of them."""
        return self.problem is None

    def raise_for_failures(self) -> None:
        """Raise `problem`, if there is one."""
        if self.problem is not None:
            raise self.problem


class SharesThings(Protocol):
    """Either client."""

    @property
    def folders(self) -> Any:
        """With ``create``, ``add_order`` and ``share``."""
        ...

    @property
    def shares(self) -> Any:
        """With ``create_link``."""
        ...


@dataclass(frozen=True, slots=True)
class Sharing:
    """How files are to be shared: the arguments of ``upload_and_share`` that are not about the upload."""

    expires: date | str
    folder: str | None = None
    folder_uuid: UUID | str | None = None
    password: str | None = field(default=None, repr=False)
    title: str | None = None
    description: str | None = None
    downloadable: bool = False

    @property
    def of_folder(self) -> dict[str, Any]:
        """The arguments of the link to a folder."""
        return {**self.of_orders, "title": self.title, "description": self.description}

    @property
    def of_orders(self) -> dict[str, Any]:
        """The arguments of the link to orders."""
        return {"expires": self.expires, "password": self.password, "downloadable": self.downloadable}

    def require_usable(self, caller: VendorCaller[Any]) -> None:
        """Check everything before anything is sent.

        Raises:
            UsageError: an argument is missing or malformed, or does not go with another.
        """
        if not is_given(self.expires):
            raise UsageError("must be given", argument="expires", operation=TITLE)
        if self.folder is not None and self.folder_uuid is not None:
            raise UsageError("a new folder, or the UUID of one; not both", argument="folder", operation=TITLE)
        if self.folder is not None:
            self._check(caller, "folders.create", {"name": self.folder})
            self._check(caller, "folders.share", {"folder_uuid": _ANY_UUID, **self.of_folder})
            return
        if named := next((name for name in ("title", "description") if getattr(self, name) is not None), None):
            raise UsageError("only the link to a new folder has one; give folder=", argument=named, operation=TITLE)
        if self.folder_uuid is not None:
            orders = {"patient_order_uuid": _ANY_UUID, "folder_uuids": [self.folder_uuid]}
            self._check(caller, "folders.add_order", orders)
        self._check(caller, "shares.create_link", {"patient_order_uuids": [_ANY_UUID], **self.of_orders})

    def _check(self, caller: VendorCaller[Any], name: str, given: Mapping[str, object]) -> None:
        operation = caller.operation(name)
        known = {one.argument for one in operation.parameters}
        if is_given(given.get("password")) and "password" not in known:  # dropped silently, it would open to everybody
            problem = "this API has no password for links to orders; give folder=, whose link has one"
            raise UsageError(problem, argument="password", operation=TITLE)
        caller.checked(operation, {argument: value for argument, value in given.items() if argument in known})


async def shared(
    sharing: Sharing,
    report: UploadReport,
    account: SharesThings,
    *,
    orders: Callable[[], Awaitable[tuple[str, ...]]] | None = None,
    of_order: Mapping[str, Any] = _NOTHING,
) -> SharedUpload:
    """Do what comes after the upload, as far as it goes; see `SharedUpload`.

    Args:
        sharing: how.
        report: of the upload.
        account: the client.
        orders: finds the orders that hold the files, if the report does not name them.
        of_order: what else the client wants to know when it puts an order into a folder.
    """
    made: dict[str, Any] = {"step": "upload", "new_folder": sharing.folder is not None}
    problem: PostdicomError | None = None
    try:
        report.raise_for_failures()
        if not report.counts.keys() & _THERE:
            raise UsageError("there is nothing to share: no file is DICOM", argument="sources", operation=TITLE)
        made["step"] = "orders"
        made["patient_order_uuids"] = report.patient_order_uuids if orders is None else await orders()
        made["step"] = "folder"
        await _into_folder(sharing, made, account, of_order)
        made["step"] = "share"
        made["link"] = await _link(sharing, made, account)
        made["step"] = ""
    except PostdicomError as error:
        problem = error
    except asyncio.CancelledError as cancelled:
        cancelled.shared = SharedUpload(report, problem=_cut_short(made), **made)  # type: ignore[attr-defined]
        raise
    return SharedUpload(report, problem=problem, **made)


def _cut_short(made: Mapping[str, Any]) -> PostdicomError:
    """Return how a step stands that was cancelled; finding the orders changes nothing."""
    if made["step"] == "orders":
        return PostdicomError("cancelled", operation=TITLE, temporary=True)
    return OutcomeUnknown("cancelled; this step may have been done all the same", operation=TITLE)


async def _into_folder(
    sharing: Sharing, made: dict[str, Any], account: SharesThings, of_order: Mapping[str, Any]
) -> None:
    if sharing.folder is not None:
        made["folder_uuid"] = (await account.folders.create(sharing.folder)).folder_uuid
    elif sharing.folder_uuid is not None:
        made["folder_uuid"] = str(sharing.folder_uuid)
    else:
        return
    for order in made["patient_order_uuids"]:
        await account.folders.add_order(order, [made["folder_uuid"]], **of_order)
        made["in_folder"] = (*made.get("in_folder", ()), order)


async def _link(sharing: Sharing, made: dict[str, Any], account: SharesThings) -> ShareLink:
    """Make the link and return it."""
    link: ShareLink
    if sharing.folder is not None:
        link = await account.folders.share(made["folder_uuid"], **sharing.of_folder)
    else:  # a folder that was there before may hold what is not to be shared
        link = await account.shares.create_link(made["patient_order_uuids"], **sharing.of_orders)
    if link.url is None:
        raise ProtocolError("the service made a link and did not say where it is", operation=TITLE)
    return link
