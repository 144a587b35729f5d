"""What processes that start warm have imported before they are forked: the package, which by itself imports late."""

from __future__ import annotations

import importlib
import pkgutil

import postdicom_async

for _module in pkgutil.walk_packages(postdicom_async.__path__, "postdicom_async."):
    if not _module.name.endswith(".__main__"):
        importlib.import_module(_module.name)
