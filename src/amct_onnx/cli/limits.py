"""Limits of the process (``ulimit -v``, ``ulimit -u``): checked first, because libraries abort or print at them."""

from __future__ import annotations

import errno
import threading

from amct_onnx.common.cpu_count import cpu_count
from amct_onnx.errors import SettingError

MIN_ADDRESS_SPACE = 256 << 20
"""Bytes that importing the libraries takes; with less, OpenBLAS ends the process by itself."""
MEMORY = ("bad_alloc", "bad allocation", "cannot allocate memory", "failed to allocate", "failed to map segment")
THREADS = ("can't start new thread", "pthread_create", "resource temporarily unavailable")
OUT_OF_MEMORY = "out of memory. Free some, or raise the limit of the process (ulimit -v)."
OUT_OF_THREADS = (
    "no more threads can be started. End other processes, or raise the limits of processes (ulimit -u) and memory "
    "(ulimit -v)."
)


def check_limits() -> None:
    """Refuse to start below the limits that the libraries need.

    Raises:
        SettingError: Too little address space to import the libraries, or fewer threads than there are CPUs.
    """
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < MIN_ADDRESS_SPACE:
        raise SettingError(
            f"out of memory: the process may have {limit >> 20} MiB of address space, the libraries alone take "
            f"{MIN_ADDRESS_SPACE >> 20} MiB. Give it more (ulimit -v)."
        )
    enough = threading.Event()
    threads = [threading.Thread(target=enough.wait) for _ in range(cpu_count())]
    begun = []
    try:
        for thread in threads:
            thread.start()
            begun.append(thread)
    except RuntimeError as error:
        raise SettingError(OUT_OF_THREADS) from error
    finally:
        enough.set()
        for thread in begun:
            thread.join()


def limit_met(error: BaseException) -> str:
    """The message for an error that a limit of the process caused, directly or further down; "" for others."""
    seen: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in seen:
        seen.append(at)
        if isinstance(at, MemoryError) or (isinstance(at, OSError) and at.errno == errno.ENOMEM):
            return OUT_OF_MEMORY
        text = str(at).lower()
        if any(word in text for word in THREADS):
            return OUT_OF_THREADS
        if any(word in text for word in MEMORY):
            return OUT_OF_MEMORY
        at = at.__cause__ or at.__context__
    return ""
