"""The checks, each in an environment of its own: `nox -s lint`, say. `.ci/run` and the workflows call them."""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.4"
nox.options.sessions = ["lint", "docs", "package"]

PORTABLE = [f"tests/{part}" for part in ("common", "graph", "normalise", "plan", "emit", "device")]
"""What asks nothing of the system: neither signals, nor strace, nor a browser."""
NOT_OLDEST = [
    *(f"tests/{part}" for part in ("files", "cli", "verbs/atc", "verbs/compare/measure", "verbs/compare/present")),
    *(
        f"tests/program/test_{name}.py"
        for name in (
            *("command", "fuzz", "hostile_command", "hostile_models", "hostile_names", "layering", "limits"),
            *("outputs_of_verbs", "planted_files", "privacy", "random_ends", "readme", "reference_pages"),
            *("schema_files", "surroundings"),
        )
    ),
]
"""Files, signals, pages and the command's own words do not depend on the libraries."""
PYTEST = ("python", "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, format and types."""
    session.install(".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, in which every link leads somewhere. `nox -s docs -- site` leaves it in site."""
    session.install(".[docs]")
    site = Path(*session.posargs or [session.create_tmp(), "site"]).resolve()
    words = ("--quiet", "--strict", "--site-dir", str(site))
    session.run("mkdocs", "build", *words, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def package(session: nox.Session) -> None:
    """What a release holds: built, its page for the index checked, and the wheel tried where nothing else is.

    `nox -s package -- dist` leaves it in dist.
    """
    session.install("build", "twine")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(*session.posargs or [folder, "dist"]).resolve()
        session.run("python", "-m", "build", "--outdir", str(built))
        session.run("python", "-m", "twine", "check", "--strict", *map(str, built.iterdir()))
        (wheel,) = built.glob("*.whl")
        if os.environ.get("GITHUB_REPOSITORY") and (relative := _relative_links(wheel)):
            session.error(f"Relative links for the package index: {relative}. Correct hatch_build.py.")
        session.run("python", "-m", "venv", f"{folder}/clean")
        program = f"{folder}/clean/bin/"
        session.run(f"{program}python", "-m", "pip", "install", "--quiet", str(wheel), external=True)
        session.chdir(folder)  # away from the sources
        for words in (["doctor", "--env"], ["doctor"], ["demo"]):
            session.run(f"{program}amct_onnx", *words, external=True)


def _relative_links(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as files:
        (name,) = [n for n in files.namelist() if n.endswith(".dist-info/METADATA")]
        return re.findall(r"\]\((?!https?:|mailto:|#)[^)]*\)", files.read(name).decode())


@nox.session
def portable(session: nox.Session) -> None:
    """The arithmetic and the work on graphs, on a system that is not Linux."""
    session.install(".[dev]")
    session.run(*PYTEST, *PORTABLE)


@nox.session
def oldest(session: nox.Session) -> None:
    """What computes, with the oldest dependencies. They need Python 3.10 or 3.11: `nox -s oldest -P 3.10`."""
    if gone := [path for path in NOT_OLDEST if not Path(path).exists()]:
        session.error(f"{', '.join(gone)}: not there. Correct NOT_OLDEST of noxfile.py.")
    session.install("--constraint", ".ci/oldest.txt", ".[dev]")
    session.run(*PYTEST, *(f"--ignore={path}" for path in NOT_OLDEST))
