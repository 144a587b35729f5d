"""Named archives: ``profiles.toml`` in the user's configuration folder has the address and user of each; no secrets.

>>> from postdicom_async import profiles
>>> async with profiles.open_profile("hospital") as archive: ...
"""

from postdicom_async.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__)
