"""Speed and memory of this package beside its peers: ``python -m benchmarks`` from the repository's root."""
