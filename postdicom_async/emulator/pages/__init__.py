"""The pages that a share opens in a browser."""
