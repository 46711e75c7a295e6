"""SQLAlchemy without asyncio: what waits goes to a `Background`'s loop, and all else stays in the caller's thread.

Whatever touches the provider runs on its loop, in a greenlet as SQLAlchemy's own asyncio has it there. So nothing of
the provider is used by two threads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from sqlalchemy.util.concurrency import greenlet_spawn, in_greenlet

if TYPE_CHECKING:
    from datavern.background import Background

__all__ = ["on_loop", "waiting", "waiting_connection"]


def on_loop(background: Background[Any] | None, call: Callable[..., Any], *args: Any) -> Any:
    """Call something that may wait, where it may: here, under asyncio, and else on the background's loop."""
    if background is None or in_greenlet():
        return call(*args)
    return background.call(greenlet_spawn(call, *args))


def waiting(cls: type[Any], *names: str, **more: Any) -> type[Any]:
    """A subclass whose methods of those names wait on the loop of the ``background`` of an instance's ``dbapi``."""
    return type(cls.__name__, (cls,), {"__slots__": (), **{name: _waits(getattr(cls, name)) for name in names}, **more})


def waiting_connection(cls: type[Any], *names: str, **more: Any) -> type[Any]:
    """The same of a connection. SQLAlchemy rolls back before it closes one: where nothing is open, nothing waits."""
    rollback = _waits(cls.rollback)

    def roll_back(self: Any) -> None:
        if self.session() is not None:
            rollback(self)

    return waiting(cls, "commit", "close", "terminate", *names, rollback=roll_back, **more)


def _waits(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: Any, *args: Any) -> Any:
        return on_loop(self.background, method, self, *args)

    return call
