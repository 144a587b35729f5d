"""PostDICOM's Cloud API: a bring-up over HTTP, then binary frames on a WebSocket."""
