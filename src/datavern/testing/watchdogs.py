"""Watchdogs: the parents of local servers, which end these when the program that asked for them goes away.

A watchdog reads orders from its standard input, and ends its server when that ends.
"""

from __future__ import annotations

import contextlib
import subprocess

__all__ = ["finish"]


def finish(watchdog: subprocess.Popen[bytes], order: bytes) -> None:
    """Let a watchdog go, and wait until its server has ended.

    Args:
        watchdog: made with pipes.
        order: what its program takes as its last order; b"": none.
    """
    assert watchdog.stdin is not None  # noqa: S101  (for the type checker: it was made with pipes)
    assert watchdog.stdout is not None  # noqa: S101  (the same)
    with contextlib.suppress(OSError):
        watchdog.stdin.write(order)
        watchdog.stdin.flush()
    with contextlib.suppress(OSError):
        watchdog.stdin.close()
    watchdog.stdout.close()
    watchdog.wait()
