"""Floors of coverage: ``python -m tests.support.floors full|quick REPORT``, where the report is coverage's in JSON.

``full`` reaches 95 % of lines and branches of the package, and every branch of the pure files. ``quick`` touches every
module: of one that has functions, at least one was called.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.unit.test_house import MODULES, PURE, ROOT

OVERALL = 95.0


def below_the_floor(report: dict[str, Any]) -> list[str]:
    """Return the places where coverage is below its floor."""
    reached = report["totals"]["percent_covered"]
    found = [] if reached >= OVERALL else [f"{reached:.2f} % overall, {OVERALL} % is the floor"]
    for module in sorted(PURE):
        of_file = _of(report, module)
        lines, branches = of_file.get("missing_lines", ["all"]), of_file.get("missing_branches", [])
        if lines or branches:
            ways = ", ".join(f"{start} to {end}" for start, end in branches)
            found.append(f"{module} is pure, and not reached are lines {lines}, branches {ways or 'none'}")
    return found


def untouched(report: dict[str, Any]) -> list[str]:
    """Return the modules in which no function was called."""
    found = []
    for module in sorted(MODULES):
        of_file = _of(report, module)
        functions = of_file.get("functions", {})
        if of_file and not of_file["summary"]["num_statements"]:
            continue  # only docstrings
        inside = [one for name, one in functions.items() if name and one["summary"]["num_statements"]]
        if not any(one["executed_lines"] for one in (inside or functions.values())):
            found.append(f"nothing of {module} runs in the quick tests")
    return found


def _of(report: dict[str, Any], module: str) -> dict[str, Any]:
    path = MODULES[module].relative_to(ROOT.parent).as_posix()
    of_file: dict[str, Any] = next(
        (one for name, one in report["files"].items() if Path(name).as_posix().endswith(path)), {}
    )
    return of_file


def main(what: str, path: str) -> int:
    """Print what is wrong; return whether something is."""
    report = json.loads(Path(path).read_text())
    wrong = untouched(report) if what == "quick" else below_the_floor(report)
    reached = f"{what}: {report['totals']['percent_covered']:.2f} % of lines and branches"
    sys.stdout.write("\n".join([*wrong, reached, ""]))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
