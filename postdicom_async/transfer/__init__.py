"""The engine of every transfer: sources, sinks, outcomes as a stream, progress, how many at once."""
