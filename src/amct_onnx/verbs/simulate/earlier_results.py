"""Whether a folder holds exactly what an earlier simulation wrote there, as its list of files proves."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Any

import orjson

from amct_onnx.errors import OutputError

FACTS_FILE = "simulation.json"
MAX_FACTS_BYTES = 1 << 30
"""Limit of the facts' size; each file of the list takes some 150 bytes."""
FEED = re.compile(r"\d{6}|[1-9]\d{6,8}")
FILE = re.compile(rf"({FEED.pattern})/([A-Za-z0-9_.-]+\.(?:npy|bin))")
DIGEST = re.compile(r"[0-9a-f]{64}")
BLOCK = 1 << 20
REMEDY = "Choose another --save_path or remove it."


class EarlierResults:
    """Those in one folder; links are never followed."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read before ``verify``."""
        self._folder = folder
        self._seen: dict[tuple[str, str], tuple[int, ...]] = {}

    def verify(self) -> list[str]:
        """Names of the feeds' folders and, last, of the facts; empty when there are none.

        Files that were read before and have not changed since are not read again.

        Raises:
            OutputError: The folder holds something that the list does not name, or that differs from the list.
            OSError: Something cannot be read.
        """
        try:
            present = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        feeds = sorted((n for n in present if re.fullmatch(r"\d{6}", n)), key=int)
        if FACTS_FILE not in present:
            if feeds:
                raise self._refusal(
                    self._folder / feeds[0], f"no {FACTS_FILE} beside it shows that a simulation made it"
                )
            return []
        files = self._listed()
        listed: dict[str, dict[str, tuple[int, str]]] = {}
        for name, stated in files.items():
            listed.setdefault(name.partition("/")[0], {})[name] = stated
        for feed in dict.fromkeys([*feeds, *listed]):
            self._verify_feed(feed, listed.get(feed, {}))
        return [*listed, FACTS_FILE]

    def _listed(self) -> dict[str, tuple[int, str]]:
        """Name -> size and digest, as the facts say."""
        path = self._folder / FACTS_FILE
        unlisted = "does not list the files of a simulation: another program or an earlier version wrote it"
        try:
            content = orjson.loads(self._own_file(path, MAX_FACTS_BYTES))
        except ValueError as error:
            raise self._refusal(path, unlisted) from error
        entries = content.get("files") if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise self._refusal(path, unlisted)
        files = dict(entry for e in entries if (entry := _entry(e)) is not None)
        if len(files) != len(entries):
            raise self._refusal(path, "lists a file in a form that no simulation writes")
        return files

    def _verify_feed(self, feed: str, files: dict[str, tuple[int, str]]) -> None:
        folder = self._folder / feed
        if not files:
            raise self._refusal(folder, f"is not in the list of {FACTS_FILE}")
        try:
            status = os.lstat(folder)
        except FileNotFoundError as error:
            raise self._refusal(self._folder / FACTS_FILE, f"lists {feed}, which is gone") from error
        if not stat.S_ISDIR(status.st_mode):
            raise self._refusal(folder, "is not a folder")
        if status.st_uid != os.geteuid():
            raise self._refusal(folder, "belongs to another user")
        present = {f"{feed}/{name}" for name in os.listdir(folder)}
        for name in sorted(present ^ set(files)):
            reason = f"is not in the list of {FACTS_FILE}" if name in present else f"is in the list of {FACTS_FILE}"
            raise self._refusal(self._folder / name, reason if name in present else f"{reason} and gone")
        for name, (size, digest) in files.items():
            self._verify_file(name, size, digest)

    def _verify_file(self, name: str, size: int, digest: str) -> None:
        path = self._folder / name
        status = os.lstat(path)
        seen = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if self._seen.get((name, digest)) == seen:
            return
        if not stat.S_ISREG(status.st_mode):
            raise self._refusal(path, "is not a regular file")
        if status.st_uid != os.geteuid():
            raise self._refusal(path, "belongs to another user")
        if status.st_size != size or self._digest(path) != digest:
            raise self._refusal(path, "is not what the simulation wrote")
        self._seen[name, digest] = seen

    def _digest(self, path: Path) -> str:
        digest = hashlib.sha256()
        with open(self._opened(path), "rb", buffering=0) as file:
            while block := file.read(BLOCK):
                digest.update(block)
        return digest.hexdigest()

    def _own_file(self, path: Path, limit: int) -> bytes:
        with open(self._opened(path), "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_size > limit:
                raise self._refusal(path, "is longer than any that a simulation writes")
            if status.st_uid != os.geteuid():
                raise self._refusal(path, "belongs to another user")
            return file.read(limit)

    def _opened(self, path: Path) -> int:
        """A handle of a regular file; a pipe does not block, a link is not followed."""
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise self._refusal(path, "is not a regular file")
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)

    @staticmethod
    def _refusal(path: Path, reason: str) -> OutputError:
        return OutputError(f"{path}: {reason}, so it is not replaced. {REMEDY}")


def feed_folder(number: int) -> str:
    """Name of the folder with the results of one feed."""
    return f"{number:06d}"


def _entry(content: Any) -> tuple[str, tuple[int, str]] | None:
    """One file of the list; None when the entry is not one."""
    if not isinstance(content, dict) or set(content) != {"name", "size", "sha256"}:
        return None
    name, size, digest = content["name"], content["size"], content["sha256"]
    if not isinstance(name, str) or not FILE.fullmatch(name) or type(size) is not int or size < 0:
        return None
    return (name, (size, digest)) if isinstance(digest, str) and DIGEST.fullmatch(digest) else None
