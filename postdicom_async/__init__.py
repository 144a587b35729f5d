"""Asyncio DICOMweb and PostDICOM client."""
