"""Shared by both PostDICOM APIs: the fields of their objects, checked values, typed answers, how calls are made."""
