"""Named archives: ``profiles.toml`` in the user's configuration folder says where each is, and as whom; no secret.

>>> from postdicom_async import profiles
>>> async with profiles.open_profile("hospital") as archive: ...
"""

from __future__ import annotations

from postdicom_async.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__)
