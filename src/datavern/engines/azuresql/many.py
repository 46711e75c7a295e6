"""One statement for many sets of parameters, all or none: on the connection's thread, as one job."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from datavern.engines.azuresql.wire import Lost, Refused

if TYPE_CHECKING:
    from datavern.engines.azuresql.wire import Wire

__all__ = ["AtCommit", "many"]

_SAVEPOINT: Final = "datavern_many"


class AtCommit(Exception):
    """What was raised by the commit, and not by a statement before it."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


def many(wire: Wire, sql: str, sets: Sequence[Sequence[Any]], *, inside: bool) -> None:
    """Run a statement for each set.

    Args:
        wire: the connection.
        sql: the statement.
        sets: its parameters, encoded.
        inside: in a transaction that is open: it goes on after a failure, as if nothing had been run.

    Raises:
        Refused: as `Wire.run`; nothing of it is kept.
        AtCommit: the commit failed.
    """
    wire.run(f"SAVE TRANSACTION {_SAVEPOINT}" if inside else "BEGIN TRANSACTION", ())
    try:
        for values in sets:
            wire.run(sql, values)
    except Lost:
        raise
    except Exception:
        # Where the server has ended the transaction, or will only take the end of it, this is refused, too.
        with contextlib.suppress(Refused):
            wire.run(f"ROLLBACK TRANSACTION {_SAVEPOINT}" if inside else "IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION", ())
        raise
    if not inside:
        failed: Exception
        try:
            wire.run("COMMIT TRANSACTION", ())
        except Exception as error:  # noqa: BLE001  (which statement it was makes the difference)
            failed = error
        else:
            return
        raise AtCommit(failed)
