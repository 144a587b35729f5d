"""Chunks on other machines: a scheduler of dask, its workers, and what travels between them."""
