"""What gives tokens: OAuth 2.0 client credentials, and the identities that clouds give to a machine or a user.

>>> from postdicom_async import DicomWeb, tokens
>>> async with DicomWeb(url, auth=tokens.google()) as archive: ...
"""

from postdicom_async.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
