"""What a job moves between: the protocol of an end, the three kinds, and how they are written."""
