"""``postdicom cloud share`` and ``view``: links to patient orders, and links that open the viewer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from os import environ
from typing import TYPE_CHECKING, Annotated

from postdicom_async import UsageError
from postdicom_async.cli import output
from postdicom_async.cli.cloud_connection import CloudAccount
from postdicom_async.cli.cloud_folder_shares import Mail
from postdicom_async.cli.folders import FolderUuid
from postdicom_async.cli.options import Common
from postdicom_async.cli.orders import Order
from postdicom_async.cli.share import Downloadable, OrderUuids
from postdicom_async.cli.vendor import AsJson, option, run_call, tell_done, tell_link

if TYPE_CHECKING:
    from postdicom_async import ShareLink

__all__ = ["email", "folder", "link", "order", "patient"]


@dataclass(frozen=True)
class Shared:
    """What is shared, and until when."""

    patient_order_uuids: OrderUuids
    expires: Annotated[
        str | None, option("expires", "The last day of the link. Without it, for ever.", "YYYY-MM-DD")
    ] = None
    downloadable: Downloadable = False


def link(shared: Shared, account: CloudAccount, common: Common, as_json: AsJson = False) -> int:
    """Create a link to patient orders, and write its address.

    The Cloud API has no password for such links: whoever has the address may look. Share a folder, or by e-mail, where
    there is to be one.
    """
    if environ.get("POSTDICOM_SHARE_PASSWORD") is not None:
        raise UsageError(
            "POSTDICOM_SHARE_PASSWORD is set, but the Cloud API has no password for links to orders; "
            "use share email or folders share, or unset it"
        )
    made = run_call(account.cloud(), lambda api: api.shares.create_link(**asdict(shared)))
    return tell_link(made, as_json=as_json, quiet=common.quiet)


def email(shared: Shared, mail: Mail, account: CloudAccount, common: Common, as_json: AsJson = False) -> int:
    """Send a link to patient orders by e-mail.

    The service makes a password for the link, and sends it too.
    """
    if environ.get("POSTDICOM_SHARE_PASSWORD") is not None and not common.quiet:
        output.note("POSTDICOM_SHARE_PASSWORD is not used: the service makes a password of its own")
    answer = run_call(account.cloud(), lambda api: api.shares.share_by_email(**asdict(shared), **asdict(mail)))
    return tell_done(answer, "link sent", as_json=as_json, quiet=common.quiet)


# --- links that open the viewer -------------------------------------------------------------------------------------


def order(patient_order_uuid: Order, account: CloudAccount, common: Common, as_json: AsJson = False) -> int:
    """Write the address that opens the viewer with a patient order.

    It works only from the IP address that asked for it.
    """
    made = run_call(account.cloud(), lambda api: api.view.order(patient_order_uuid))
    return _tell_view(made, as_json=as_json, quiet=common.quiet)


def patient(
    patient_name: Annotated[str, option("patient-name", "The patient's name, as DOE^JANE.")],
    account: CloudAccount,
    common: Common,
    patient_birthdate: Annotated[
        str | None, option("patient-birthdate", "The patient's day of birth.", "YYYY-MM-DD")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Write the address that opens the viewer with a patient's orders.

    It works only from the IP address that asked for it.
    """
    made = run_call(account.cloud(), lambda api: api.view.patient(patient_name, patient_birthdate=patient_birthdate))
    return _tell_view(made, as_json=as_json, quiet=common.quiet)


def folder(folder_uuid: FolderUuid, account: CloudAccount, common: Common, as_json: AsJson = False) -> int:
    """Write the address that opens the viewer with a folder.

    It works only from the IP address that asked for it.
    """
    made = run_call(account.cloud(), lambda api: api.view.folder(folder_uuid))
    return _tell_view(made, as_json=as_json, quiet=common.quiet)


def _tell_view(made: ShareLink, *, as_json: bool, quiet: bool) -> int:
    remark = "works only from the IP address that asked for it"
    return tell_link(made, as_json=as_json, quiet=quiet, remark=remark, words="the service answered")
