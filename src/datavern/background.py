"""An event loop in a thread of its own, for code that is not asynchronous.

Datavern is async first. Where a program is not (Flask, Celery, a script, code written with SQLAlchemy's `Session`),
a manager or a provider lives on a loop in the background, and every thread of the program calls it there.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

from datavern.contracts.errors import ConfigurationError

__all__ = ["Background"]

T = TypeVar("T")
R = TypeVar("R")


class Background(Generic[T]):
    """Opens something asynchronous in a thread of its own, and calls it from the others.

        with Background(DatabaseManager.from_config("datavern.toml")) as background:
            db = background.opened
            background.call(db.consents.grant(subject="u1", purpose="newsletter"))
            engine = db["main"].sqlalchemy_engine(background=background)

    Any thread may call; each call waits for its own answer. Context variables of the caller hold in the call
    (`datavern.actor`). It is not carried over a fork: processes that a server forks open one each.

    Args:
        opens: what is entered on the loop when the block begins, and left at its end: a `DatabaseManager`, a provider.

    Attributes:
        opened: what entering it gave.
    """

    opened: T

    def __init__(self, opens: AbstractAsyncContextManager[T]) -> None:
        self._opens = opens
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0

    def __repr__(self) -> str:
        return f"Background({self._opens!r})"

    def __enter__(self) -> Background[T]:
        """Start the thread, and open there.

        Raises:
            ConfigurationError: it is open already. And whatever opening raises; then no thread is left.
        """
        if self._thread is not None:
            raise ConfigurationError("this Background is open already")
        loop = asyncio.new_event_loop()
        self._loop, self._process = loop, os.getpid()
        self._thread = threading.Thread(target=self._live, args=(loop,), name="datavern-background", daemon=True)
        self._thread.start()
        try:
            self.opened = self.call(self._opens.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what was opened, and end the thread."""
        if self._process != os.getpid():
            return  # a forked process has no thread to end
        try:
            self.call(self._opens.__aexit__(kind, error, trace))
        finally:
            self._stop()

    def call(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine on the loop; what it returns, or raises.

        Raises:
            ConfigurationError: not open, in a process that was forked since, or called from the loop itself, which
                would wait for itself.
        """
        problem = self._unfit()
        if problem:
            work.close()
            raise ConfigurationError(problem)
        assert self._loop is not None  # noqa: S101  (for the type checker: it is fit)
        future: Future[R] = asyncio.run_coroutine_threadsafe(work, self._loop)  # in a copy of the caller's context
        try:
            return future.result()
        except BaseException:
            future.cancel()  # of a thread that was interrupted while it waited; else it is done
            raise

    def iterate(self, rows: AsyncIterator[R]) -> Iterator[R]:
        """The items of an async iterator, one call each: ``for row in background.iterate(users.of("u1"))``.

        Raises:
            ConfigurationError: as `call`.
        """

        async def following() -> tuple[bool, Any]:
            try:
                return True, await anext(rows)
            except StopAsyncIteration:
                return False, None

        try:
            while True:
                there, row = self.call(following())
                if not there:
                    return
                yield row
        finally:
            close = getattr(rows, "aclose", None)
            if close is not None:
                self.call(close())

    def _unfit(self) -> str:
        if self._thread is None:
            return "this Background is not open: with Background(…) as background"
        if self._process != os.getpid():
            return "this process was forked since the Background was opened: open one in each process"
        if self._thread is threading.current_thread():
            return "called from the Background's own loop, which would wait for itself: await it there"
        return ""

    def _stop(self) -> None:
        loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
        self._loop = self._thread = None

    @staticmethod
    def _live(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            for task in (left := asyncio.all_tasks(loop)):
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
