"""Upload a folder, check what became of every file, and download the studies elsewhere.

::

    export POSTDICOM_URL=https://... POSTDICOM_USERNAME=... POSTDICOM_PASSWORD=...
    python archive_study.py scans/ copies/
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from postdicom_async import PostDicom, PostdicomError, Status


async def archive_and_fetch(source: Path, target: Path) -> None:
    """Upload everything below ``source``; download its studies below ``target``."""
    account = (os.environ[f"POSTDICOM_{name}"] for name in ("URL", "USERNAME", "PASSWORD"))
    async with PostDicom(*account) as archive:
        report = await archive.upload(source)
        for status, count in report.counts.items():
            print(f"{status.name.lower()}: {count}")
        for outcome in report.outcomes:
            if outcome.status is Status.FAILED:
                print(f"{outcome.where}: {outcome.reason}", file=sys.stderr)
        report.raise_for_failures()
        for study in sorted({outcome.uids.study_instance_uid for outcome in report.outcomes if outcome.uids}):
            copy = await archive.download_study(study, to=target)
            print(f"{study}: {len(copy.saved)} saved, {len(copy.already_present)} here already")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        asyncio.run(archive_and_fetch(Path(sys.argv[1]), Path(sys.argv[2])))
    except PostdicomError as error:
        sys.exit(str(error))
