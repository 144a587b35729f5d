"""Anonymisation: what is changed in a file on its way (`Anonymization`), and how its copy is made (``plan.py``)."""

from postdicom_async.dicom.anonymize.anonymization import Anonymization, UidRecorder

__all__ = ["Anonymization", "UidRecorder"]
