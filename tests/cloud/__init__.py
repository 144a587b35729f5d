"""Tests of the Cloud API's client."""
