"""Tests against a real Orthanc."""
