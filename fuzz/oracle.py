"""What an input may lead to: a result, or one AmctError; nothing is read elsewhere, left behind, or eaten up."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from amct_onnx.errors import AmctError
from seeds import EXTERNAL_CONTENT, EXTERNAL_FILE

SECONDS = 10.0
"""Of CPU time for one input. The slowest regular seed takes below one; the bound leaves room for a busy machine."""
MEMORY = 768 << 20
"""Bytes by which one input may raise the peak of resident memory."""
ADDRESS_SPACE = 8 << 30
"""Protects the machine that fuzzes."""
IN_OPEN = 0x20
SECRET = "secret"
OLD = b"an earlier output"
OUTPUTS = ("m_deploy_model.onnx", "m_fake_quant_model.onnx", "m_quant.json", "record.txt")


class Finding(Exception):
    """An input broke a promise of docs/security.md."""


class Sandbox:
    """A folder with the model's folder ``in``, the output folder ``out``, and ``outside``, which nobody may open.

    Opening is seen in two ways: Python's audit events, and inotify for what libraries open by themselves.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.source, self.target, self.outside = (self.root / n for n in ("in", "out", "outside"))
        for folder in (self.root, self.source, self.target, self.outside):
            folder.mkdir(exist_ok=True)
        (self.outside / SECRET).write_bytes(EXTERNAL_CONTENT)
        os.chdir(self.root)
        libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._inotify < 0 or libc.inotify_add_watch(self._inotify, os.fsencode(self.outside), IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), "inotify")
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
        for folder in (self.source, self.target):
            shutil.rmtree(folder)
            folder.mkdir()
        (self.source / EXTERNAL_FILE).write_bytes(EXTERNAL_CONTENT)
        (self.source / "link").symlink_to(self.outside / SECRET)
        (self.source / "folder").symlink_to(self.outside)
        os.mkfifo(self.source / "pipe")
        for name in OUTPUTS:
            (self.target / name).write_bytes(OLD)
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
        before = peak_memory()
        started = time.process_time()
        self._opened.clear()
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
        self._check_outputs(outcome)
        return outcome

    def _check_outputs(self, outcome: str) -> None:
        found = {p.name: p for p in self.target.iterdir()}
        if set(found) - set(OUTPUTS):
            raise Finding(f"left {sorted(set(found) - set(OUTPUTS))}")
        new = {name for name, path in found.items() if path.read_bytes() != OLD}
        if set(found) != set(OUTPUTS) or new not in (set(), set(OUTPUTS)):
            raise Finding(f"a mixture of outputs: {sorted(new)} are new, {sorted(set(OUTPUTS) - set(found))} missing")
        if outcome != "converted" and new:
            raise Finding(f"{outcome}, but there are outputs")


def peak_memory() -> int:
    """Highest resident memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def limit_memory() -> None:
    """An allocation beyond the bound fails, instead of taking the machine down."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
