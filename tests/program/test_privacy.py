"""No command writes outside of its stated files or opens a socket: every system call is looked at, and the tree after.

ONNX Runtime's telemetry would do both. Where strace is missing, or may not trace, the folders alone are compared.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.comparison_cases import SMALL, Case, converted

CALLS = (
    "%network,open,openat,openat2,creat,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2,link,linkat,symlink,"
    "symlinkat,unlink,unlinkat,rmdir,truncate,ftruncate,chmod,fchmod,fchmodat,chown,fchown,fchownat,utimensat"
)
STRACE = ["strace", "-qq", "-ff", "--seccomp-bpf", "-e", f"trace={CALLS}"]
"""The filter keeps the calls that are not looked at from stopping."""
CHANGES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")
PATH = re.compile(r'(?:AT_FDCWD)?<([^>]*)>|"((?:[^"\\]|\\.)*)"')
LINE = re.compile(r"(\w+)\((.*)\)\s+= (-?\w+)")
LOG = r"amct_log(/amct_onnx\.log)?"


@functools.cache
def traces() -> bool:
    """Whether strace is there and may trace."""
    return shutil.which("strace") is not None and subprocess.run([*STRACE, "-o", os.devnull, "true"]).returncode == 0


def outside(trace: str, allowed: re.Pattern[str], folder: Path) -> list[str]:
    """The calls of a trace that changed, or tried to change, a path that does not match, or opened a socket."""
    found = []
    for line in trace.splitlines():
        match = LINE.match(line)
        if match is None:
            continue
        call, arguments, _ = match.groups()
        if call.startswith("open") and ("O_TMPFILE" in arguments or not CHANGES.search(arguments)):
            continue  # a file that never has a name asks whether the disk takes one
        if call.startswith(("sock", "conn", "send", "recv", "bind", "listen", "accept", "get", "set", "shut")):
            found.append(line)
            continue
        files = [os.path.relpath(p, folder) for p in targets(arguments, folder)]
        if any(f != os.path.relpath(os.devnull, folder) and not allowed.fullmatch(f) for f in files):
            found.append(line)
    return found


def targets(arguments: str, folder: Path) -> list[Path]:
    """The paths that a call names, below its descriptor of a folder where it gives one, or that of its descriptor."""
    named, descriptors, base = [], [], folder
    for descriptor, name in PATH.findall(arguments):
        if descriptor:
            base = Path(descriptor)
            descriptors.append(base)
        else:
            named.append(Path(base, name))
            base = folder
    return named or descriptors


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


def run(arguments: list[str], tmp_path: Path, *, prefix: str = "") -> tuple[str, list[str]]:
    """The trace, and what appeared in the home folder and in the current one."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY" and not k.startswith("XDG_")}
    environment |= {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, "-c", f"{prefix}import sys; from amct_onnx.cli import main; sys.exit(main())", *arguments]
    log = tmp_path / "trace"
    log.mkdir()
    if traces():
        line = [*STRACE, "-y", "-s", "4096", "-o", str(log / "t"), *line]
    done = subprocess.run(line, cwd=here, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    trace = "\n".join(p.read_text(errors="replace") for p in sorted(log.iterdir()))
    return trace, [f"{p.name}/{n}" for p in (home, here) for n in tree(p)]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return converted(SMALL, tmp_path_factory.mktemp("case"), samples=8)


def hidden(stem: str) -> str:
    """Of files on their way into a folder: in a hidden one of the run."""
    return rf"{stem}\.amct_[^/]*(/[^/]*)?"


VERBS = {
    "convert": (
        ["--model", "SOURCE", "--save_path", "out/m", "--record_file", "out/r.txt"],
        r"out(/m_(deploy|fake_quant)_model\.onnx(\.data)?|/m_quant\.json|/r\.txt)?",
    ),
    "bias": (["--model", "SOURCE", "--output", "out/b.onnx"], r"out(/b\.onnx(\.data)?)?"),
    "check": (["--model", "DEPLOY"], "-"),
    "atc": (["--model", "DEPLOY", "--soc_version", "Ascend310P3", "--input_shape", "input:1,1,8,8"], "-"),
    "doctor": (["--model", "SOURCE"], "-"),
    "simulate": (["--model", "DEPLOY", "--data", "DATA", "--save_path", "out/s"], r"out(/s(/.*)?)?"),
    "compare": (
        [
            "--model",
            "SOURCE",
            "--save_path",
            "PREFIX",
            "--data",
            "DATA",
            "--report",
            "out/r.html",
            "--json_report",
            "out/r.json",
        ],
        r"out(/r\.(html|json))?",
    ),
}
"""Options, and the files that they state, relative to the current folder."""


@pytest.mark.parametrize("verb", VERBS)
def test_verb_writes_its_stated_files_alone_and_opens_no_socket(verb: str, case: Case, tmp_path: Path) -> None:
    options, stated = VERBS[verb]
    words = {"SOURCE": case.source, "DEPLOY": case.deploy, "DATA": case.data, "PREFIX": case.prefix}
    before = tree(case.prefix.parent)
    trace, made = run([verb, *(str(words.get(o, o)) for o in options)], tmp_path)
    allowed = re.compile("|".join([LOG, stated, hidden("out/"), hidden("")]))
    assert not [m for m in made if not allowed.fullmatch(m.removeprefix("here/"))]
    assert tree(case.prefix.parent) == before
    if traces():
        assert "openat" in trace
        assert outside(trace, allowed, tmp_path / "here") == []


def test_the_look_finds_telemetry(case: Case, tmp_path: Path) -> None:
    """A user may want it; then this test sees what the others must not see."""
    trace, made = run(
        ["check", "--model", str(case.deploy)],
        tmp_path,
        prefix="import socket; socket.socket(); open('x', 'w').close(); ",
    )
    assert "here/x" in made
    if traces():
        found = "\n".join(outside(trace, re.compile(LOG), tmp_path / "here"))
        assert "socket(" in found and "/x" in found


@pytest.mark.parametrize("first", ["amct_onnx", "onnxruntime"])
def test_setting_of_the_user_stays(first: str) -> None:
    code = (
        f"import {first}, os, amct_onnx, onnxruntime; onnxruntime.get_available_providers(); "
        "print(os.environ.get('ORT_DISABLE_TELEMETRY'))"
    )
    for value, kept in ((None, "1"), ("0", "0"), ("", "")):
        environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
        environment |= {"HOME": os.getcwd()} | ({} if value is None else {"ORT_DISABLE_TELEMETRY": value})
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == kept
