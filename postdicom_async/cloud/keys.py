"""The pair of keys, checked before anything is sent."""

from __future__ import annotations

from postdicom_async.cloud.frames import Keys
from postdicom_async.errors import UsageError
from postdicom_async.vendor.values import ValueKind, check_value

__all__ = ["checked_keys"]


def checked_keys(api_key: object, account_key: object) -> Keys:
    """Return both keys without white space around them.

    Raises:
        UsageError: one is not a UUID; the message names the argument and never shows the key.
    """
    return Keys(_checked("api_key", api_key), _checked("account_key", account_key))


def _checked(argument: str, key: object) -> str:
    if key is None or (isinstance(key, str) and not key.strip()):
        raise UsageError("must be given", argument=argument)
    return str(check_value(argument, ValueKind.GUID, key))
