"""The page with the vendor's method names; the same signatures where both APIs offer an operation."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import postdicom_async
from postdicom_async import CloudApi, PostDicom
from postdicom_async.postdicom.operations import OPERATIONS
from tests.cloud.forms import FORMS

PAGE = Path(postdicom_async.__file__).parents[1] / "docs" / "reference" / "vendor-names.md"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="installed without its documentation")

# The thirteen documented operations of the DICOMweb API.
DICOMWEB_API = {
    "createsharelink", "sharepatientorderwithurl", "createfolder", "searchfolder", "sharefolderwithurl",
    "addordertofolder", "assignordertouser", "assignordertousergroup", "createpatientorder",
    "getpatientorderproperties", "getdicomtagcontent", "getpatientorderlist", "deleteorder",
}  # fmt: skip

# The 47 documented methods of the JavaScript library, and the five that only its public copy has.
CLOUD_API = {
    "Initialize", "GetPatientOrderList", "GetPatientOrderListWithDateRange", "GetPatientOrderListWithBirthdate",
    "GetPatientOrderListInFolder", "GetPatientOrderProperties", "CreateFolder", "CreateFolderWithDescription",
    "GetFolderList", "DeleteFolder", "AddOrderToFolder", "RemoveOrderFromFolder", "GetFolderViewUrl", "GetViewUrl",
    "DeleteOrder", "CreateOrderWithMinimumParameters", "CreateOrderWithFullParameters",
    "CreateOrderWithFullParameters2", "CreateOrderWithJSON", "CreateOrderGroup", "AddOrdersToOrderGroup",
    "RemoveOrdersFromGroup", "AssignPatientOrderToUser", "AssignPatientOrderToUserGroup",
    "UnassignPatientOrderFromUser", "UnassignPatientOrderFromUserGroup", "AssignPatientOrderToLocation",
    "GetAccountFlagDictionary", "SetFlagToPatientOrder", "ShareFolderWithEmail", "ShareFolderWithURL",
    "ShareFolderToUploadWithEmail", "ShareFolderToUploadWithUrl", "ShareFolderWithAccountUser",
    "ShareFolderWithAccountUserGroup", "SharePatientOrder", "CreateQuickShareLink",
    "SharePatientOrderWithExpireDate", "CreateQuickShareLinkWithExpireDate", "GetUserGroupList", "GetDicomNodeList",
    "ReadDicomFiles", "UploadDicomFiles", "UploadDicomFilesIntoFolder", "UploadDicomFilesWithAnonymization",
    "UploadDicomFilesIntoFolderWithAnonymization", "UploadDocumentFiles",
}  # fmt: skip
UNDOCUMENTED = {
    "GetViewUrlWithPatientName", "GetViewUrlWithPatientNameAndBirthDate", "UpdateFolderWithJSON", "GetContactList",
    "GetUserList",
}  # fmt: skip
NO_REQUEST_OF_ITS_OWN = {
    "Initialize", "ReadDicomFiles", "UploadDicomFiles", "UploadDicomFilesIntoFolder",
    "UploadDicomFilesWithAnonymization", "UploadDicomFilesIntoFolderWithAnonymization", "UploadDocumentFiles",
}  # fmt: skip
NAMESPACES = ("orders", "folders", "shares", "view", "groups", "flags", "nodes", "users")


def rows() -> Iterator[tuple[str, set[str], set[str]]]:
    """Yield our name and the vendor's in both APIs."""
    table = PAGE.read_text(encoding="utf-8").partition("| here | DICOMweb API | Cloud API |\n|---|---|---|\n")[2]
    for line in table.partition("\n\n")[0].splitlines():
        here, dicomweb, cloud = (set(re.findall(r"`([^`]+)`", cell)) for cell in line.strip("|").split("|"))
        yield next(iter(here - {"async with"})), dicomweb, cloud


def test_all_are_counted() -> None:
    assert (len(DICOMWEB_API), len(CLOUD_API), len(CLOUD_API | UNDOCUMENTED)) == (13, 47, 52)
    assert {operation.path.strip("/") for operation in OPERATIONS.values()} == DICOMWEB_API


def test_every_vendor_name_is_in_the_table() -> None:
    dicomweb = set().union(*(names for _, names, _ in rows()))
    cloud = set().union(*(names for _, _, names in rows()))
    assert dicomweb == DICOMWEB_API
    assert cloud == CLOUD_API | UNDOCUMENTED


def test_every_request_is_tested_under_its_vendor_name() -> None:
    assert {form.vendor for form in FORMS} == (CLOUD_API | UNDOCUMENTED) - NO_REQUEST_OF_ITS_OWN


def client(kind: type[Any]) -> Any:
    if kind is CloudApi:
        key = "11111111-1111-4111-8111-111111111111"
        return CloudApi(key, key, router_url="https://router.example/")
    return PostDicom("https://account.example/dicomweb", "user", "password")


def method(owner: Any, name: str) -> Callable[..., Any] | None:
    for part in name.split("."):
        owner = getattr(owner, part, None)
    return owner if callable(owner) else None


def test_every_name_here_exists_where_the_table_says() -> None:
    cloud, dicomweb = client(CloudApi), client(PostDicom)
    for name, in_dicomweb, in_cloud in rows():
        if name in postdicom_async.__all__:
            continue
        assert (method(cloud, name) is not None) == bool(in_cloud), name
        if "." in name:
            assert (method(dicomweb, name) is not None) == bool(in_dicomweb), name


def methods(api: Any) -> set[str]:
    """Return every public method in the namespaces of a client."""
    return {
        f"{space}.{name}"
        for space in NAMESPACES
        if hasattr(api, space)
        for name, _ in inspect.getmembers(getattr(api, space), inspect.isroutine)
        if not name.startswith("_")
    }


def test_every_method_is_in_the_table() -> None:
    listed = {name for name, _, _ in rows()}
    assert methods(client(CloudApi)) | methods(client(PostDicom)) <= listed


SHARED = sorted(methods(client(CloudApi)) & methods(client(PostDicom)))


def test_most_are_shared() -> None:
    assert len(SHARED) == 12


@pytest.mark.parametrize("name", SHARED)
def test_the_same_signature_in_both_apis(name: str) -> None:
    """What one API asks for the other takes, under the same name, at the same place and with the same result."""
    cloud, dicomweb = (inspect.signature(method(client(kind), name) or print) for kind in (CloudApi, PostDicom))
    assert cloud.return_annotation == dicomweb.return_annotation
    for parameter in dicomweb.parameters.values():
        same = cloud.parameters[parameter.name]
        assert same.kind is parameter.kind
        assert set(parameter.annotation.split(" | ")) <= set(same.annotation.split(" | "))
        assert same.default in (parameter.default, None)
    more = [cloud.parameters[name] for name in cloud.parameters.keys() - dicomweb.parameters.keys()]
    assert all(extra.kind is extra.KEYWORD_ONLY and extra.default is None for extra in more)
    places = [p for p in cloud.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in places] == [
        p.name for p in dicomweb.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD
    ]


async def test_code_moves_by_changing_the_client() -> None:
    """The same function against both clients of one archive."""
    from postdicom_async.emulator import EmbeddedArchive

    async def use(archive: Any, institution: str) -> tuple[Any, ...]:
        order = await archive.orders.create(
            institution_uuid=institution,
            patient_name="Doe^Jane",
            patient_id="4711",
            patient_birthdate="1970-01-31",
            modality="CT",
        )
        folder = await archive.folders.create("Second opinion", description="Monday")
        await archive.folders.add_order(order.patient_order_uuid, [folder.folder_uuid])
        seen = await archive.orders.properties(institution, order.patient_order_uuid)
        (found,) = await archive.folders.search(name="Second", with_orders=True).all()
        link = await archive.folders.share(folder.folder_uuid, expires="2999-12-31", password="s3cret")
        quick = await archive.shares.create_link([order.patient_order_uuid], expires="2999-12-31")
        await archive.orders.delete(institution, order.patient_order_uuid)
        return seen.patient_name, found.folder_name, bool(link.url), bool(quick.url)

    results = []
    for name in ("dicomweb", "cloud"):
        async with EmbeddedArchive() as archive:
            api: Any = PostDicom(archive.url, *(archive.auth or ("", "")))
            if name == "cloud":
                api = CloudApi(
                    archive.cloud_api_key,
                    archive.cloud_account_key,
                    user=archive.cloud_user_uuid,
                    router_url=archive.router_url,
                )
            async with api:
                results.append(await use(api, archive.institution_uuid))
    assert results == [("Doe^Jane", "Second opinion", True, True)] * 2
