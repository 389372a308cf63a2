"""Judge an input: it may give a result or one AmctError, and must not read elsewhere, leave files or use up memory."""

from __future__ import annotations

import ctypes
import hashlib
import os
import resource
import shutil
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

from amct_onnx.errors import AmctError
from seeds import EXTERNAL_CONTENT, EXTERNAL_FILE

SECONDS = 10.0
"""CPU time for one input. The slowest regular seed takes below one second; the bound leaves room for a busy machine."""
MEMORY = 768 << 20
"""Bytes by which one input may raise the peak of resident memory."""
ADDRESS_SPACE = 8 << 30
"""Protects the machine that fuzzes."""
IN_OPEN = 0x20
SECRET = "secret"
OLD = b"an earlier output"
EARLIER_RECORD = (
    b'record {\n  key: "earlier"\n  value {\n'
    b"    scale_d: 1.0e+00\n    offset_d: 0\n    scale_w: 1.0e+00\n    offset_w: 0\n  }\n}\n"
)
"""In the form that a conversion writes: one of another form is never replaced."""
OUTPUTS = ("m_deploy_model.onnx", "m_fake_quant_model.onnx", "m_quant.json", "record.txt")


LOG_FOLDER = "amct_log"
"""Below the current folder; what its file may be is tests/common/test_log.py's question."""


class Finding(Exception):
    """An input broke a promise of docs/security.md."""


class Sandbox:
    """A folder with the model's folder ``in``, the output folder ``out``, and ``outside``, which nobody may open.

    Opening is seen in two ways: Python's audit events, and inotify for what libraries open by themselves. After a run,
    all that is not an output is as it was: names, bytes, owner, mode, links.
    """

    # outputs: relative names of what a run may change; together: all of it or nothing; may_go: what it may remove

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self.root = root.resolve()
        self.source, self.target, self.outside = (self.root / n for n in ("in", "out", "outside"))
        os.chdir(self.root)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._inotify < 0:
            raise OSError(ctypes.get_errno(), "inotify")
        self._watched = 0
        self.outputs: set[str] = set()
        self.together = True
        self.may_go: set[str] = set()
        self._before: dict[str, tuple[object, ...]] = {}
        self._put_back_outside()
        allowed = {
            self.root,
            *(Path(p).resolve() for p in [sys.prefix, sys.base_prefix, *sys.path] if p),
            Path("/proc"),
        }
        self._allowed = tuple(f"{p}/" for p in allowed)
        self._own = f"{self.root}/"
        self._watching = False
        self._opened: list[str] = []
        sys.addaudithook(self._audit)

    def _put_back_outside(self) -> None:
        """As it was before the first run; the folder itself stays the one that is watched."""
        if self.outside.is_symlink() or not self.outside.is_dir():
            empty(self.outside)
            self.outside.mkdir()
        for path in self.outside.iterdir():
            empty(path)
        (self.outside / SECRET).write_bytes(EXTERNAL_CONTENT)
        (self.outside / "folder").mkdir()
        (self.outside / "folder" / "notes.txt").write_bytes(b"outside of all that a run is given")
        if self._watched != (inode := self.outside.stat().st_ino):
            if self._libc.inotify_add_watch(self._inotify, os.fsencode(self.outside), IN_OPEN) < 0:
                raise OSError(ctypes.get_errno(), "inotify")
            self._watched = inode

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if event != "open" or not self._watching:
            return
        path, _, flags = arguments
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        real = os.path.realpath(os.fsdecode(path))
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        inside = f"{real}/".startswith(self._own) if writes else f"{real}/".startswith(self._allowed)
        if f"{real}/".startswith(f"{self.outside}/") or not inside:
            self._opened.append(f"{'writes' if writes else 'reads'} {real}")

    def prepare(self) -> None:
        """Empty both folders and put in what lies there before every run."""
        for path in self.root.iterdir():
            if path not in (self.outside, self.root / LOG_FOLDER):
                empty(path)
        self._put_back_outside()
        for folder in (self.source, self.target):
            folder.mkdir()
        (self.source / EXTERNAL_FILE).write_bytes(EXTERNAL_CONTENT)
        (self.source / "link").symlink_to(self.outside / SECRET)
        (self.source / "folder").symlink_to(self.outside)
        os.mkfifo(self.source / "pipe")
        for name in OUTPUTS:
            (self.target / name).write_bytes(EARLIER_RECORD if name == "record.txt" else OLD)
        self.outputs, self.together, self.may_go = {f"out/{name}" for name in OUTPUTS}, True, set()

    def may_read(self, folder: Path) -> None:
        """Content that a target keeps elsewhere for all its inputs."""
        if f"{folder.resolve()}/" not in self._allowed:
            self._allowed = (*self._allowed, f"{folder.resolve()}/")

    def place(self, name: str, content: bytes) -> Path:
        """Put an input in, relative to the sandbox: what stands there from now on must stand there after the run."""
        path = self.root / name
        path.write_bytes(content)
        self.start()
        return path

    def start(self) -> None:
        """All is in place, and is as it must be after the run but for the outputs."""
        self._before = snapshot(self.root)
        self._opened.clear()
        self._events()

    def _events(self) -> int:
        try:
            return len(os.read(self._inotify, 1 << 16))
        except BlockingIOError:
            return 0

    def judge(self, run: Callable[[], object]) -> str:
        """Run once; "converted" or the class of the error.

        Raises:
            Finding: A promise was broken.
        """
        self.start()
        before = peak_memory()
        started = time.process_time()
        self._watching = True
        outcome, unexpected = "converted", None
        try:
            run()
        except AmctError as error:
            outcome = type(error).__name__
            if not str(error).strip():
                unexpected = error
        except Finding:
            raise
        except Exception as error:
            unexpected = error
        finally:
            self._watching = False
        if unexpected is not None:
            raise Finding(f"{type(unexpected).__name__}: {unexpected}") from unexpected
        seconds, grown = time.process_time() - started, peak_memory() - before
        if self._opened or self._events():
            raise Finding(f"opened a file outside of the model's folder: {self._opened or self.outside}")
        if seconds > SECONDS:
            raise Finding(f"took {seconds:.1f} s")
        if grown > MEMORY:
            raise Finding(f"took {grown >> 20} MiB")
        self._check_tree(outcome)
        return outcome

    def _check_tree(self, outcome: str) -> None:
        """All but the outputs is as it was, these are all new or all old, and old after an error."""
        after = snapshot(self.root)
        names = sorted(self._before.keys() | after.keys())
        changed = [n for n in names if self._before.get(n) != after.get(n)]
        for name in changed:
            if name not in self.outputs | self.may_go:
                was, now = self._before.get(name), after.get(name)
                what = "left" if was is None else "removed or moved" if now is None else "changed"
                raise Finding(f"{what} '{name}', which is not an output: {was} -> {now}")
        if outcome != "converted" and changed:
            raise Finding(f"{outcome}, but outputs changed: {changed}")
        old = sorted(self.outputs.difference(changed))
        if self.together and changed and old:
            raise Finding(f"a mixture of outputs: {changed} are new, {old} old")


def empty(path: Path) -> None:
    """Remove a file, folder or link; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Relative name -> kind and mode, owner, group, and content: a digest, a link's target, "" for a folder."""
    found: dict[str, tuple[object, ...]] = {}
    waiting = [""]
    while waiting:
        with os.scandir(root / waiting.pop()) as entries:
            for entry in entries:
                name = os.path.relpath(entry.path, root)
                if name == LOG_FOLDER:
                    continue
                status = entry.stat(follow_symlinks=False)
                content = ""
                if entry.is_symlink():
                    content = os.readlink(entry.path)
                elif stat.S_ISREG(status.st_mode):
                    content = hashlib.blake2b(Path(entry.path).read_bytes(), digest_size=8).hexdigest()
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
                found[name] = (stat.filemode(status.st_mode), status.st_uid, status.st_gid, content)
    return found


def peak_memory() -> int:
    """Highest resident memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def limit_memory() -> None:
    """An allocation beyond the bound fails, instead of taking the machine down."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
