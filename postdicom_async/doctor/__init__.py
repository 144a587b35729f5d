"""How an archive behaves, compared with what this package assumes: it only reads, and reports in our own words."""
