"""Cancelling a task at its n-th await: of its own, or of a task that it made."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_watched: ContextVar[_Awaits | None] = ContextVar("_watched", default=None)


class _Awaits:
    """How often something was waited for, and at which time a task is cancelled."""

    def __init__(self, place: int | None) -> None:
        self._place = place
        self.task: asyncio.Task[Any] | None = None
        self.number = 0

    def waited(self) -> None:
        if self.task is not None and not self.task.done():
            self.number += 1
            if self.number == self._place:
                self.task.cancel()


class _Counted(Coroutine[Any, Any, Any]):
    """What another does, and how often it waits."""

    def __init__(self, of: Coroutine[Any, Any, Any], awaits: _Awaits) -> None:
        self._of, self._awaits = of, awaits

    def send(self, value: Any) -> Any:
        awaited = self._of.send(value)
        self._awaits.waited()
        return awaited

    def throw(self, *error: Any) -> Any:
        awaited = self._of.throw(*error)
        self._awaits.waited()
        return awaited

    def close(self) -> None:
        self._of.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._of.__await__()


def _made(loop: asyncio.AbstractEventLoop, of: Any, **kwargs: Any) -> asyncio.Task[Any]:
    awaits = _watched.get()
    if awaits is None or awaits.task is None:
        return asyncio.Task(of, loop=loop, **kwargs)
    return asyncio.Task(_Counted(of, awaits), loop=loop, **kwargs)


@contextmanager
def _every_task() -> Iterator[None]:
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(_made)
    try:
        yield
    finally:
        loop.set_task_factory(before)


async def cancelled_at(place: int | None, of: Coroutine[Any, Any, Any]) -> tuple[bool, int]:
    """Cancel something at its n-th await; whether it had not ended before, and how often it awaited.

    Args:
        place: 1 for the first; None to count them.
        of: what is done, and must not swallow that it is cancelled.
    """
    awaits = _Awaits(place)
    token = _watched.set(awaits)
    try:
        with _every_task():
            task = asyncio.get_running_loop().create_task(_Counted(of, awaits))
            awaits.task = task
            await asyncio.wait([task])
    finally:
        _watched.reset(token)
    reached = place is not None and awaits.number >= place
    if not task.cancelled():
        task.result()  # whatever else was the matter
    assert task.cancelled() == reached, "it swallowed that it was cancelled"
    return reached, awaits.number
