"""Restores: a database that was set back hears of every erasure since, before its personal data may be read.

Beside the keys stands every erasure that has ended, and no restore of data sets that back (`datavern.crypto.erased`).
A database that holds its own steps says by itself which erasures it knows of: when a manager opens, and finds one that
lacks some, they are done there again, as they were, and until then the personal data in it is shut. A store without
steps (documents, keys and values) cannot say so. It is shut by `begin`, and told since when it has heard of nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, DatavernError, ErasureIncomplete
from datavern.contracts.values import now, timestamp
from datavern.crypto.erased import EndedErasures, ErasuresLost
from datavern.privacy.certificate.certificate import Certificate
from datavern.privacy.erasure.again import Again, Work
from datavern.privacy.erasure.heard import Hearing
from datavern.privacy.erasure.progress import why
from datavern.privacy.journal.values import Receipt

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.privacy.erasure.erasure import Erasures
    from datavern.privacy.journal.journal import Journal, Steps
    from datavern.privacy.personal.store import PersonalStore
    from datavern.privacy.service import Privacy

__all__ = ["Replayed", "Restores"]

_RESTORING = "#restoring"
"""What stands in the place of a request where it is written down that a database is being restored."""
_CLAIMS = (
    "What was restored was treated again as the listed erasures had treated it; until then db.personal was shut.",
)
_LIMITS = (
    "The backup itself still holds what it held: values that were never sealed can be read in it until it is pruned.",
)
_ELSEWHERE = (
    "Rows that are found through another database, which the erased person's row has left since, cannot be found by it"
)


@dataclass(frozen=True, slots=True)
class Replayed:
    """A restore that has heard of every erasure.

    Attributes:
        database: which.
        erasures: how many were done again.
        rows: how many rows and records had come back.
        completed_at: when, in UTC.
        certificate: the same, signed.
    """

    database: str
    erasures: int
    rows: int
    completed_at: dt.datetime
    certificate: Certificate


class Restores:
    """Restores of the databases of one manager.

    Args:
        privacy: the datasets, and what Datavern keeps beside them.
        journal: where the certificates are.
        erasures: says how the datasets stand.
    """

    def __init__(self, privacy: Privacy, journal: Journal, erasures: Erasures) -> None:
        self._privacy = privacy
        self._journal = journal
        self._erasures = erasures
        self._ended = EndedErasures(privacy.ledger)
        self._hearing = Hearing(privacy, self._ended)
        self._again = Again(privacy, journal, self._ended)

    async def look(self) -> None:
        """Find the databases that were set back, and replay into them; what cannot be done leaves them shut.

        Called when the manager opens. Never raises for a store that is still down.

        Raises:
            ConfigurationError: the ledger has lost what it knew of the erasures.
        """
        marked = await self._steps.done(_RESTORING)
        for database, marker in marked.items():
            self._shut(database, f"{database} is being restored, to how it was {marker['since'][:19]}")
        if not await self._ended.any():
            return
        await self._ended.check()
        databases = {store.dataset.database for store in self._privacy.datasets}
        for database in databases.difference(marked):
            await self._look_at(database)
        for database in databases:
            with suppress(DatavernError):  # its database cannot be asked now: at the next opening
                await self._still_kept(database)

    async def _look_at(self, database: str) -> None:
        try:
            behind = await self._hearing.behind(database)
        except ErasuresLost:
            raise
        except DatavernError as error:
            self._shut(database, f"whether {database} was restored cannot be told now ({why(error)})")
            return
        if behind:
            try:
                await self.replay(database)
            except DatavernError as error:
                number = len(behind)
                self._shut(database, f"{database} was restored, and erasures wait there: {number} ({why(error)})")

    async def _still_kept(self, database: str) -> None:
        """What a hold kept from erasures, and a restore brought back after they had completed: they wait for it again.

        The database's own word: what was kept stands in it until it is gone.
        """
        privacy = self._privacy
        kept = await privacy.completions.kept(database)
        waiting = await privacy.completions.waiting(kept)
        for request, labels in kept.items():
            if request in waiting:
                continue
            text = await self._journal.certificate(request)
            if text is not None:
                body = Certificate.from_json(text).body
                await privacy.completions.again(request, str(body["subject"]), str(body["received"]), labels)

    async def begin(self, database: str, *, since: dt.datetime) -> None:
        """Say that a database is about to be set back: its personal data is shut, in every process that opens from now.

        Args:
            database: its name.
            since: when the backup was made, or before.

        Raises:
            ConfigurationError: no such database with personal data, or no moment in the past with a time zone.
        """
        self._stores(database)
        moment = _moment(since)
        privacy = self._privacy

        async def work(tx: Transaction) -> None:
            before = (await self._steps.done_many([_RESTORING], tx)).get(_RESTORING, {}).get(database)
            if before is not None:
                await self._steps.forget(_RESTORING, database, tx)
            first = moment if before is None else min(moment, before["since"])
            await self._steps.record([(_RESTORING, database, {"since": first})], tx)
            await privacy.ledger_log.append(tx, action="restore_begun", details={"database": database, "since": first})

        await needs(privacy.ledger, "transactions").run_in_transaction(work, isolation="read committed")
        self._shut(database, f"{database} is being restored, to how it was {moment[:19]}")

    async def replay(self, database: str, *, since: dt.datetime | None = None) -> Replayed:
        """Do every erasure again of which a restored database has not heard; then it may be read. Idempotent.

        Args:
            database: its name.
            since: when the backup was made, or before. Needed for stores without tables, where `begin` did not say it:
                they cannot tell by themselves which erasures they know of.

        Raises:
            ErasureIncomplete: a row cannot go as it stands; it stays shut, and `receipt` says what waits.
            ConfigurationError: no such database with personal data, or `since` is missing; or the ledger has lost what
                it knew of the erasures.
        """
        stores = self._stores(database)
        self._shut(database, f"{database} was restored, and hears of the erasures since")
        marker = (await self._steps.done(_RESTORING)).get(database)
        moment = _moment(since) if since is not None else None if marker is None else marker["since"]
        await self._ended.check_every()
        every = await self._ended.every()
        survey = await self._erasures.survey(stores)
        if survey.refused:
            label, error = next(iter(survey.refused.items()))
            raise ErasureIncomplete(
                f"the restore of {database} waits for {label}", Receipt(_RESTORING, waiting={label: why(error)})
            )
        if survey.records and moment is None:
            raise ConfigurationError(f"replay: since is missing: when was the backup of {database} made?")
        tables = survey.tables.get(database, [])
        rows = Work(await self._hearing.lacking(database, every))
        labels = {place.label for place in survey.records}
        records = Work([e for e in every if moment is not None and e.erased_at >= moment and e.datasets & labels])
        subjects = await self._again.subjects([*rows.behind, *records.behind], [*tables, *survey.records])
        await self._again.in_tables(database, rows, survey, subjects)
        if records.behind and moment is not None:
            await self._again.in_records(records, survey.records, subjects, moment)
        waiting = rows.waiting | records.waiting
        if waiting:
            raise ErasureIncomplete(
                f"the restore of {database} waits for {', '.join(waiting)}: its personal data stays shut until "
                f"replay({database!r}) is through",
                Receipt(_RESTORING, waiting=waiting),
            )
        elsewhere = [
            store.dataset.label
            for store in stores
            if store.link is not None and store.link.target.dataset.database != database
        ]
        await self._still_kept(database)
        return await self._done(database, moment, rows.found | records.found, elsewhere)

    # ---- the end ----------------------------------------------------------------------------------------------------

    async def _done(
        self, database: str, since: str | None, found: Mapping[str, int], elsewhere: Sequence[str]
    ) -> Replayed:
        privacy = self._privacy
        completed, rows = timestamp(), sum(found.values())
        details = {"database": database, "erasures": len(found), "found": rows, "since": since}

        async def work(tx: Transaction) -> str:
            await self._steps.forget(_RESTORING, database, tx)
            return await privacy.ledger_log.append(tx, action="restore_replayed", details=details)

        audit = await needs(privacy.ledger, "transactions").run_in_transaction(work)
        certificate = Certificate.issue(
            privacy.signer,
            "erased again",
            {
                "organisation": privacy.organisation,
                "database": database,
                "since": since,
                "completed": completed,
                "requests": [{"request": request, "found": number} for request, number in found.items()],
                "audit": audit,
                "claims": list(_CLAIMS),
                "limits": [*_LIMITS, *(f"{_ELSEWHERE}: {label}." for label in elsewhere)],
            },
        )
        self._shut(database, "")
        return Replayed(database, len(found), rows, dt.datetime.fromisoformat(completed), certificate)

    # ---- what they share --------------------------------------------------------------------------------------------

    @property
    def _steps(self) -> Steps:
        return self._privacy.site(self._privacy.ledger_name).steps

    def _stores(self, database: str) -> list[PersonalStore]:
        """The datasets of that database that are about people."""
        stores = [
            store
            for store in self._privacy.datasets
            if store.dataset.database == database and store.dataset.subject is not None
        ]
        if not stores:
            names = sorted({store.dataset.database for store in self._privacy.datasets})
            raise ConfigurationError(
                f"{database}: no database of that name has personal data; there are: {', '.join(names)}"
            )
        return stores

    def _shut(self, database: str, reason: str) -> None:
        """Shut the personal data of a database, or with no reason open it."""
        hint = f'{reason}: await db.subject_requests.replay("{database}") opens it' if reason else ""
        for store in self._privacy.datasets:
            if store.dataset.database == database:
                store.shut(hint)


def _moment(since: dt.datetime) -> str:
    if not isinstance(since, dt.datetime) or since.tzinfo is None:
        raise ConfigurationError("since: expected a moment with a time zone: datetime(…, tzinfo=UTC)")
    if since > now():
        raise ConfigurationError("since: the moment lies in the future")
    return since.astimezone(dt.UTC).isoformat(timespec="microseconds")
