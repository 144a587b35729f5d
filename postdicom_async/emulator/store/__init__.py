"""The archive without HTTP: files in a folder, an index beside them, and what their headers say."""
