"""Send a folder's studies, anonymised, into a new folder of a PostDICOM account, with a letter, and share it by a link.

::

    export POSTDICOM_API_KEY=... POSTDICOM_ACCOUNT_KEY=...
    python second_opinion.py scans/ letter.pdf --institution "North clinic"

Every patient becomes a number that says nothing; files that cannot be anonymised are not sent.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from postdicom_async import Anonymization, CloudApi, PostdicomError, read_files

DAYS = 14


async def send(options: argparse.Namespace) -> str | None:
    """Upload everything and return the link's address."""
    scan = await read_files(options.scans)
    keys = os.environ["POSTDICOM_API_KEY"], os.environ["POSTDICOM_ACCOUNT_KEY"]
    user, router = os.environ.get("POSTDICOM_CLOUD_USER"), os.environ.get("POSTDICOM_ROUTER_URL")
    async with CloudApi(*keys, user=user, router_url=router) as api:
        folder = await api.folders.create(options.folder)
        secret = os.urandom(32)  # the same UIDs for all files of this run
        for number, patient in enumerate(scan.patients, 1):
            name = f"CASE-{number:03}"
            rules = Anonymization.basic_profile({"PatientName": name, "PatientID": name}, secret=secret)
            paths = [path for study in patient.studies for path in study.paths]
            report = await api.upload(
                paths, institution_uuid=options.institution, folder_uuid=folder.folder_uuid, anonymize=rules
            )
            report.raise_for_failures()
            for order in report.patient_order_uuids:
                letters = await api.upload_documents(options.letter, order, institution_uuid=options.institution)
                letters.raise_for_failures()
            print(f"{name}: {len(paths)} files", file=sys.stderr)
        expires = (datetime.now(UTC) + timedelta(days=DAYS)).date()
        link = await api.folders.share(
            folder.folder_uuid, password=os.environ.get("SHARE_PASSWORD"), title=options.folder, expires=expires
        )
    return link.url


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Anonymised studies and a letter, shared by a link.")
    parser.add_argument("scans", type=Path)
    parser.add_argument("letter", type=Path)
    parser.add_argument("--institution", help="its name or UUID; not needed when there is only one")
    parser.add_argument("--folder", default="Second opinion")
    try:
        print(asyncio.run(send(parser.parse_args())))
    except PostdicomError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
