"""Whole archives: copy, sync, verify."""
