"""Cores that do not go to sleep while they wait for an answer, as on a server that is tuned for latency.

A core with nothing to do is halted, and to wake it takes tens of microseconds on a virtual machine: longer than most of
what is measured here, and the longer the wait was. One long wait pays more than several short ones, so ratios at one
task told of the halting and not of the code. Linux lets whoever may (root) ask for none of it while a file is open
(Linux kernel documentation, PM Quality of Service Interface, /dev/cpu_dma_latency).
"""

from __future__ import annotations

import os
import struct

__all__ = ["keep_awake"]

_REQUEST = "/dev/cpu_dma_latency"
_held: list[int] = []


def keep_awake() -> bool:
    """Ask for it until the process ends; whether that is allowed here."""
    if not _held:
        try:
            _held.append(os.open(_REQUEST, os.O_WRONLY))
            os.write(_held[0], struct.pack("i", 0))
        except OSError:
            return False
    return True
