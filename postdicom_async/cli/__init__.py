"""The command ``postdicom`` (extra ``cli``): transfers, PostDICOM's operations, a doctor, and an archive to try."""
