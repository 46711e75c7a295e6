"""Inserts that stand under conditions, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import QueryRejected
from datavern.contracts.fused import Entry, Guard, entry_statement
from datavern.engines.postgresql.fused import Plan, is_unsupported, nowhere
from datavern.engines.postgresql.splice import HELD, held, shared_held
from datavern.engines.postgresql.statements import WRITES
from datavern.engines.postgresql.together import Together

if TYPE_CHECKING:
    from datavern.engines.postgresql.provider import PostgreSQLProvider

__all__ = ["PostgreSQLGuarded"]

_KNOWN_TEXTS: Final = 2048


class PostgreSQLGuarded:
    """`Guarded` on PostgreSQL: guards, row and entry are one statement.

    A guard with FOR SHARE waits for whoever changes its row, and is then asked again about the row as it stands
    (PostgreSQL 18 documentation, 13.2.1): what it does not find any more is not there for the insert either. Its lock
    holds until the statement has committed.
    """

    __slots__ = ("_provider", "_texts")

    def __init__(self, provider: PostgreSQLProvider) -> None:
        self._provider = provider
        self._texts: dict[tuple[Any, ...], tuple[Plan, tuple[int, ...]]] = {}

    async def insert(self, store: str, row: Mapping[str, Any], *, guards: Sequence[Guard], audit: Entry) -> bool:
        """See `datavern.contracts.fused.Guarded`."""
        provider = self._provider
        entry, written = entry_statement(audit, provider.face, source=HELD)
        columns = tuple(row)
        known = (store, columns, tuple(guard for guard, _ in guards), entry)
        plan, order = self._texts.get(known) or self._text(known, [len(values) for _, values in guards], len(written))
        values = [value for _, given in guards for value in given]
        values += [row[columns[i]] for i in order]
        values += written
        try:
            return await provider._fusing.gathered(plan, plan.text, values, WRITES, values) > 0  # noqa: SLF001
        except QueryRejected as error:
            if not is_unsupported(error):
                raise
        return False

    def _text(self, known: tuple[Any, ...], takes: Sequence[int], written: int) -> tuple[Plan, tuple[int, ...]]:
        store, columns, guards, entry = known
        provider = self._provider
        insert, order = provider._subjects.insert_for_each(store, columns, HELD)  # noqa: SLF001
        taken = (*takes, len(order))
        together = None
        table = provider._subjects.quoted_store(store)  # noqa: SLF001
        if provider.settings.group_commit and "\\" not in table:  # it is to stand in a literal
            text = shared_held(guards, insert, entry, table=table, taken=taken, takes=written)
            together = Together(provider, table, text, returning=True)
        if len(self._texts) >= _KNOWN_TEXTS:
            self._texts.clear()
        plan = Plan(held(guards, insert, entry, taken=taken), nowhere, 0, counts=False, together=together)
        found = self._texts[known] = (plan, order)
        return found
