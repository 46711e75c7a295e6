"""Erasures that are done again, as they were, in a database that was set back to before them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, DatavernError
from datavern.contracts.values import now
from datavern.privacy.certificate.certificate import Certificate
from datavern.privacy.erasure.erasure import CONSENTS, TOGETHER
from datavern.privacy.erasure.progress import Place, Progress, nothing, why
from datavern.privacy.erasure.records import RecordErasure
from datavern.privacy.erasure.rows import RowErasure
from datavern.privacy.erasure.turns import turns
from datavern.privacy.journal.journal import Entry

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.crypto.erased import Ended, EndedErasures
    from datavern.privacy.erasure.progress import Outcome
    from datavern.privacy.erasure.survey import Survey
    from datavern.privacy.journal.journal import Journal, Steps
    from datavern.privacy.service import Privacy

__all__ = ["Again", "Work"]

_AGAIN = "#again:"
"""What follows a dataset's name, before the moment of the backup, where its step was done again."""
_NOBODY = "nothing of the person stands in the restored database"


@dataclass(slots=True)
class Work:
    """What a replay has to do, and what became of it.

    Attributes:
        behind: the erasures to be done again.
        found: request → how much had come back.
        waiting: dataset's label → why it waits.
    """

    behind: Sequence[Ended]
    found: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)


class Again:
    """Erasures again, in the databases of one manager. Idempotent: a step that is there is not done anew.

    Args:
        privacy: the datasets, and what Datavern keeps beside them.
        journal: where the certificates are.
        ended: the erasures that have ended.
    """

    def __init__(self, privacy: Privacy, journal: Journal, ended: EndedErasures) -> None:
        self._privacy = privacy
        self._journal = journal
        self._ended = ended

    async def subjects(self, behind: Iterable[Ended], places: Sequence[Place]) -> dict[str, str]:
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

    async def _people(self, places: Sequence[Place]) -> AsyncIterator[str]:
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

    async def in_tables(self, database: str, work: Work, survey: Survey, subjects: Mapping[str, str]) -> None:
        """In the tables of a database: in its own transactions, with the consents where it is the ledger.

        Args:
            database: its name.
            work: what to do there; takes what became of it.
            survey: how the datasets stand.
            subjects: request → whose it was. Of those that are missing nothing came back: their keys end, and no more.
        """
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

    async def in_records(self, work: Work, places: Sequence[Place], subjects: Mapping[str, str], moment: str) -> None:
        """In stores of records: step by step. A store that cannot be asked waits, and the others are done.

        Args:
            work: what to do there; takes what became of it.
            places: the datasets.
            subjects: request → whose it was; those that are missing are passed over.
            moment: of the backup: what was done again after it is not done anew.
        """
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

    @property
    def _steps(self) -> Steps:
        return self._privacy.site(self._privacy.ledger_name).steps


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
