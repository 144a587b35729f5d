"""PostDICOM's Cloud API: three HTTP requests open a session, then one binary WebSocket carries everything."""
