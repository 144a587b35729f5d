"""What became of every item: one SQLite file, its writer and its readers, and its parts."""
