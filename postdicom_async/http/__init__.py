"""One way out to the network: session, transport, retry, redaction. Knows nothing of DICOM."""
