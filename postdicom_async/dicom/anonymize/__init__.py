"""Anonymisation: the rules for what changes in a file (`Anonymization`), and how its copy is made (``plan.py``)."""

from postdicom_async.dicom.anonymize.anonymization import Anonymization, UidRecorder

__all__ = ["Anonymization", "UidRecorder"]
