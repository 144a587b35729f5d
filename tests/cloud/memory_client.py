"""A process that uploads and tells how much memory that took: ``python -m tests.cloud.memory_client JSON``."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from pathlib import Path
from typing import Any

from postdicom_async import Anonymization, CloudApi, Status

KIB = 1024
STATUS = Path("/proc/self/status")


def memory(name: str) -> int:
    """Return ``VmRSS`` or ``VmHWM`` in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * KIB


async def main(work: dict[str, Any]) -> None:
    rules = Anonymization({"PatientName": "ANON"}) if work["anonymize"] else None
    async with CloudApi(*work["keys"], user=work["user"], router_url=work["router_url"]) as api:
        await api.folders.search().all()
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew, so that imports do not count
        idle = memory("VmRSS")
        report = await api.upload(
            Path(work["source"]), institution_uuid=work["institution"], sockets=8, anonymize=rules
        )
        report.raise_for_failures()
    told = {"over_idle": memory("VmHWM") - idle, "stored": report.counts[Status.STORED]}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
