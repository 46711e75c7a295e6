"""A change with its audit entry, its idempotency key, its conditions: one round trip where that is certainly the same.

Where it is not (several statements in one text, DDL, a table with rules), the change and what goes with it are the
statements of one transaction. The server's own count of rows is the cheapest, and where the change is the outer
statement it is had for nothing; but a rule that does nothing instead of the change does nothing instead of the entry
either. Such a change counts no row, so only one that counts none is looked into (`_looked_into`).

A change under an idempotency key is made first and asked about later: the key is written with it, so a second one fails
at the key, or earlier at what the first has changed, is undone as a whole, and then finds the key of the first.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from datavern.contracts.errors import (
    ConstraintViolated,
    OutcomeUnknown,
    ProviderError,
    QueryRejected,
    SerializationConflict,
)
from datavern.contracts.fused import Entry, checked_key, entry_statement
from datavern.contracts.statements import Statement
from datavern.contracts.values import Parameters, timestamp
from datavern.engines import idempotency
from datavern.engines.counts import takes
from datavern.engines.postgresql.errors import fault
from datavern.engines.postgresql.splice import HELD, Shape, counted, is_readable, shape, shared, single_row, tagged
from datavern.engines.postgresql.statements import TOUCHES, WRITES, Effect
from datavern.engines.postgresql.together import Together, are_small
from datavern.engines.postgresql.transaction import PostgreSQLTransaction, affected, begin_statement

if TYPE_CHECKING:
    import sqlalchemy as sa

    from datavern.engines.postgresql.provider import PostgreSQLProvider

__all__ = ["Fusing", "Plan", "is_unsupported", "nowhere"]

_KNOWN: Final = 2048
_LONGEST_KNOWN: Final = 16_384
_MOST_PARAMETERS: Final = 32_767
_COUNT: Final = f"SELECT pg_catalog.count(*) FROM {idempotency.CHANGE}"  # noqa: S608  (a name of our own)
_RULES: Final = "SELECT true FROM pg_catalog.pg_rewrite WHERE ev_type <> '1' AND oid >= 16384 LIMIT 1"
"""Whether somebody made a rule that is not a view's: ev_type 1 is SELECT, lower ids are the server's own (PostgreSQL 18
documentation, 52.44 and 52.1: FirstNormalObjectId)."""


class Plan(NamedTuple):
    """How a text is sent together with what goes with it.

    Attributes:
        text: what is sent.
        origin: where in the caller's text a character of it stands.
        parameters: how many of them are the caller's.
        counts: whether it gives the count as a value; the command tag tells it otherwise.
        replaceable: whether a rule that replaces the change takes the entry away with it.
        together: those who come at the same time, where they may share a transaction.
    """

    text: str
    origin: Callable[[int], int | None]
    parameters: int
    counts: bool
    replaceable: bool = False
    together: Together | None = None


def nowhere(position: int) -> None:  # noqa: ARG001  (as every `origin`)
    """Where a character stands of a text of which nothing is the caller's."""
    return None  # noqa: RET501  (an answer, not the lack of one)


_STEPWISE: Final = Plan("", nowhere, 0, counts=False)
"""Of a text that cannot be spliced: the change and what goes with it are the statements of one transaction."""


class Fusing:
    """What ``execute(…, audit=…, idempotency_key=…)`` does on a provider, and in a transaction of it."""

    __slots__ = ("_plans", "_provider", "_ready", "_ruled", "_used")

    def __init__(self, provider: PostgreSQLProvider) -> None:
        self._provider = provider
        self._plans: dict[tuple[str, str | None, bool], Plan] = {}
        self._ready = False
        self._ruled = False  # the database has rules
        self._used = 0

    # ---- a statement of its own -------------------------------------------------------------------------------------

    async def execute(self, sql: str, parameters: Parameters, audit: Entry | None, key: str | None) -> int:
        """Run a statement with what goes with it; how many rows it changed."""
        provider = self._provider
        entry = None if audit is None else entry_statement(audit, provider.face)
        does = provider._effects.get(sql)  # noqa: SLF001  (two halves of one engine, here and below)
        if does is None or (type(parameters) is not list and type(parameters) is not tuple):
            does = provider._checked(sql, parameters, audited=audit is not None)  # noqa: SLF001
        written: tuple[Any, ...] = ()
        if key is not None:
            key = checked_key(key)
            await self.prepare_keys()
            written = (key, timestamp(), idempotency.asked(key, sql, parameters))
        known = (sql, None if entry is None else entry[0], key is not None)
        plan = self._plans.get(known) or self._plan(known, audit)
        if plan.text:
            if len(parameters) != plan.parameters:
                raise QueryRejected(
                    f"{provider.name}: {takes(plan.parameters, len(parameters))}", provider=provider.name
                )
            values = (*parameters, *written, *(() if entry is None else entry[1]))
            if len(values) <= _MOST_PARAMETERS:
                failure: ProviderError
                try:
                    count = await self.gathered(plan, sql, values, does, parameters)
                except ProviderError as error:
                    failure = error
                else:
                    if count or entry is None or not plan.replaceable:
                        return count
                    return await self._looked_into(sql, parameters, entry)
                if not is_unsupported(failure):
                    return await self._made_before(written, failure)
                self._plans[known] = _STEPWISE
        begin = begin_statement(None if key is None else "read committed", read_only=False)
        async with PostgreSQLTransaction(provider, begin, read_only=False) as tx:
            return await self._steps(tx, sql, parameters, entry, written)

    async def _made_before(self, written: tuple[Any, ...], failure: ProviderError) -> int:
        """What the change of that key has changed, which is why this one failed; else it failed for itself."""
        if not written or failure.retry == "safe" or isinstance(failure, OutcomeUnknown):
            raise failure
        made = await self._count_of(self._provider, written)
        if made is None:
            raise failure
        return made

    async def _looked_into(self, sql: str, parameters: Parameters, entry: tuple[str, Sequence[Any]]) -> int:
        """The change has changed no row: how many it has after all.

        Where there is no rule in the database that was all, and the entry is written. Where there is one, whether the
        entry was written is asked by writing it again, which takes no right to read the log: it is refused when it was,
        and when it was not, the change goes with it in a transaction, as it will from now on.
        """
        name = self._provider.name
        try:
            if not await self._provider.query_value(_RULES):
                return 0
            self._ruled = True
            self._plans.clear()
            async with PostgreSQLTransaction(
                self._provider, begin_statement(None, read_only=False), read_only=False
            ) as tx:
                try:
                    async with tx.savepoint():
                        await tx.execute(*entry)
                except ConstraintViolated:
                    return 0
                return await self._change(tx, sql, parameters)
        except ProviderError as error:
            failed = error
        raise OutcomeUnknown(
            f"{name}: the statement changed no row, and whether its audit entry was written could not be found out: "
            f"{failed}",
            provider=name,
        )

    async def _send(self, plan: Plan, sql: str, values: Sequence[Any], does: Effect, given: Any) -> int:
        """One round trip. As the provider's own `execute`; positions are those of the caller's text."""
        provider = self._provider
        pool = provider._pool  # noqa: SLF001
        while True:
            slot = pool.take() or await pool.acquire()
            try:
                if plan.counts:
                    count = int(await slot.connection.fetchval(plan.text, *values))
                else:
                    count = affected(await slot.connection.execute(plan.text, *values))
            except Exception as error:  # noqa: BLE001  (translated, and raised by _end)
                if does is TOUCHES or provider._pooled:  # noqa: SLF001
                    slot.touched = True
                _place(error, plan.origin)
                found = fault(error, name=provider.name, stage="statement", effect=max(does, WRITES), parameters=given)
            except BaseException:
                pool.recover(slot)
                raise
            else:
                if does is TOUCHES:
                    provider._touched(slot)  # noqa: SLF001
                pool.give(slot)
                return count
            await provider._end(slot, sql, found)  # noqa: SLF001

    async def gathered(self, plan: Plan, sql: str, values: Sequence[Any], does: Effect, given: Any) -> int:
        """How many rows it was: one by itself, or with those that come at the same time."""
        together = plan.together
        if together is None:
            return await self._send(plan, sql, values, does, given)
        if together.begins():
            started = time.perf_counter()
            try:
                return await self._send(plan, sql, values, does, given)
            finally:
                together.ended(time.perf_counter() - started)
        if not self._provider._pooled and are_small(values):  # noqa: SLF001
            written = await together.write(values)
            if written is not None:
                return int(written)
        return await self._send(plan, sql, values, does, given)

    def _plan(self, known: tuple[str, str | None, bool], audit: Entry | None) -> Plan:
        """Made once for each text. One that is not spliced has no text, and is gone about stepwise."""
        sql, entry, keyed = known
        plan = self._made(sql, entry, keyed=keyed, audit=audit) or _STEPWISE
        if len(sql) <= _LONGEST_KNOWN:
            if len(self._plans) >= _KNOWN:
                self._plans.clear()
            self._plans[known] = plan
        return plan

    def _made(self, sql: str, entry: str | None, *, keyed: bool, audit: Entry | None = None) -> Plan | None:
        of = shape(sql)
        if of is None or (keyed and not of.is_counted):
            return None
        replaceable = of.is_counted and not keyed and not of.returns and not self._ruled
        counts = of.is_counted and not replaceable
        if not counts:
            assert entry is not None  # noqa: S101  (for the type checker: without key and entry nobody comes here)
            spliced = tagged(sql, of, entry=entry)
        elif keyed:
            insert = idempotency.keys().insert_counted.compiled(self._dialect())
            spliced = counted(sql, of, entry=entry, closing=insert.sql, closing_takes=len(insert.names))
        else:
            spliced = counted(sql, of, entry=entry, closing=_COUNT)
        together = self._together(sql, of, audit) if replaceable and audit is not None else None
        return Plan(spliced.text, spliced.origin, of.highest, counts, replaceable, together)

    def _together(self, sql: str, of: Shape, audit: Entry) -> Together | None:
        """Where rows of that text may share a transaction."""
        table = single_row(sql) if self._provider.settings.group_commit else None
        if table is None:
            return None
        face = self._provider.face
        entry, values = entry_statement(audit, face, source=HELD)
        if values != entry_statement(audit, face)[1]:  # in another order
            return None
        return Together(self._provider, table, shared(sql, of, table=table, entry=entry, takes=len(values)))

    # ---- statements of a transaction --------------------------------------------------------------------------------

    async def inside(
        self, tx: PostgreSQLTransaction, sql: str, parameters: Parameters, audit: Entry | None, key: str | None
    ) -> int:
        """The same in an open transaction, statement by statement: how many rows the caller's own changed."""
        entry = None if audit is None else entry_statement(audit, self._provider.face)
        written: tuple[Any, ...] = ()
        if key is not None:
            written = (checked_key(key), timestamp(), idempotency.asked(key, sql, parameters))
            if not self._ready:
                await self._prepare_keys_inside(tx)
        return await self._steps(tx, sql, parameters, entry, written)

    async def _steps(
        self,
        tx: PostgreSQLTransaction,
        sql: str,
        parameters: Parameters,
        entry: tuple[str, Sequence[Any]] | None,
        written: tuple[Any, ...],
    ) -> int:
        name = self._provider.name
        dialect, keys = self._dialect(), None
        if written:
            keys = idempotency.keys()
            # Waits for whoever writes the same key at this moment.
            claim = _CLAIM.bind(dialect, key=written[0], at=written[1], asked=written[2], changed=0)
            if not await tx.execute(*claim):
                made = await self._count_of(tx, written)
                if made is None:
                    raise SerializationConflict(f"{name}: the idempotency key went just now", provider=name)
                return made
        count = await self._change(tx, sql, parameters, audited=entry is not None)
        if keys is not None:
            await tx.execute(*keys.count.bind(dialect, of_key=written[0], number=count))
        if entry is not None:
            await tx.execute(*entry)
        return count

    async def _change(
        self, tx: PostgreSQLTransaction, sql: str, parameters: Parameters, *, audited: bool = True
    ) -> int:
        tx._audited = audited  # noqa: SLF001
        try:
            return await _alone(tx, sql, parameters)
        finally:
            tx._audited = False  # noqa: SLF001

    # ---- keys -------------------------------------------------------------------------------------------------------

    async def claim(self, tx: PostgreSQLTransaction, key: str, mark: int) -> int | None:
        """See `PostgreSQLTransaction.claim`."""
        if not self._ready:
            await self._prepare_keys_inside(tx)
        changed, asked = idempotency.changed_of(mark), idempotency.WORK
        values = {"key": checked_key(key), "at": timestamp(), "changed": changed, "asked": asked}
        if await tx.execute(*_CLAIM.bind(self._dialect(), **values)):  # waits for whoever writes the same key
            return None
        found = await tx.query_one(*idempotency.keys().find.bind(self._dialect(), of_key=key))
        if found is None:
            raise SerializationConflict(f"{tx.provider.name}: the idempotency key went just now")
        return idempotency.mark_of(found, provider=tx.provider.name)

    async def _count_of(self, session: Any, written: tuple[Any, ...]) -> int | None:
        """What the change of that key has changed; None where it was not made."""
        key, _, asked = written
        found = await session.query_one(*idempotency.keys().find.bind(self._dialect(), of_key=key))
        return None if found is None else idempotency.count_of(found, asked, provider=self._provider.name)

    async def prepare_keys(self) -> None:
        """Make the table where it is not there, and let go of old keys now and then."""
        if not self._ready:
            await self._provider._ledger.create_tables(idempotency.keys().metadata)  # noqa: SLF001
            self._ready = True
        due = self._used % idempotency.EVERY == 0
        self._used += 1
        if due:
            with suppress(ProviderError):  # not this call's business; another one tries again
                await self._purge(idempotency.expired(idempotency.KEPT))

    async def _prepare_keys_inside(self, tx: PostgreSQLTransaction) -> None:
        """Make the table in the caller's transaction, where it is not there: it may be rolled back with it."""
        ledger = self._provider._ledger  # noqa: SLF001
        if idempotency.ASKED not in await ledger.columns(tx, idempotency.TABLE):  # none, or an earlier version's
            await ledger.make_tables(tx, idempotency.keys().metadata)
            tx._made_keys = True  # noqa: SLF001
        elif not tx._made_keys:  # noqa: SLF001
            self._ready = True

    async def purge(self, older_than: dt.timedelta) -> int:
        """Delete the keys that are older; how many."""
        before = idempotency.expired(older_than)
        if not self._ready:
            await self._provider._ledger.create_tables(idempotency.keys().metadata)  # noqa: SLF001
            self._ready = True
        gone = deleted = await self._purge(before)
        while deleted == idempotency.MOST:
            deleted = await self._purge(before)
            gone += deleted
        return gone

    async def _purge(self, before: str) -> int:
        purge = idempotency.keys().purge.bind(self._dialect(), before=before, most=idempotency.MOST)
        return await self._provider.execute(*purge)

    def _dialect(self) -> Any:
        return self._provider._ledger.dialect  # noqa: SLF001


async def _alone(tx: PostgreSQLTransaction, sql: str, parameters: Parameters) -> int:
    """The caller's statement in the transaction, which is still open afterwards."""
    if parameters or is_readable(sql):
        return await tx.execute(sql, parameters)
    # Nobody can tell the statements apart: then it has to be one, which only the extended protocol asks for.
    connection, does = tx._prepared(sql, parameters)  # noqa: SLF001  (two halves of one engine, here and below)
    try:
        statement = await connection.prepare(sql)
        await statement.fetch()
    except Exception as error:  # noqa: BLE001  (translated, and raised outside this block)
        raised = tx._fault(error, does).error  # noqa: SLF001
    else:
        if connection.is_in_transaction():
            return affected(statement.get_statusmsg())
        raised = QueryRejected(
            f"{tx.provider.name}: the statement has ended the transaction", provider=tx.provider.name
        )
    raise raised


def _place(error: Any, origin: Callable[[int], int | None]) -> None:
    """The server counts characters in the spliced text; what the caller is told is a place in the caller's own."""
    position = str(getattr(error, "position", None) or "")
    if position.isdecimal():
        error.position = origin(int(position))


def is_unsupported(error: ProviderError) -> bool:
    """Refused for what it is, before anything was done: it may be said in another way (rules, foreign tables)."""
    return isinstance(error, QueryRejected) and (error.code == "0A000" or (error.code or "").startswith("HV"))


def _claim() -> sa.Executable:
    from sqlalchemy.dialects.postgresql import insert  # noqa: PLC0415  (loaded when the first key is used)

    return insert(idempotency.keys().table).on_conflict_do_nothing().inline()


_CLAIM = Statement(_claim)
