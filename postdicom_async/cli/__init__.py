"""The command ``postdicom`` (extra ``cli``): transfers, PostDICOM's operations, a doctor, an archive to try things on."""
