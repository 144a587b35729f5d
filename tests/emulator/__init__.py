"""Tests of the embedded archive."""
