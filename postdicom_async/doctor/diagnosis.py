"""The doctor: how an archive behaves, compared with what is assumed of it, in a report that can be attached to a bug.

It only reads. The report consists of our own words, numbers, and media types from a list: no patient data, UID, user
name, address or server text can get into it.
"""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from postdicom_async.dicomweb.dialects import DIALECTS, DICOMWEB, POSTDICOM
from postdicom_async.doctor.checks import Area, Mark, checks_for
from postdicom_async.doctor.examination import Examination, Probe, Verdict
from postdicom_async.doctor.operations import OperationProbes
from postdicom_async.doctor.probes import ArchiveProbes
from postdicom_async.errors import AuthenticationFailed, ConnectionFailed, PostdicomError
from postdicom_async.face import cut_frames, public_face
from postdicom_async.markup import element, joined, table
from postdicom_async.postdicom.client import PostDicom
from postdicom_async.vendor.wire import Wire
from postdicom_async.watching import watch_call

if TYPE_CHECKING:
    from postdicom_async.dicomweb.client import DicomWeb

_PATIENCE = 2
"""After this many broken connections the remaining probes are skipped: the archive may be down for long."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        area: what it is about.
        check: what was examined.
        verdict: whether it is as assumed.
        found: what was seen.
        assumed: what the library assumes; empty if nothing.
        marks: the sources of the assumption: documented, C# sample, Node sample, PS3.18, assumed.
        switch: how to change what is assumed.
    """

    area: Area
    check: str
    verdict: Verdict
    found: str
    assumed: str = ""
    marks: tuple[Mark, ...] = ()
    switch: str = ""


@public_face
@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The report. It holds nothing private, but ``problem`` may hold the server's words, masked.

    Attributes:
        about: versions, system, transport and dialect.
        findings: in order.
        problem: why the archive cannot be used with these settings; None if it can.
        tried: whether it holds anything to try searches and retrieves on.
    """

    about: dict[str, str]
    findings: tuple[Finding, ...]
    problem: PostdicomError | None = None
    tried: bool = True

    @property
    def usable(self) -> bool:
        """Whether search and retrieve work with these settings, as far as there is something to find."""
        return self.problem is None

    def document(self) -> dict[str, Any]:
        """Return the report as one JSON document."""
        problem = self.problem
        return {
            "usable": self.usable,
            "tried": self.tried,
            "problem": None if problem is None else {"kind": type(problem).__name__, "status": problem.status},
            "about": self.about,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def _repr_html_(self) -> str:
        kind = "" if self.problem is None else f": {type(self.problem).__name__}"
        verdict = "The archive can be used with these settings" if self.usable else f"The archive cannot be used{kind}"
        rows = [[one.area, one.check, one.verdict, one.found, one.assumed] for one in self.findings]
        about = ", ".join(f"{name} {value}" for name, value in self.about.items())
        headings = ["area", "check", "verdict", "found", "assumed"]
        return joined(element("p", f"{verdict}. {about}."), table(headings, rows, most=len(rows)))


@public_face
async def diagnose(archive: DicomWeb) -> Diagnosis:
    """Examine an open archive and return the findings; nothing is stored, changed or deleted.

    Errors become findings, not exceptions.
    """
    session, dialect = archive.internals.session, archive.internals.dialect
    is_vendor = dialect.name == POSTDICOM.name
    other = DICOMWEB if is_vendor else POSTDICOM
    wire = None if not is_vendor else archive.wire if isinstance(archive, PostDicom) else Wire()
    examination = Examination(session, dialect, other)
    probes = ArchiveProbes(examination).probes
    if wire is not None:
        probes += OperationProbes(examination, wire).probes
    with watch_call("diagnose"):
        problem = await _try(probes, examination)
    if problem is not None:
        cut_frames(problem)  # it is returned, not raised, so nothing else cuts them
    about = {
        "postdicom-async": version("postdicom-async"),
        "python": platform.python_version(),
        "system": platform.system(),
        "transport": archive.transport_name,
        "dialect": dialect.name if dialect.name in DIALECTS else "custom",  # a caller's own name may be anything
    }
    findings: list[Finding] = []
    for check in checks_for(dialect, other, wire):
        verdict, found = examination.found.get(check.key, (Verdict.UNKNOWN, check.untried))
        findings.append(Finding(check.area, check.title, verdict, found, check.assumed, check.marks, check.switch))
    return Diagnosis(about, tuple(findings), problem, bool(examination.uids))


async def _try(probes: list[Probe], examination: Examination) -> PostdicomError | None:
    """Run the probes in order; return the first problem that makes the archive unusable."""
    lost = 0
    for probe in probes:
        try:
            await probe.ask()
        except (AuthenticationFailed, ConnectionFailed) as error:
            lost += 1
            if probe.essential or lost == _PATIENCE:
                return examination.problem or error
        except PostdicomError:
            continue  # its findings stay unknown; an essential probe has noted the problem itself
    return examination.problem
