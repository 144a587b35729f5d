"""A process that uploads into a report until it is killed: ``python -m tests.faults.report_client JSON``."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from postdicom_async import CloudApi, DicomWeb, Limits, Settings


async def main(work: dict[str, Any]) -> None:
    settings = Settings(limits=Limits(batch_instances=3), allow_http_credentials=True)
    if "keys" in work:
        async with CloudApi(*work["keys"], user=work["user"], router_url=work["url"], settings=settings) as api:
            await api.upload(work["source"], institution_uuid=work["institution"], report=work["report"])
        return
    async with DicomWeb(work["url"], auth=tuple(work["auth"]), settings=settings) as archive:
        await archive.upload(work["source"], report=work["report"])


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
