"""The lists the Cloud API tells of the account: users, groups, nodes, contacts, flags."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from postdicom_async.emulator.cloud.state import users_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from postdicom_async.emulator.cloud.parameters import Parameters
    from postdicom_async.emulator.cloud.state import Cloud

__all__ = ["FLAGS", "CloudLists"]

FLAGS: Mapping[int, tuple[str, Mapping[int, str]]] = MappingProxyType(
    {1: ("Reading", {1: "Unread", 2: "Read"}), 2: ("Priority", {1: "Routine", 2: "Urgent", 3: "Emergency"})}
)
"""Names of the groups of flags and of the flags in them, by their numbers."""

_NODES = (
    {
        "DicomNodeUuid": "1f0e5b6a-3c1d-4e57-9a10-000000000301",
        "DicomNodeName": "Sample Scanner",
        "AETitle": "SAMPLE",
        "Modality": "CT",
    },
)
_CONTACTS = (
    {
        "ContactUuid": "1f0e5b6a-3c1d-4e57-9a10-000000000401",
        "FullName": "Sample Contact",
        "Email": "contact@example.org",
    },
)


class CloudLists:
    """What general requests list; their fields are this archive's choice."""

    def __init__(self, cloud: Cloud) -> None:
        self._options = cloud.context.options

    def users(self, _given: Parameters) -> dict[str, Any]:
        """Return the users of the account."""
        return {"UserList": users_of(self._options.users)}

    def user_groups(self, _given: Parameters) -> dict[str, Any]:
        """Return the groups of users."""
        groups = self._options.user_groups.items()
        return {"UserGroupList": [{"UserGroupUuid": uuid, "UserGroupName": name} for uuid, name in groups]}

    def dicom_nodes(self, _given: Parameters) -> dict[str, Any]:
        """Return the equipment."""
        return {"DicomNodeList": [dict(node) for node in _NODES]}

    def contacts(self, _given: Parameters) -> dict[str, Any]:
        """Return the contacts."""
        return {"ContactList": [dict(contact) for contact in _CONTACTS]}

    def flags(self, _given: Parameters) -> dict[str, Any]:
        """Return the groups of flags with their flags."""
        groups = [
            {
                "GroupId": group,
                "GroupName": name,
                "FlagList": [{"FlagId": flag, "FlagName": called} for flag, called in flags.items()],
            }
            for group, (name, flags) in FLAGS.items()
        ]
        return {"FlagGroupList": groups}
