"""DICOM JSON to data sets, for callers of the synchronous client."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from postdicom_async.dicom.json_reading import NotDicomJson, data_set_in
from postdicom_async.errors import UsageError
from postdicom_async.face import public_face, translated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydicom.dataset import Dataset

_LOG = logging.getLogger(__name__)


@public_face
def load_json_dataset(dataset: Mapping[str, Any]) -> Dataset:
    """Return a data set for DICOM JSON, such as a result of a search or metadata.

    An element whose value is not what its VR says is left out, with a warning in the log. A value given by BulkDataURI
    is empty.

    Raises:
        UsageError: it is not DICOM JSON.
    """
    from postdicom_async.dicom.data_sets import dataset_of  # brings pydicom

    with translated(NotDicomJson, lambda _: UsageError("give DICOM JSON: tags to elements", argument="dataset")):
        item = data_set_in(dict(dataset))
    return dataset_of(item, lambda problem: _LOG.warning("data set: %s", problem))
