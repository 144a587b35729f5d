"""The account of a Cloud API session: its users, and the institutions each may work in (JavaScript library). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar
from uuid import UUID

from postdicom_async.errors import UsageError
from postdicom_async.vendor.answers import VendorAnswer

__all__ = ["Account", "Institution", "User", "choose"]


class Institution(VendorAnswer):
    """An institution ("location"): orders and their images belong to one."""

    __slots__ = ()
    _named_by = ("InstitutionUuid",)

    @property
    def institution_uuid(self) -> str:
        """``InstitutionUuid``.

        Raises:
            ProtocolError: the service gave none.
        """
        return self._own_uuid()

    @property
    def institution_name(self) -> str | None:
        """``InstitutionName``."""
        return self.get_text("InstitutionName")

    @property
    def identity(self) -> str:
        """Its UUID, empty when the service gave none."""
        return self.get_text("InstitutionUuid") or ""

    @property
    def names(self) -> tuple[str | None, ...]:
        """What it can be called."""
        return (self.institution_name,)


class User(VendorAnswer):
    """A user of an account."""

    __slots__ = ()
    _named_by = ("UserUuid",)

    @property
    def user_uuid(self) -> str:
        """``UserUuid``.

        Raises:
            ProtocolError: the service gave none.
        """
        return self._own_uuid()

    @property
    def user_name(self) -> str | None:
        """``UserName``, by which the user logs in."""
        return self.get_text("UserName")

    @property
    def full_name(self) -> str | None:
        """``FullName``."""
        return self.get_text("FullName")

    @property
    def institutions(self) -> list[Institution]:
        """Where the user may work."""
        found = self.get("InstitutionList")
        return [Institution(item) for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []

    @property
    def identity(self) -> str:
        """The user's UUID, empty when the service gave none."""
        return self.get_text("UserUuid") or ""

    @property
    def names(self) -> tuple[str | None, ...]:
        """What the user can be called."""
        return (self.user_name, self.full_name)

    @property
    def private(self) -> tuple[str, ...]:
        """What must not show in the service's words."""
        return tuple(name for name in self.names if name)


class Account(VendorAnswer):
    """The account the keys belong to."""

    __slots__ = ()

    @property
    def users(self) -> list[User]:
        """Its users."""
        found = self.get("UserList")
        return [User(item) for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


class _Named(Protocol):
    @property
    def identity(self) -> str: ...

    @property
    def names(self) -> tuple[str | None, ...]: ...


_Some = TypeVar("_Some", bound=_Named)


def choose(argument: str, known: Sequence[_Some], wanted: object) -> _Some:
    """Return the one that is meant, by its UUID or its name; without either, the only one there is.

    Raises:
        UsageError: none or several could be meant; the message names the argument.
    """
    if wanted is None:
        if len(known) == 1:
            return known[0]
        raise UsageError(f"the account has {len(known)}; name one by its UUID or its name", argument=argument)
    if not isinstance(wanted, str | UUID):
        raise UsageError("give a UUID or a name", argument=argument)
    text = str(wanted).strip().lower()
    by_uuid = [one for one in known if one.identity.lower() == text and text]
    found = by_uuid or [one for one in known if text and text in [name.strip().lower() for name in one.names if name]]
    if len(found) == 1:
        return found[0]
    raise UsageError("several in the account have that name" if found else "not in the account", argument=argument)
