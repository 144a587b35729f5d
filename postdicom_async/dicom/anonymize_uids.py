"""How UIDs become others: the same one always the same one, under one secret. Pure."""

from __future__ import annotations

import hmac
import re
import uuid
from functools import lru_cache

from postdicom_async.errors import UsageError

__all__ = ["key_of", "new_uid", "says_which"]

# UIDs that say what something is, not which one it is.
_KINDS = re.compile(
    r"ClassUID|SOPClass|TransferSyntax|CodingSchemeUID|ContextUID|MappingResource|TemplateUID|ImplementationClass"
    r"|PrivateDataElement"
)
_LEAST_SECRET = 8  # bytes


def key_of(secret: object) -> bytes:
    """Return what new UIDs are derived from: the secret's bytes, or without one some that nobody can guess.

    Raises:
        UsageError: it is no secret, or too short a one.
    """
    if secret is None:
        return uuid.uuid4().bytes + uuid.uuid4().bytes  # fresh for each object, so that nobody can guess the UIDs
    key = secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else secret
    if not isinstance(key, bytes) or len(key) < _LEAST_SECRET:
        raise UsageError(f"secret: text or bytes, at least {_LEAST_SECRET} of them", argument="anonymize")
    return key


def new_uid(key: bytes, old: str) -> str:
    """Return the UID that replaces one; those of PS3.6 replace themselves."""
    if not old or _is_registered(old):
        return old
    digest = hmac.digest(key, old.encode("utf-8", "surrogateescape"), "sha256")
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"


@lru_cache(maxsize=4096)
def says_which(tag: int) -> bool:
    """Return whether the UIDs of an element say which one something is, and not of what kind."""
    from pydicom.datadict import keyword_for_tag

    return tag >> 16 > 2 and not _KINDS.search(keyword_for_tag(tag))  # file meta follows the data set


def _is_registered(value: str) -> bool:
    from pydicom._uid_dict import UID_dictionary

    return value in UID_dictionary
