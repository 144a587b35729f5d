"""The archive over DICOMweb (PS3.18): store, search, retrieve, pictures."""
