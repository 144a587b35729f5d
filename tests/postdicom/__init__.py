"""PostDICOM's own operations."""
