"""The synchronous client, for programs without an event loop: ``from postdicom_async.sync import DICOMwebClient``.

It has the names, arguments and answers of ``dicomweb_client.api.DICOMwebClient``, the client that most synchronous code
is written for, on this package's engine. Its exceptions are this package's, and those of ``requests`` at once.
"""

from __future__ import annotations

from postdicom_async.sync.account import PostDicomClient
from postdicom_async.sync.client import DICOMwebClient
from postdicom_async.sync.failures import FailedResponse, HTTPError
from postdicom_async.sync.json_data_sets import load_json_dataset
from postdicom_async.sync.session_utils import HttpSession
from postdicom_async.sync.streams import ItemStream

__all__ = [
    "DICOMwebClient",
    "FailedResponse",
    "HTTPError",
    "HttpSession",
    "ItemStream",
    "PostDicomClient",
    "load_json_dataset",
]
