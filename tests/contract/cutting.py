"""Cutting work off at each of its steps, in the process or with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Place = tuple[Any, str]
"""Who has the coroutine function, and its name there."""


class Cut(BaseException):
    """The process ends here: nothing in Datavern catches this."""


class Killed(BaseException):
    """The process ends here, for good."""

    def __init__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def cut_at(
    place: int | None, places: Sequence[Place], *, ends: type[BaseException] = Cut
) -> Iterator[Callable[[], int]]:
    """Cut before or after the n-th call of one of those; without a place, count them. Gives how many were passed."""
    passed = 0
    originals = [(owner, name, getattr(owner, name)) for owner, name in places]

    def here() -> None:
        nonlocal passed
        passed += 1
        if passed == place:
            raise ends

    def wrapped(original: Any) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            here()
            result = await original(*args, **kwargs)
            here()
            return result

        return call

    for owner, name, original in originals:
        setattr(owner, name, wrapped(original))
    try:
        yield lambda: passed
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)
