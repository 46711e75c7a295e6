"""What transactions and streams do on the thread of their connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from datavern.engines.azuresql.many import many
from datavern.engines.azuresql.wire import Answer, Refused

if TYPE_CHECKING:
    from datavern.engines.azuresql.loading import LoadColumn
    from datavern.engines.azuresql.wire import Wire

__all__ = ["Ended", "begin", "fetch", "leave", "load", "run", "watched"]


class Ended(Exception):
    """An error with which the server has rolled the transaction back."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


def watched(wire: Wire, work: Any, *args: Any) -> Any:
    """On the thread: do it. Some errors end the transaction, and what follows would run without one: so it is asked."""
    ended: Refused
    try:
        return work(wire, *args, inside=True) if work is many else work(wire, *args)
    except Refused as error:
        if wire.run("SELECT @@TRANCOUNT", ()).sets[0][0][0]:
            raise
        ended = error
    raise Ended(ended)


def run(wire: Wire, sql: str, values: Sequence[Any]) -> Answer:
    """A statement, and all that it gives."""
    return wire.run(sql, values)


def load(wire: Any, text: str, columns: Sequence[LoadColumn], rows: Sequence[Sequence[Any]]) -> None:
    """Rows, in bulk."""
    wire.load(text, columns, rows)


def begin(wire: Wire, sql: str, values: Sequence[Any]) -> None:
    """A statement whose rows are fetched later."""
    wire.begin(sql, values)


def fetch(wire: Wire, most: int) -> list[Any]:
    """The next rows, so many at the most."""
    return list(wire.rows(most))


def leave(wire: Wire) -> None:
    """Leave what was not fetched."""
    wire.end()
