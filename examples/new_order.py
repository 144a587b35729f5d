"""A new patient order, put into a new folder, and the folder shared by a link.

::

    export POSTDICOM_URL=https://... POSTDICOM_USERNAME=... POSTDICOM_PASSWORD=...
    python new_order.py 01234567-89ab-cdef-0123-456789abcdef "DOE^JANE" P-17 1970-02-03 CT

The link's password is asked for; nothing typed makes a link that opens for whoever has it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from getpass import getpass

from postdicom_async import OutcomeUnknown, PostDicom, PostdicomError

DAYS = 14


async def order_folder_and_link(archive: PostDicom, options: argparse.Namespace, password: str) -> str | None:
    """Create the three, and return the link's address."""
    order = await archive.orders.create(
        institution_uuid=options.institution_uuid,
        patient_name=options.patient_name,
        patient_id=options.patient_id,
        patient_birthdate=options.birthdate,
        modality=options.modality,
    )
    folder = await archive.folders.create(options.folder)
    await archive.folders.add_order(order.patient_order_uuid, [folder.folder_uuid])
    expires = (datetime.now(UTC) + timedelta(days=DAYS)).date()
    link = await archive.folders.share(
        folder.folder_uuid, password=password or None, title=options.folder, expires=expires
    )
    return link.url


async def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="A new patient order in a new folder, shared by a link.")
    for name in ("institution_uuid", "patient_name", "patient_id", "birthdate", "modality"):
        parser.add_argument(name)
    parser.add_argument("--folder", default="New orders")
    options = parser.parse_args()
    password = getpass("Password of the link: ") if sys.stdin.isatty() else os.environ.get("SHARE_PASSWORD", "")
    account = (os.environ[f"POSTDICOM_{name}"] for name in ("URL", "USERNAME", "PASSWORD"))
    try:
        async with PostDicom(*account) as archive:
            print(await order_folder_and_link(archive, options, password))
    except OutcomeUnknown as error:
        print(f"{error}\nLook for the order and the folder before you run this again.", file=sys.stderr)
        return 1
    except PostdicomError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
