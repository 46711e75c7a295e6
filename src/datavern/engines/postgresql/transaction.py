"""Transactions, savepoints and streams: statements that share one connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from datavern.connectors.pool import Slot
from datavern.contracts.capabilities import Isolation, Provider
from datavern.contracts.errors import ConfigurationError, ConnectionFailed, QueryRejected
from datavern.contracts.values import Parameters, Row
from datavern.engines.postgresql.copying import Rows, copy_in
from datavern.engines.postgresql.errors import Fault, demoted, fault
from datavern.engines.postgresql.many import many
from datavern.engines.postgresql.notifications import NOTIFY, notify
from datavern.engines.postgresql.statements import TOUCHES, Effect
from datavern.engines.postgresql.streams import RowStream

if TYPE_CHECKING:
    import asyncpg

    from datavern.contracts.fused import Entry
    from datavern.engines.postgresql.provider import PostgreSQLProvider

__all__ = ["PostgreSQLTransaction", "affected", "begin_statement"]

# "snapshot" is what PostgreSQL's repeatable read is (documentation, 13.2.2).
_ISOLATIONS: dict[str, str] = {
    "read committed": "READ COMMITTED",
    "repeatable read": "REPEATABLE READ",
    "snapshot": "REPEATABLE READ",
    "serializable": "SERIALIZABLE",
}
_COUNTED = ("INSERT", "UPDATE", "DELETE", "MERGE", "COPY")


def begin_statement(isolation: Isolation | None, *, read_only: bool) -> str:
    """The BEGIN for an isolation level; the server's default where None.

    Raises:
        ConfigurationError: no such level.
    """
    text = "BEGIN"
    if isolation is not None:
        level = _ISOLATIONS.get(isolation)
        if level is None:
            raise ConfigurationError(f"isolation: expected one of {', '.join(_ISOLATIONS)}, or None")
        text += f" ISOLATION LEVEL {level}"
    return f"{text} READ ONLY" if read_only else text


def affected(status: str) -> int:
    """Rows that a statement inserted, updated or deleted, from the server's command tag: ``INSERT 0 3``."""
    command, _, count = status.rpartition(" ")
    return int(count) if command.startswith(_COUNTED) else 0


class PostgreSQLTransaction:
    """An open transaction: see `datavern.contracts.capabilities.Transaction`. Made by ``provider.transaction()``."""

    __slots__ = (
        "_audited",
        "_begin",
        "_broken",
        "_made_keys",
        "_provider",
        "_read_only",
        "_savepoints",
        "_slot",
        "_wrote",
    )

    def __init__(self, provider: PostgreSQLProvider, begin: str, *, read_only: bool) -> None:
        self._provider = provider
        self._begin = begin
        self._read_only = read_only
        self._slot: Slot[asyncpg.Connection] | None = None
        self._broken: str | None = None
        self._wrote = False
        self._made_keys = False
        self._audited = False  # the statement that is sent now goes with an audit entry
        self._savepoints = 0

    @property
    def provider(self) -> Provider:
        """The provider that it was begun on, as callers know it."""
        return self._provider.face

    # ---- begin and end ----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._slot is not None or not self._begin:
            raise ConfigurationError("a transaction is entered once: ask the provider for another")
        pool = self._provider._pool  # noqa: SLF001  (two halves of one engine)
        while True:
            slot = pool.take() or await pool.acquire()
            try:
                await slot.connection.execute(self._begin)
            except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
                found = fault(error, name=self._provider.name, stage="statement", effect=Effect.READS)
            except BaseException:
                pool.recover(slot)
                raise
            else:
                self._slot, self._begin = slot, ""
                return self
            self._provider._part(slot, found)  # noqa: SLF001  (two halves of one engine)
            if not found.unsent:
                raise found.error

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        slot, self._slot = self._slot, None
        if slot is None:
            return
        pool = self._provider._pool  # noqa: SLF001  (two halves of one engine)
        if self._broken is not None:
            if self._broken == "renew":
                pool.renew(slot)
            else:
                pool.discard(slot)
            if kind is None:
                raise ConnectionFailed(
                    f"{self._provider.name}: the connection broke inside the transaction, which the server has undone",
                    provider=self._provider.name,
                    retry="transaction",
                )
        elif kind is None:
            await self._commit(slot)
        elif issubclass(kind, Exception):
            await self._rollback(slot)
        else:
            pool.recover(slot)  # cancelled: rolled back in the background, nobody waits for the server

    async def _commit(self, slot: Slot[asyncpg.Connection]) -> None:
        pool = self._provider._pool  # noqa: SLF001  (two halves of one engine)
        if not slot.connection.is_closed() and not slot.connection.is_in_transaction():  # a closed one has no state
            slot.touched = True
            pool.give(slot)
            raise QueryRejected(
                f"{self._provider.name}: a statement in the transaction ended it: what came before it is done or "
                "undone, as that statement said",
                provider=self._provider.name,
            )
        try:
            status = await slot.connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
            stage = "commit" if self._wrote and not self._read_only else "transaction"
            found = fault(error, name=self._provider.name, stage=stage)  # type: ignore[arg-type]  # both are stages
        except BaseException:
            pool.recover(slot)
            raise
        else:
            pool.give(slot)
            if status == "ROLLBACK":
                raise QueryRejected(
                    f"{self._provider.name}: the transaction was rolled back: a statement in it had failed, and its "
                    "error was caught (use a savepoint around what may fail)",
                    provider=self._provider.name,
                    code="25P02",
                )
            return
        self._provider._part(slot, found)  # noqa: SLF001  (two halves of one engine)
        raise found.error

    async def _rollback(self, slot: Slot[asyncpg.Connection]) -> None:
        """Rolled back before the block is left, so that its locks are gone. What goes wrong here is not news."""
        pool = self._provider._pool  # noqa: SLF001  (two halves of one engine)
        try:
            await slot.connection.execute("ROLLBACK")
        except Exception:  # noqa: BLE001  (the caller's own exception says what happened)
            pool.discard(slot)
        except BaseException:
            pool.recover(slot)
            raise
        else:
            pool.give(slot)

    # ---- statements -------------------------------------------------------------------------------------------------

    async def query(self, sql: str, parameters: Parameters = ()) -> Sequence[Row]:
        """All rows of a statement."""
        connection, effect = self._prepared(sql, parameters)
        try:
            return await connection.fetch(sql, *parameters)  # type: ignore[no-any-return]  # a list of records
        except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
            found = self._fault(error, effect, parameters)
        raise await self._explained(sql, found)

    async def query_one(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """The first row, or None."""
        connection, effect = self._prepared(sql, parameters)
        try:
            return await connection.fetchrow(sql, *parameters)  # type: ignore[no-any-return]  # a record
        except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
            found = self._fault(error, effect, parameters)
        raise await self._explained(sql, found)

    async def query_value(self, sql: str, parameters: Parameters = ()) -> Any:
        """The first column of the first row, or None."""
        connection, effect = self._prepared(sql, parameters)
        try:
            return await connection.fetchval(sql, *parameters)
        except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
            found = self._fault(error, effect, parameters)
        raise await self._explained(sql, found)

    async def execute(
        self,
        sql: str,
        parameters: Parameters = (),
        *,
        audit: Entry | None = None,
        idempotency_key: str | None = None,
    ) -> int:
        """Run a statement; how many rows it changed. Its audit entry and its idempotency key are written after it."""
        if audit is not None or idempotency_key is not None:
            return await self._provider._fusing.inside(self, sql, parameters, audit, idempotency_key)  # noqa: SLF001
        connection, effect = self._prepared(sql, parameters)
        try:
            return affected(await connection.execute(sql, *parameters))
        except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
            found = self._fault(error, effect, parameters)
        raise await self._explained(sql, found)

    async def execute_many(self, sql: str, parameters: Sequence[Parameters]) -> int:
        """Run a statement once for each set of parameters; how many sets."""
        connection, effect = self._prepared(sql, parameters)
        try:
            await many(connection, sql, parameters)
        except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
            found = self._fault(error, effect, parameters, many=True)
        else:
            return len(parameters)
        raise await self._explained(sql, found)

    async def copy_in(self, table: str, columns: Sequence[str], rows: Rows) -> int:
        """Copy rows into a table; how many. See `PostgreSQLProvider.copy_in`. A failure fails the transaction."""
        return await copy_in(self, table, columns, rows)

    async def notify(self, channel: str, payload: str = "") -> None:
        """Send a message when the transaction commits. See `PostgreSQLProvider.notify`."""
        self._provider._effects.setdefault(NOTIFY, Effect.WRITES)  # noqa: SLF001  (two halves of one engine)
        await notify(self, self._provider.name, channel, payload)

    async def claim(self, idempotency_key: str, mark: int = 0) -> int | None:
        """Name this transaction, before anything else is done in it: of those with the same key, one commits.

        Waits for another that is open under the same key.

        Args:
            idempotency_key: 1 to 255 characters, kept for seven days.
            mark: a number by which one knows one's own claim.

        Returns:
            None: the key is this transaction's now. Else the mark of the one that committed: do nothing in this one.

        Raises:
            ConfigurationError: the key may not be one.
            SerializationConflict: the other committed in the meantime, and this one's snapshot is too old to see it.
        """
        return await self._provider._fusing.claim(self, idempotency_key, mark)  # noqa: SLF001

    def stream(self, sql: str, parameters: Parameters = (), *, batch_size: int = 1000) -> RowStream:
        """Rows in constant memory, through a portal on the server."""
        return RowStream(self, sql, parameters, batch_size=batch_size, own=False)

    def savepoint(self) -> Savepoint:
        """A block of its own inside this one."""
        self._savepoints += 1
        return Savepoint(self, f"datavern_{self._savepoints}")

    def _prepared(self, sql: str, parameters: Parameters) -> tuple[asyncpg.Connection, Effect]:
        """The connection, once it is sure that the statement may be sent."""
        slot = self._slot
        if slot is None:
            raise QueryRejected(f"{self._provider.name}: the transaction is not open", provider=self._provider.name)
        if type(parameters) is not list and type(parameters) is not tuple:
            self._provider._check_parameters(parameters)  # noqa: SLF001  (two halves of one engine)
        effect = self._provider._effect_of(sql, audited=self._audited)  # noqa: SLF001  (two halves of one engine)
        if effect:
            self._wrote = True
            if effect is TOUCHES:
                slot.touched = True
        return slot.connection, effect

    def _fault(self, error: BaseException, effect: Effect, parameters: Any = (), *, many: bool = False) -> Fault:
        found = fault(
            error, name=self._provider.name, stage="transaction", effect=effect, parameters=parameters, many=many
        )
        if found.error.__class__ is QueryRejected and found.error.code == "25006" and not self._read_only:
            found = demoted(found, self._provider.name)
        if found.connection != "keep":
            self._broken = found.connection
        return found

    async def _explained(self, sql: str, found: Fault) -> BaseException:
        slot = self._slot
        if found.parameter is None or slot is None:
            return found.error
        return await self._provider._explained(slot.connection, sql, found)  # noqa: SLF001  (two halves of one engine)


class Savepoint:
    """A block inside a transaction that can fail on its own."""

    __slots__ = ("_name", "_transaction")

    def __init__(self, transaction: PostgreSQLTransaction, name: str) -> None:
        self._transaction = transaction
        self._name = name

    async def __aenter__(self) -> PostgreSQLTransaction:
        await self._run(f"SAVEPOINT {self._name}")
        return self._transaction

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            await self._run(f"RELEASE SAVEPOINT {self._name}")
        elif issubclass(kind, Exception) and self._transaction._broken is None:  # noqa: SLF001  (the same file)
            await self._run(f"ROLLBACK TO SAVEPOINT {self._name}; RELEASE SAVEPOINT {self._name}")
        # Cancelled, or the connection is gone: the transaction around it ends the same way.

    async def _run(self, statement: str) -> None:
        transaction = self._transaction
        slot = transaction._slot  # noqa: SLF001  (the same file)
        if slot is None:
            raise QueryRejected(f"{transaction.provider.name}: the transaction is not open")
        try:
            await slot.connection.execute(statement)
        except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
            found = transaction._fault(error, Effect.READS)  # noqa: SLF001  (the same file)
        else:
            return
        raise found.error
