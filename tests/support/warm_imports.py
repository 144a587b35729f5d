"""What processes that start warm have imported before they are forked: dask, and the package, which imports late."""

from __future__ import annotations

import importlib
import os
import pkgutil
from contextlib import suppress

import postdicom_async

for _module in pkgutil.walk_packages(postdicom_async.__path__, "postdicom_async."):
    if not _module.name.endswith(".__main__"):
        importlib.import_module(_module.name)

os.environ.setdefault(
    "DASK_DISTRIBUTED__ADMIN__TICK__LIMIT", "1h"
)  # read when it is imported: a busy machine is no news
with suppress(ImportError):
    importlib.import_module("distributed")
