"""How an archive behaves, beside what is assumed of it: read only, and reported in words of our own."""
