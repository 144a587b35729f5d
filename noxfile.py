"""One command for each thing that has to hold before a change is taken: ``nox -s lint types quick full bench docs``.

The sessions use the environment that nox itself is in: ``pip install -c constraints-dev.txt -e ".[dev]"``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "quick"]
nox.options.error_on_missing_interpreters = False

PYTHON = sys.executable
AT_ONCE = ("--dist", "worksteal", "-o", "faulthandler_timeout=300")
FOUR, FIVE = ("-n", "4", *AT_ONCE), ("-n", "5", *AT_ONCE)  # on two cores: many wait for sockets, clocks and disks
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}  # tests are rewritten and compiled once, not by each process anew
QUICK = "@tests/quick.txt"
OF_DOCUMENTS = ("tests/docs", "tests/unit/test_promises.py")


@nox.session
def lint(session: nox.Session) -> None:
    """Style and layout of the code."""
    session.run(PYTHON, "-m", "ruff", "check", ".")
    session.run(PYTHON, "-m", "ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types of everything, and completeness of the public ones; POSTDICOM_PYRIGHT names a pyright to use."""
    session.run(PYTHON, "-m", "mypy", *session.posargs)
    pyright = os.environ.get("POSTDICOM_PYRIGHT") or str(Path(PYTHON).with_name("pyright"))
    verify = ("--verifytypes", "postdicom_async", "--ignoreexternal")
    # pyright asks the python that it finds first where packages are, whatever it is told.
    path = f"{Path(PYTHON).parent}{os.pathsep}{os.environ['PATH']}"
    session.run(pyright, "--pythonpath", PYTHON, *verify, external=True, env={"PATH": path})


@nox.session
def quick(session: nox.Session) -> None:
    """Under a minute on two cores, and every module of the package is touched (``coverage`` proves it)."""
    session.run(PYTHON, "-m", "pytest", *FOUR, "-q", QUICK, *session.posargs, env=COMPILED)


@nox.session
def full(session: nox.Session) -> None:
    """Everything but what is marked large."""
    session.run(PYTHON, "-m", "pytest", *FIVE, *session.posargs, env=COMPILED)


@nox.session
def large(session: nox.Session) -> None:
    """Run what is marked large, and what hypothesis makes examples for, with all of them."""
    env = {**COMPILED, "POSTDICOM_TESTS": "large"}
    session.run(PYTHON, "-m", "pytest", *FIVE, "-m", "large or hypothesis", *session.posargs, env=env)


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure what ``full`` runs and ``quick`` touches, also in processes that tests start, and hold the floors.

    ``nox -s coverage -- quick`` measures one of the two.
    """
    folder = Path(".nox", "measured").resolve()  # not create_tmp(): it moves TMPDIR, where other users may have to look
    folder.mkdir(parents=True, exist_ok=True)
    for name in session.posargs or ("full", "quick"):
        what = ("-q", QUICK) if name == "quick" else ()
        env = {**COMPILED, "COVERAGE_FILE": str(folder / name), "COVERAGE_CORE": "ctrace"}
        for left in folder.glob(f"{name}*"):
            left.unlink()
        session.run(PYTHON, "-m", "coverage", "run", "-m", "pytest", *FIVE, *what, env=env)
        session.run(PYTHON, "-m", "coverage", "combine", "--quiet", env=env)
        session.run(PYTHON, "-m", "coverage", "json", "--quiet", "-o", str(folder / f"{name}.json"), env=env)
        session.run(PYTHON, "-m", "tests.support.floors", name, str(folder / f"{name}.json"))


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages, into docs/_build; test what they show and name: commands, code, links, promises, the examples.

    A warning of the build is an error, and nothing is fetched. ``nox -s docs -- build`` only builds.
    """
    session.run(PYTHON, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-b", "html", "docs", "docs/_build/html")
    if session.posargs == ["build"]:
        return
    all_of_them = ("-m", "large or not large")
    session.run(
        PYTHON, "-m", "pytest", "-q", *all_of_them, *OF_DOCUMENTS, "tests/examples", *session.posargs, env=COMPILED
    )


@nox.session
def pictures(session: nox.Session) -> None:
    """Make the pictures of the documentation anew, from real runs; ``nox -s pictures -- terminal`` makes one."""
    session.run(PYTHON, "-m", "docs.pictures", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmark with little data, which shows that it works; ``nox -s bench -- --repeat 3`` measures."""
    session.run(PYTHON, "-m", "benchmarks", *(session.posargs or ("--quick",)))
