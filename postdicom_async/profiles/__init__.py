"""Named archives: ``profiles.toml`` in the user's configuration folder says where each is, and as whom; no secret.

>>> from postdicom_async import profiles
>>> async with profiles.open_profile("hospital") as archive: ...
"""

from postdicom_async.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
