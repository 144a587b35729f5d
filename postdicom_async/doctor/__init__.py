"""How an archive behaves, compared with what this package assumes of it: it only reads, and reports in its own words."""
