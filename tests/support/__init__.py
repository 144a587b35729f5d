"""Servers, bodies, files and watchers that the tests share."""
