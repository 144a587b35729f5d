"""``postdicom share``, ``postdicom cloud share`` and ``view``: links to patient orders, and to the viewer."""

from __future__ import annotations

from os import environ

from postdicom_async import UsageError
from postdicom_async.cli import output
from postdicom_async.cli.vendor import OperationCall, tell_done, tell_link, vendor_command


@vendor_command("shares.share_orders")
def orders(call: OperationCall) -> int:
    """Share patient orders by a link (sharepatientorderwithurl), and write its address.

    The link's password is POSTDICOM_SHARE_PASSWORD, or asked for with --with-password. Without either, whoever has the
    address may look.
    """
    return tell_link(call)


@vendor_command("shares.create_link")
def link(call: OperationCall) -> int:
    """Create a link to patient orders (createsharelink), and write its address.

    The link's password is POSTDICOM_SHARE_PASSWORD, or asked for with --with-password. Without either, whoever has the
    address may look.
    """
    return tell_link(call)


@vendor_command("shares.create_link")
def link_without_password(call: OperationCall) -> int:
    """Create a link to patient orders, and write its address.

    The Cloud API has no password for such links: whoever has the address may look. Share a folder, or by e-mail, where
    there is to be one.
    """
    if environ.get("POSTDICOM_SHARE_PASSWORD") is not None:
        raise UsageError(
            "POSTDICOM_SHARE_PASSWORD is set, but the Cloud API has no password for links to orders; "
            "use share email or folders share, or unset it"
        )
    return tell_link(call)


@vendor_command("shares.share_by_email")
def email(call: OperationCall) -> int:
    """Send a link to patient orders by e-mail.

    The service makes a password for the link, and sends it too.
    """
    if environ.get("POSTDICOM_SHARE_PASSWORD") is not None and not call.quiet:
        output.note("POSTDICOM_SHARE_PASSWORD is not used: the service makes a password of its own")
    return tell_done(call, "link sent")


# --- links that open the viewer -------------------------------------------------------------------------------------


@vendor_command("view.order")
def view_order(call: OperationCall) -> int:
    """Write the address that opens the viewer with a patient order.

    It works only from the IP address that asked for it.
    """
    return _tell_view(call)


@vendor_command("view.patient")
def view_patient(call: OperationCall) -> int:
    """Write the address that opens the viewer with a patient's orders.

    It works only from the IP address that asked for it.
    """
    return _tell_view(call)


@vendor_command("view.folder")
def view_folder(call: OperationCall) -> int:
    """Write the address that opens the viewer with a folder.

    It works only from the IP address that asked for it.
    """
    return _tell_view(call)


def _tell_view(call: OperationCall) -> int:
    return tell_link(call, "works only from the IP address that asked for it", words="the service answered")
