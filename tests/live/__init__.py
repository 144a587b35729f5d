"""One suite against the embedded archive and a real Orthanc."""
