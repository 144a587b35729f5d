"""The command ``postdicom`` (extra ``cli``): a demonstration, an archive to try things on, upload, search, download."""
