"""Which erasures a database has not heard of: asked at every opening, without reading all that there ever were.

A database that was seen to hold every step it must gets a random token among its steps, in the transaction that looked.
The same token stands beside the keys, with how far it reaches. Whatever sets the database back to before takes the
token out of it. One that still has it has lost nothing that was committed before it, so that only the erasures that
have ended since are looked for.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import DatavernError
from datavern.crypto.erased import Heard, scope_of
from datavern.privacy.erasure.erasure import CONSENTS
from datavern.privacy.personal.records import RecordStore

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.crypto.erased import Ended, EndedErasures
    from datavern.privacy.journal.journal import Steps
    from datavern.privacy.service import Privacy

__all__ = ["Hearing"]

_HEARD = "#heard"
"""What stands in the place of a request where a database says up to what it was seen to hold its steps."""
_MANY = 100
"""Erasures that are looked for one by one, before the database gets a token that reaches further."""


class Hearing:
    """What the databases of one manager have heard of.

    Args:
        privacy: the datasets, and what Datavern keeps beside them.
        ended: the erasures.
    """

    __slots__ = ("_ended", "_privacy")

    def __init__(self, privacy: Privacy, ended: EndedErasures) -> None:
        self._privacy = privacy
        self._ended = ended

    async def behind(self, database: str) -> Sequence[Ended]:
        """The erasures of which a database that holds its own steps lacks some. Of a store of records: none.

        Raises:
            ErasuresLost: all that there ever were are looked for, and some of them are missing.
        """
        names = self._names(database)
        if not names:
            return []
        steps = self._privacy.site(database).steps
        heard = await self._ended.heard(scope_of(database, names))
        if heard is not None and heard.token not in await steps.done(_HEARD):
            heard = None
        if heard is None:
            await self._ended.check_every()
        since = await self._ended.since(heard)
        lacking = await _lacking(steps, names, since, heard)
        if not lacking and len(since) >= _MANY:
            await self._note(database, names, heard)
        return lacking

    async def lacking(self, database: str, every: Sequence[Ended]) -> Sequence[Ended]:
        """The same, of these: each is looked for, whatever the database was seen to hold."""
        names = self._names(database)
        return await _lacking(self._privacy.site(database).steps, names, every, None) if names else []

    async def _note(self, database: str, names: Mapping[str, str], before: Heard | None) -> None:
        """Look again, and write the token in the same transaction: it stands on what this very server holds."""
        site = self._privacy.site(database)
        steps, token = site.steps, secrets.token_hex(16)
        try:
            since, reach = await self._ended.reach(before)

            async def work(tx: Transaction) -> bool:
                if before is not None:
                    if before.token not in (await steps.done_many([_HEARD], tx)).get(_HEARD, {}):
                        return False
                    await steps.forget(_HEARD, before.token, tx)
                if await _lacking(steps, names, since, before, tx):
                    return False
                await steps.record([(_HEARD, token, {})], tx)
                return True

            if await needs(site.provider, "transactions").run_in_transaction(work, isolation="read committed"):
                await self._ended.hear(scope_of(database, names), Heard(token, reach))
        except DatavernError:
            return  # it cannot be written to now, or another process did the same: at a later opening

    def _names(self, database: str) -> dict[str, str]:
        """Label → name of the datasets that have their steps in that database."""
        names = {
            store.dataset.label: store.dataset.name
            for store in self._privacy.datasets
            if store.dataset.database == database
            and store.dataset.subject is not None
            and not isinstance(store, RecordStore)
        }
        if database == self._privacy.ledger_name:
            names[CONSENTS] = CONSENTS
        return names


async def _lacking(
    steps: Steps,
    names: Mapping[str, str],
    erasures: Sequence[Ended],
    heard: Heard | None,
    tx: Transaction | None = None,
) -> list[Ended]:
    if not erasures:
        return []
    only = None if heard is None else [ended.request for ended in erasures]
    counts = await steps.counts(sorted(names.values()), only, tx)
    return [ended for ended in erasures if counts.get(ended.request, 0) < len(ended.datasets & names.keys())]
