"""What is inside a DICOM file and a DICOM JSON answer. Pure: no disk, no network."""
