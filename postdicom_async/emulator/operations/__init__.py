"""PostDICOM's own thirteen operations beside DICOMweb."""
