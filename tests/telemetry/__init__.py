"""Logs, events, spans and metrics."""
