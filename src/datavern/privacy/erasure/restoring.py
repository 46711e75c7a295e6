"""Restores: a database that was set back hears of every erasure since, before its personal data may be read.

Beside the keys stands every erasure that has ended, and no restore of data sets that back (`datavern.crypto.erased`).
A database that holds its own steps says by itself which erasures it knows of: when a manager opens, and finds one that
lacks some, they are done there again, as they were, and until then the personal data in it is shut. A store without
steps (documents, keys and values) cannot say so. It is shut by `begin`, and told since when it has heard of nothing.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, DatavernError, ErasureIncomplete
from datavern.contracts.values import now, timestamp
from datavern.crypto.erased import Ended, EndedErasures
from datavern.privacy.certificate.certificate import Certificate
from datavern.privacy.erasure.erasure import CONSENTS, TOGETHER
from datavern.privacy.erasure.heard import Hearing
from datavern.privacy.erasure.progress import Place, Progress, nothing, why
from datavern.privacy.erasure.records import RecordErasure
from datavern.privacy.erasure.rows import RowErasure
from datavern.privacy.erasure.turns import turns
from datavern.privacy.journal.journal import Entry
from datavern.privacy.journal.values import Receipt

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.privacy.erasure.erasure import Erasures, Survey
    from datavern.privacy.erasure.progress import Outcome
    from datavern.privacy.journal.journal import Journal
    from datavern.privacy.personal.store import PersonalStore
    from datavern.privacy.service import Privacy

__all__ = ["Replayed", "Restores"]

_RESTORING = "#restoring"
"""What stands in the place of a request where it is written down that a database is being restored."""
_AGAIN = "#again:"
"""What follows a dataset's name, before the moment of the backup, where its step was done again."""
_NOBODY = "nothing of the person stands in the restored database"
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


@dataclass(slots=True)
class _Work:
    """What a replay has to do, and what became of it.

    Attributes:
        behind: the erasures to be done again.
        found: request → how much had come back.
        waiting: dataset's label → why it waits.
    """

    behind: Sequence[Ended]
    found: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)


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

    async def look(self) -> None:
        """Find the databases that were set back, and replay into them; what cannot be done leaves them shut.

        Called when the manager opens. Never raises for a store that is still down.
        """
        marked = await self._steps.done(_RESTORING)
        for database, marker in marked.items():
            self._shut(database, f"{database} is being restored, to how it was {marker['since'][:19]}")
        if not await self._ended.any():
            return
        databases = {store.dataset.database for store in self._privacy.datasets}
        for database in databases:
            if database in marked:
                continue
            try:
                behind = await self._hearing.behind(database)
            except DatavernError as error:
                self._shut(database, f"whether {database} was restored cannot be told now ({why(error)})")
                continue
            if behind:
                try:
                    await self.replay(database)
                except DatavernError as error:
                    number = len(behind)
                    self._shut(database, f"{database} was restored, and erasures wait there: {number} ({why(error)})")

        for database in databases:
            try:
                await self._still_kept(database)
            except DatavernError:
                continue  # its database cannot be asked now: at the next opening

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
            ConfigurationError: no such database with personal data, or `since` is missing.
        """
        stores = self._stores(database)
        self._shut(database, f"{database} was restored, and hears of the erasures since")
        marker = (await self._steps.done(_RESTORING)).get(database)
        moment = _moment(since) if since is not None else None if marker is None else marker["since"]
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
        rows = _Work(await self._hearing.lacking(database, every))
        labels = {place.label for place in survey.records}
        records = _Work([e for e in every if moment is not None and e.erased_at >= moment and e.datasets & labels])
        subjects = await self._subjects([*rows.behind, *records.behind], [*tables, *survey.records])
        await self._again_in_tables(database, rows, survey, subjects)
        if records.behind and moment is not None:
            await self._again_in_records(records, survey.records, subjects, moment)
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

    # ---- again ------------------------------------------------------------------------------------------------------

    async def _subjects(self, behind: Iterable[Ended], places: Sequence[Place]) -> dict[str, str]:
        """Request → whose it was: the certificate says it; where the ledger was set back too, the rows that came back.

        Those of whom nothing came back, and no certificate tells, are left out.
        """
        found: dict[str, str] = {}
        unknown: dict[bytes, list[str]] = {}
        for ended in behind:
            text = await self._journal.certificate(ended.request)
            if text is None:
                unknown.setdefault(ended.tag, []).append(ended.request)
            else:
                found[ended.request] = str(Certificate.from_json(text).body["subject"])
        if unknown:
            async for subject in self._people(places):
                found |= dict.fromkeys(unknown.get(self._privacy.keys.subject_tag(subject), ()), subject)
        return found

    async def _people(self, places: Sequence[Place]) -> Any:
        """Whoever has a row in these datasets; some of them several times."""
        for place in places:
            if place.rows is None or place.store.link is not None:
                continue  # a row that names nobody itself
            last = None
            async with place.store.subjects.stream(place.store.dataset.table, {}) as rows:
                async for row in rows:
                    try:
                        subject = place.rows.subject_of(row)
                    except ConfigurationError:
                        continue  # what names nobody was never erased
                    if subject is not None and subject != last:
                        last = subject
                        yield subject

    async def _again_in_tables(self, database: str, work: _Work, survey: Survey, subjects: Mapping[str, str]) -> None:
        places = survey.tables.get(database, [])
        labels = {place.label for place in places}
        keys = await self._ended.keys({ended.tag for ended in work.behind})
        for at in range(0, len(work.behind), TOGETHER):
            some = work.behind[at : at + TOGETHER]
            known = [e for e in some if e.request in subjects]
            group = [Progress(_entry(e, subjects[e.request], labels, keys[e.tag])) for e in known]
            for turn in turns({database: places}, []):
                own = turn.tables.get(database, [])
                await RowErasure(self._privacy, database, own, group, survey.linked, action="erased_again").run()
            await self._of_nobody(database, [e for e in some if e.request not in subjects], places, keys)
            if database == self._privacy.ledger_name:
                await self._consents(some)
            for progress in group:
                work.found[progress.entry.id] = sum(outcome["found"] for outcome in progress.done.values())
                work.waiting |= progress.waiting
            work.found |= dict.fromkeys((e.request for e in some if e.request not in subjects), 0)

    async def _of_nobody(
        self, database: str, some: Sequence[Ended], places: Sequence[Place], keys: Mapping[bytes, Sequence[bytes]]
    ) -> None:
        """The steps of those of whom nothing came back: their keys end here too."""
        if not some:
            return
        site = self._privacy.site(database)

        async def work(tx: Transaction) -> None:
            await site.life.end(tx, sorted({key for e in some for key in keys[e.tag]}))
            done = await site.steps.done_many({e.request for e in some}, tx)
            steps = [
                (e.request, place.name, nothing(place.store.dataset.erasure, _NOBODY))
                for e in some
                for place in places
                if place.label in e.datasets and place.name not in done.get(e.request, {})
            ]
            await site.steps.record(steps, tx)

        await needs(site.provider, "transactions").run_in_transaction(work, isolation="read committed")

    async def _consents(self, some: Sequence[Ended]) -> None:
        """The consents that came back with a ledger."""
        privacy = self._privacy

        async def work(tx: Transaction) -> None:
            done = await self._steps.done_many({e.request for e in some}, tx)
            left = [e for e in some if CONSENTS in e.datasets and CONSENTS not in done.get(e.request, {})]
            found = await privacy.consents.delete([e.tag for e in left], tx)
            steps = [(e.request, CONSENTS, {**nothing("delete"), "found": found[e.tag]}) for e in left]
            await self._steps.record(steps, tx)

        await needs(privacy.ledger, "transactions").run_in_transaction(work, isolation="read committed")

    async def _again_in_records(
        self, work: _Work, places: Sequence[Place], subjects: Mapping[str, str], moment: str
    ) -> None:
        labels = {place.label for place in places}
        few = asyncio.Semaphore(TOGETHER // 32)
        for at in range(0, len(work.behind), TOGETHER):
            some = [e for e in work.behind[at : at + TOGETHER] if e.request in subjects]
            done = await self._steps.done_many({e.request for e in some})
            group = [Progress(_entry(e, subjects[e.request], labels, ())) for e in some]
            steps: list[tuple[str, str, Outcome]] = []

            async def again(place: Place, progress: Progress, steps: list[Any] = steps) -> None:
                erasure = RecordErasure(self._privacy, place, progress, {})
                try:
                    async with few:
                        await erasure.look()
                except DatavernError as error:
                    work.waiting[place.label] = why(error)
                    return
                steps.append((progress.entry.id, place.name + _AGAIN + moment, erasure.outcome))

            await asyncio.gather(
                *(
                    again(place, progress)
                    for place in places
                    for progress in group
                    if place.label in progress.entry.datasets
                    and place.name + _AGAIN + moment not in done.get(progress.entry.id, {})
                )
            )
            await self._write(steps)
            for request, _, outcome in steps:
                work.found[request] = work.found.get(request, 0) + outcome["found"]

    async def _write(self, steps: Sequence[tuple[str, str, Outcome]]) -> None:
        privacy = self._privacy

        async def work(tx: Transaction) -> None:
            done = await self._steps.done_many({request for request, _, _ in steps}, tx)
            new = [step for step in steps if step[1] not in done.get(step[0], {})]
            entries = [
                {"action": "erased_again", "details": {"request": request, "found": outcome["found"]}}
                for request, _, outcome in new
            ]
            await privacy.ledger_log.append_many(tx, entries)
            await self._steps.record(new, tx)

        if steps:
            await needs(privacy.ledger, "transactions").run_in_transaction(work, isolation="read committed")

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
    def _steps(self) -> Any:
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


def _entry(ended: Ended, subject: str, labels: set[str], keys: Sequence[bytes]) -> Entry:
    today = now().date()
    return Entry(
        ended.request,
        "erasure",
        subject,
        today,
        today,
        ended.erased_at,
        datasets=tuple(sorted(ended.datasets & labels)),
        key_ids=tuple(keys),
    )


def _moment(since: dt.datetime) -> str:
    if not isinstance(since, dt.datetime) or since.tzinfo is None:
        raise ConfigurationError("since: expected a moment with a time zone: datetime(…, tzinfo=UTC)")
    if since > now():
        raise ConfigurationError("since: the moment lies in the future")
    return since.astimezone(dt.UTC).isoformat(timespec="microseconds")
