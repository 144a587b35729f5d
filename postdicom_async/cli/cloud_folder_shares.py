"""``postdicom cloud folders share…``: folders shared by links, by e-mail, and with the users of the account."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

from postdicom_async.cli.cloud_connection import CloudAccount, CloudInstitution
from postdicom_async.cli.folders import FolderUuid, Shown
from postdicom_async.cli.options import Common
from postdicom_async.cli.password import find_share_password
from postdicom_async.cli.share import WithPassword
from postdicom_async.cli.vendor import AsJson, option, require_one, run_call, tell_done, tell_link

if TYPE_CHECKING:
    from postdicom_async import CloudApi, VendorAnswer

__all__ = ["Mail", "share", "share_by_email", "share_to_upload", "share_to_upload_by_email", "share_with"]

_Expires: TypeAlias = Annotated[str, option("expires", "The last day.", "YYYY-MM-DD")]


@dataclass(frozen=True)
class Mail:
    """Where the link goes, and where its password does."""

    email: Annotated[str, option("email", "Who gets the link.", "ADDRESS")]
    password_email: Annotated[
        str | None, option("password-email", "Who gets the password. Without it, the same address.", "ADDRESS")
    ] = None


@dataclass(frozen=True)
class Shared:
    """What is shared, until when, and whether a password is asked for."""

    folder_uuid: FolderUuid
    expires: _Expires
    with_password: WithPassword = False

    def password(self) -> str | None:
        """Return the link's password, None for none.

        Raises:
            UsageError: there should be one, and there is none or nobody to ask.
        """
        return find_share_password(wanted=self.with_password)


def share(shared: Shared, shown: Shown, account: CloudAccount, common: Common, as_json: AsJson = False) -> int:
    """Share a folder by a link, and write its address.

    The link's password is POSTDICOM_SHARE_PASSWORD, or asked for with --with-password. Without either, whoever has the
    address may look.
    """
    api, password = account.cloud(), shared.password()
    link = run_call(
        api,
        lambda api: api.folders.share(shared.folder_uuid, expires=shared.expires, password=password, **asdict(shown)),
    )
    return tell_link(link, protected=password is not None, as_json=as_json, quiet=common.quiet)


def share_by_email(
    shared: Shared, mail: Mail, shown: Shown, account: CloudAccount, common: Common, as_json: AsJson = False
) -> int:
    """Send a link to a folder by e-mail.

    The link's password is POSTDICOM_SHARE_PASSWORD, or asked for with --with-password; the service sends it too.
    """
    api, password = account.cloud(), shared.password()
    answer = run_call(
        api,
        lambda api: api.folders.share_by_email(
            shared.folder_uuid, expires=shared.expires, password=password, **asdict(mail), **asdict(shown)
        ),
    )
    return tell_done(answer, "link sent", as_json=as_json, quiet=common.quiet)


def share_to_upload(
    shared: Shared,
    shown: Shown,
    account: CloudAccount,
    common: Common,
    institution_uuid: CloudInstitution = None,
    as_json: AsJson = False,
) -> int:
    """Make a link by which images can be uploaded into a folder, and write its address.

    The images will belong to the institution. The link's password is POSTDICOM_SHARE_PASSWORD, or asked for with
    --with-password. Without either, whoever has the address may upload.
    """
    api, password = account.cloud(), shared.password()
    link = run_call(
        api,
        lambda api: api.folders.share_to_upload(
            shared.folder_uuid,
            expires=shared.expires,
            password=password,
            institution_uuid=institution_uuid,
            **asdict(shown),
        ),
    )
    remark = "without a password: whoever has the address may upload"
    return tell_link(link, protected=password is not None, remark=remark, as_json=as_json, quiet=common.quiet)


def share_to_upload_by_email(
    shared: Shared,
    mail: Mail,
    shown: Shown,
    account: CloudAccount,
    common: Common,
    institution_uuid: CloudInstitution = None,
    as_json: AsJson = False,
) -> int:
    """Send a link by which images can be uploaded into a folder by e-mail.

    The images will belong to the institution. The link's password is POSTDICOM_SHARE_PASSWORD, or asked for with
    --with-password; the service sends it too.
    """
    api, password = account.cloud(), shared.password()
    answer = run_call(
        api,
        lambda api: api.folders.share_to_upload_by_email(
            shared.folder_uuid,
            expires=shared.expires,
            password=password,
            institution_uuid=institution_uuid,
            **asdict(mail),
            **asdict(shown),
        ),
    )
    return tell_done(answer, "link sent", as_json=as_json, quiet=common.quiet)


def share_with(
    folder_uuid: FolderUuid,
    expires: _Expires,
    account: CloudAccount,
    common: Common,
    user_uuids: Annotated[
        list[str] | None, option("user-uuids", "A user to share it with. Give it once for each.", "UUID")
    ] = None,
    user_group_uuids: Annotated[
        list[str] | None, option("user-group-uuids", "A group to share it with. Give it once for each.", "UUID")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Share a folder with users or with user groups of the account."""
    require_one(user_uuids=user_uuids, user_group_uuids=user_group_uuids)

    async def work(api: CloudApi) -> VendorAnswer:
        if user_uuids:
            return await api.folders.share_with_users(folder_uuid, user_uuids, expires=expires)
        return await api.folders.share_with_groups(folder_uuid, user_group_uuids or [], expires=expires)

    answer = run_call(account.cloud(), work)
    return tell_done(answer, "folder shared", as_json=as_json, quiet=common.quiet)
