"""``postdicom doctor``: how an archive behaves, in a report that can be attached to a bug."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

import typer

from postdicom_async import profiles
from postdicom_async.cli import output
from postdicom_async.cli.connection import ConnectionOptions
from postdicom_async.cli.exits import Exit
from postdicom_async.cli.loop import run_async
from postdicom_async.cli.options import Common

if TYPE_CHECKING:
    from rich.console import RenderableType

    from postdicom_async import Diagnosis, DicomWeb, Finding


_FIELD: Final = re.compile(r"(?:dialect=replace\(\w+, |wire=Wire\()(\w+)=([^,()]*)\)")
"""One field of the dialect or of `Wire`, as a finding says how to change it in Python."""
_OPTIONS: Final = {
    "the address; Tls(…) for certificates": "--url; --ca-file, --client-cert",
    "DicomWeb(auth=…)": "--username, POSTDICOM_PASSWORD; POSTDICOM_TOKEN",
    "leave fields= out of searches": "leave --field out of searches",
}
"""What else an option changes."""


def doctor(
    connection: ConnectionOptions,
    common: Common,
    as_json: Annotated[bool, typer.Option("--json", help="Write the report as one JSON document.")] = False,
) -> int:
    """Examine how an archive behaves.

    Beside each finding stands what is assumed, and how to change that.

    Only reads: nothing is stored, changed or deleted. The report holds no patient data, UID, user name, address or text
    of the archive's, so it can be attached to a bug. Ends with 0 if the archive can be used with these settings.
    """
    archive = connection.client()
    options = {name: value for base in connection.assumptions() for name, value in profiles.values_of(base).items()}
    found = run_async(lambda: _diagnose(archive))
    if as_json:
        output.write_document(
            {**found.document(), "options": options}, error=None if found.problem is None else found.problem.message
        )
    else:
        output.write(output.render([*_report(found), output.table(("-o FIELD=", "VALUE"), list(options.items()))]))
    if found.problem is not None:
        raise found.problem
    if not common.quiet:
        output.note(
            "this archive can be used with these settings"
            if found.tried
            else "it answers, but nothing was found in it to try searches and retrieves on"
        )
    return Exit.OK


async def _diagnose(archive: DicomWeb) -> Diagnosis:
    from postdicom_async import diagnose

    async with archive:
        return await diagnose(archive)


def _report(found: Diagnosis) -> list[RenderableType]:
    about = [f"{name} {value}" for name, value in found.about.items()]
    parts: list[RenderableType] = [", ".join(about)]
    for area in dict.fromkeys(finding.area for finding in found.findings):
        rows = [(one.check, one.verdict, one.found, _assumed(one)) for one in found.findings if one.area == area]
        parts.append(output.table((area, "", "Found", "Assumed"), rows))
    switches = {one.check: _option(one.switch) for one in found.findings if one.marks and one.switch}
    if switches:
        parts.append(output.table(("What is assumed of", "is changed by"), list(switches.items())))
    return parts


def _option(switch: str) -> str:
    """Return the option that changes an assumption; what to write in Python where there is none."""
    if field := _FIELD.fullmatch(switch):
        value = field[2].strip('"')
        return f"-o {field[1]}={value.lower() if value in ('True', 'False') else value}"
    return _OPTIONS.get(switch, f"in Python: {switch}" if "=" in switch else switch)


def _assumed(finding: Finding) -> str:
    marks = ", ".join(finding.marks)
    return f"{finding.assumed} ({marks})" if marks and finding.assumed else finding.assumed
