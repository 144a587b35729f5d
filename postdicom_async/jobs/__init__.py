"""Whole archives: copy, sync and verify, with a ledger that survives whatever ends the process."""
