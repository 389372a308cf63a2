"""Exit codes of every verb."""

EXIT_DONE = 0
"""The work was done."""
EXIT_CHECK_FAILED = 1
"""The work was done but its check failed: --strict and a layer stayed float, ``check`` found an error, ..."""
EXIT_BAD_INPUT = 2
"""Usage, or an input or output that cannot be used; nothing was written."""
EXIT_INTERRUPTED = 130
"""Ctrl-C."""
EXIT_BROKEN_PIPE = 141
"""The reader of stdout ended early, as in ``| head``; files were written all the same."""
