"""The identities that Google Cloud, Azure and AWS give to a machine or a user, for ``auth=``; each needs an extra.

`postdicom_async.ClientCredentials`, for any identity provider, needs none.

>>> from postdicom_async import DicomWeb, tokens
>>> async with DicomWeb(url, auth=tokens.google()) as archive: ...
"""

from postdicom_async.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
