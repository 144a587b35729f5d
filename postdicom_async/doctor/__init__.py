"""How an archive behaves, compared with what this package assumes of it: only reads, reported in words of our own."""
