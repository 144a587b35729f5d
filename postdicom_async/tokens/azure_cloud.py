"""Azure's identities, by azure-identity (extra ``azure``)."""

from __future__ import annotations

import time
from typing import Any

from postdicom_async.face import public_face
from postdicom_async.http.credentials import Token, TokenIssuer
from postdicom_async.tokens.in_threads import ThreadedIssuer, require_extra

_DICOM = "https://dicom.healthcareapis.azure.com/.default"


@public_face
def azure(credential: Any = None, *, scope: str = _DICOM) -> TokenIssuer:
    """Return the identity that this program has at Azure, for ``auth=``.

    azure-identity finds it (``DefaultAzureCredential``): a service principal in ``AZURE_CLIENT_ID``,
    ``AZURE_TENANT_ID`` and ``AZURE_CLIENT_SECRET``, workload identity, a managed identity, or what ``az login`` left.
    It is looked for with the first request. It uses the proxies of the environment, not those of the archive.

    Args:
        credential: an identity of azure-identity (not of its ``aio``) instead of the one it finds.
        scope: what the tokens are for; by default the DICOM service of Azure Health Data Services.

    Raises:
        UsageError: azure-identity is not installed.
    """
    require_extra("azure.identity", "azure")
    identity = _Identity(credential, scope)
    return ThreadedIssuer("azure", identity.ask, _is_final)


class _Identity:
    """An identity, found when it is first asked for. It keeps a token itself until five minutes before its end."""

    def __init__(self, credential: Any, scope: str) -> None:
        self._credential = credential
        self._scope = scope

    def ask(self) -> Token:
        if self._credential is None:
            from azure.identity import DefaultAzureCredential

            self._credential = DefaultAzureCredential()
        found = self._credential.get_token(self._scope)
        left = found.expires_on - time.time()
        return Token(found.token, left if left > 0 else None)


def _is_final(error: Exception) -> bool:
    from azure.core.exceptions import ClientAuthenticationError

    status = getattr(getattr(error, "response", None), "status_code", None) or 0
    return isinstance(error, ClientAuthenticationError | ValueError) and status < 500
