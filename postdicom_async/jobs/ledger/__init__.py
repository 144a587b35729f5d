"""The ledger, an SQLite file with the state of every item: its writer, its readers, and its partition."""
