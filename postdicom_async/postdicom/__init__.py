"""PostDICOM's own DICOMweb API."""
