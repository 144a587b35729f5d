"""``python -m postdicom_async.cli``: the command without its script."""

from __future__ import annotations

from postdicom_async.cli.main import run

if __name__ == "__main__":
    run()
