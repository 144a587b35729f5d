"""Jobs: what moves an archive, and what proves it."""
