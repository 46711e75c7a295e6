"""One statement for many sets of parameters, in a way that a cancellation ends.

asyncpg's ``executemany`` sends what fits into the socket, and waits until it takes more. A cancellation that arrives
in that wait is swallowed (``finally: return await waiter``), and as the end of the request was never sent, the server
never answers: the call hangs for ever. So the wait is watched from outside: where not everything was sent when the
cancellation comes, the connection is given up first. A test shows that asyncpg still needs this.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from datavern.contracts.values import Parameters

if TYPE_CHECKING:
    import asyncpg

__all__ = ["many"]


async def many(
    connection: asyncpg.Connection, sql: str, parameters: Sequence[Parameters], *, returning: bool = False
) -> Any:
    """Run a statement for each set of parameters, all or none; the rows of all of them, where it returns some."""
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    rows = None
    sets = _Sets(parameters)
    try:
        rows = await _watched(
            connection, sets, (connection.fetchmany if returning else connection.executemany)(sql, sets)
        )
    except Exception:
        if task is None or task.cancelling() == before:
            raise
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
    return rows


class _Sets:
    """The sets, one by one, and whether the driver has taken the last."""

    __slots__ = ("_sets", "all_taken")

    def __init__(self, sets: Sequence[Parameters]) -> None:
        self._sets = iter(sets)
        self.all_taken = False

    def __iter__(self) -> Iterator[Parameters]:
        yield from self._sets
        self.all_taken = True


@types.coroutine
def _watched(connection: asyncpg.Connection, sets: _Sets, call: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    running = call.__await__()
    try:
        waited_for = running.send(None)
        while True:
            try:
                yield waited_for
            except BaseException as error:  # noqa: BLE001  (thrown into the coroutine that is watched)
                if not sets.all_taken:
                    connection.terminate()
                waited_for = running.throw(error)
            else:
                waited_for = running.send(None)
    except StopIteration as ended:
        return ended.value
