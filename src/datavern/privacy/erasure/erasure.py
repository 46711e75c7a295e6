"""The erasure of people, store by store, to its end (GDPR Art. 17).

In this order: the journal, so that a crash is finished, and with it the keys are marked, so that nothing new is sealed;
every database at the same time, in one transaction each where it has such: the keys end there, the rows go as the data
map says, the audit entries and the steps are written; then, in one transaction of the ledger, the keys are destroyed,
the certificate is signed, and the journal closed. Each of these is safe to do again, and each dataset's step is done
once. Several people go together, each with a journal entry, steps and a certificate of their own.

The audit entries of an erasure name the request and no handle, and the journal forgets whose requests were: the
certificate names the person and those entries, and must not lead to the handle, and by it to all that the log holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConstraintViolated, DatavernError, ProviderError, SubjectRequestRejected
from datavern.contracts.values import timestamp
from datavern.crypto.erased import EndedErasures
from datavern.crypto.erasures import ATTEMPTS, contended
from datavern.privacy.certificate.certificate import ERASED_CLAIMS, ERASED_LIMITS, RECORDS_CLAIM, Certificate
from datavern.privacy.consent.standing import not_erased
from datavern.privacy.erasure.derived import DERIVED, DERIVED_CLAIM, DerivedErasures, step_name
from datavern.privacy.erasure.numbers import NUMBERS, numbers_kept, numbers_to_keep
from datavern.privacy.erasure.progress import Place, Progress, nothing, step_details, why
from datavern.privacy.erasure.records import RecordErasures
from datavern.privacy.erasure.rows import RowErasure
from datavern.privacy.erasure.survey import Survey, in_order, recipients
from datavern.privacy.erasure.turns import hold_back, linked_first, turns
from datavern.privacy.journal.values import Receipt
from datavern.privacy.links.links import numbers_known
from datavern.privacy.personal.records import RecordStore

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.crypto.keystore import Destroyed
    from datavern.privacy.journal.journal import Entry, Journal
    from datavern.privacy.personal.store import PersonalStore
    from datavern.privacy.service import Privacy

__all__ = ["CONSENTS", "TOGETHER", "Done", "Erasures"]

CONSENTS = "datavern.consents"
TOGETHER = 250
"""People who are erased together: what they share (a transaction, a commit, a second look) is paid for once."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done:
    """An erasure at its end."""

    message: str
    completed_at: str
    certificate: Certificate


class Erasures:
    """Erasures, begun, gone on with and ended.

    Args:
        privacy: the datasets, the keys and the signature.
        journal: where the requests are written down.
    """

    def __init__(self, privacy: Privacy, journal: Journal) -> None:
        self._privacy = privacy
        self._journal = journal
        self._ended = EndedErasures(privacy.ledger)

    async def erase(self, entries: Sequence[Entry]) -> list[Done | Receipt]:
        """Write erasures down, once it is known that they can be carried out as they stand, and run them: as `run`.

        Raises:
            ConfigurationError: the live schema lacks what the data map says. Nothing was changed.
            SubjectRequestRejected: the data of one of them is restricted. Nothing was changed.
        """
        privacy = self._privacy
        survey = await self.survey(await privacy.stores())
        for error in survey.refused.values():
            if not isinstance(error, ProviderError):  # a database that cannot be asked now waits, and the others do not
                raise error
        labels = (*survey.labels, *(derived.label for derived in privacy.derived.values()))
        key = await self._journal.key()
        numbers = await numbers_to_keep(privacy, survey.stores, [entry.subject for entry in entries])
        closed: dict[str, list[bytes]] = {}

        async def work(tx: Transaction) -> list[Entry]:
            nonlocal closed
            closed = await privacy.keys.start_erasures([entry.subject for entry in entries], session=tx)
            for request in (await privacy.standing.restricted(closed, tx)).values():
                raise SubjectRequestRejected(not_erased(request))
            begun = [replace(e, datasets=labels, key_ids=tuple(closed[e.subject])) for e in entries]
            begun = await self._journal.begin(begun, tx, key=key)
            if numbers:
                known = [(e.id, NUMBERS, numbers[e.subject]) for e in begun if e.subject in numbers]
                await privacy.site(privacy.ledger_name).steps.record(known, tx)
            said = [{"request": entry.id, "identity": entry.details.get("identity")} for entry in begun]
            await privacy.ledger_log.append_many(tx, [{"action": "erasure_received", "details": d} for d in said])
            return begun

        begun = await self._in_ledger(work)  # from here on nothing new about these people is sealed, in any process
        privacy.keys.heard_of_erasures()
        return await self._run(begun, survey)

    async def run(self, entries: Sequence[Entry]) -> list[Done | Receipt]:
        """Do all that is left of erasures that are written down, together: what came of each, in order. Idempotent.

        Returns:
            A `Receipt` of those that wait: a store could not be reached, or its schema does not let the rows go; the
            rest is done, and the request stays open.
        """
        labels = {label for entry in entries for label in entry.datasets}
        return await self._run(entries, await self.survey(await self._privacy.stores(labels)))

    async def _run(self, entries: Sequence[Entry], survey: Survey) -> list[Done | Receipt]:
        closed = monotonic()  # the keys were closed before
        group = [Progress(entry) for entry in entries]
        for progress in group:
            for label in progress.entry.datasets:
                if label in survey.refused:
                    progress.waiting[label] = why(survey.refused[label])
                elif label not in survey.labels and not label.startswith(DERIVED):
                    progress.waiting[label] = "it is not in this manager's data map"
        ended: dict[str, dict[str, dict[str, Any]]] = {}
        with numbers_known(await numbers_kept(self._privacy, survey.stores, group)):
            for turn in turns(survey.tables, survey.records):
                records = RecordErasures(self._privacy, turn.records, group)
                hold_back(turn.records, group, survey.linked)
                await asyncio.gather(
                    self._begin_records(records, group),
                    *(
                        RowErasure(self._privacy, name, places, group, survey.linked).run()
                        for name, places in turn.tables.items()
                    ),
                )
                for request, done in (await records.end(closed)).items():
                    ended.setdefault(request, {}).update(done)
        for request, outcomes in (await self._derived(group)).items():
            ended[request] = {**ended.get(request, {}), **outcomes}
        return await self._close(group, ended, holds_records=bool(survey.records))

    async def certificate(self, request_id: str) -> Certificate | None:
        """The certificate of an erasure that has ended, or None."""
        text = await self._journal.certificate(request_id)
        return None if text is None else Certificate.from_json(text)

    async def done(self, request_id: str) -> Done | None:
        """How an erasure ended that has ended, or None."""
        signed = await self.certificate(request_id)
        if signed is None:
            return None
        return Done(_message({s["dataset"]: s for s in signed.body["stores"]}), str(signed.body["completed"]), signed)

    # ---- the parts --------------------------------------------------------------------------------------------------

    async def _begin_records(self, records: RecordErasures, group: Sequence[Progress]) -> None:
        try:
            await records.begin()
        except DatavernError as error:  # the ledger cannot be asked
            for progress in group:
                progress.waiting.setdefault(CONSENTS, why(error))

    async def _derived(self, group: Sequence[Progress]) -> dict[str, dict[str, dict[str, Any]]]:
        """What the application made elsewhere of all that is gone by now."""
        asked = [p.entry.id for p in group if any(label.startswith(DERIVED) for label in p.entry.datasets)]
        if not asked:
            return {}
        steps = await self._privacy.site(self._privacy.ledger_name).steps.done_many(asked)
        return await DerivedErasures(self._privacy.derived, group).run(steps)

    async def survey(self, stores: Sequence[PersonalStore]) -> Survey:
        """The stores as they stand now, all databases at the same time."""
        by_database: dict[str, list[PersonalStore]] = {}
        for store in stores:
            by_database.setdefault(store.dataset.database, []).append(store)
        survey = Survey(tuple(store.dataset.label for store in stores), stores)
        await asyncio.gather(*(self._look(survey, name, found) for name, found in by_database.items()))
        return survey

    async def _look(self, survey: Survey, database: str, stores: Sequence[PersonalStore]) -> None:
        found = []
        for store in stores:
            try:
                rows = await store.rows(fresh=True) if await store.exists() else None
            except DatavernError as error:
                survey.refused[store.dataset.label] = error
                continue
            found.append(Place(store, rows))
        survey.records += [place for place in found if isinstance(place.store, RecordStore)]
        tables = [place for place in found if not isinstance(place.store, RecordStore)]
        if tables:
            survey.tables[database] = linked_first(in_order(tables))

    async def _in_ledger(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Some work in one transaction of the ledger, again where somebody else was at the same keys."""
        ledger = self._privacy.ledger
        for _ in range(ATTEMPTS):
            try:
                return await needs(ledger, "transactions").run_in_transaction(work, isolation="read committed")
            except ConstraintViolated:
                continue  # somebody made a person's first key, or handle, at the same moment
        raise contended(ledger)

    # ---- the end ----------------------------------------------------------------------------------------------------

    async def _close(
        self,
        group: Sequence[Progress],
        records: Mapping[str, Mapping[str, dict[str, Any]]],
        *,
        holds_records: bool,
    ) -> list[Done | Receipt]:
        """Write down what was done where nothing commits with it; end what is done everywhere; what came of each."""
        privacy = self._privacy
        if not any(records.values()) and all(progress.waiting for progress in group):
            return [_receipt(progress) for progress in group]
        key, waiting = await self._journal.key(), await privacy.completions.key()
        answers: dict[str, Done] = {}
        destroyed: dict[str, list[Destroyed]] = {}

        async def work(tx: Transaction) -> None:
            nonlocal destroyed
            answers.clear()
            held = await self._journal.hold([progress.entry.id for progress in group], tx)
            open_ = [progress for progress in group if progress.entry.id in held]
            await self._write_steps(open_, records, tx)
            ending = [progress for progress in open_ if not progress.waiting]
            destroyed = await privacy.keys.destroy_keys([p.entry.subject for p in ending], session=tx) if ending else {}
            completed = timestamp()
            gone = {p.entry.id: [d for d in destroyed[p.entry.subject] if d.key_id in p.ended] for p in ending}
            audits = await privacy.ledger_log.append_many(
                tx,
                [
                    {
                        "action": "erasure_completed",
                        "details": {
                            "request": p.entry.id,
                            "found": sum(outcome["found"] for outcome in p.done.values()),
                            "keys": len(gone[p.entry.id]),
                        },
                    }
                    for p in ending
                ],
            )
            closing = []
            for progress, audit in zip(ending, audits, strict=True):
                entry = progress.entry
                certificate = self._certificate(
                    progress, completed, audit, destroyed=gone[entry.id], records=holds_records
                )
                closing.append((entry, certificate.to_json()))
                answers[entry.id] = Done(_message(progress.done), completed, certificate)
            await self._journal.close(closing, completed, tx, key=key, held=held)
            await privacy.completions.wait([(p.entry, p.done) for p in ending], tx, key=waiting)
            tag = privacy.keys.subject_tag
            await self._ended.add(
                [(p.entry.id, tag(p.entry.subject), {*p.entry.datasets, CONSENTS}) for p in ending], tx
            )

        await self._in_ledger(work)
        privacy.keys.heard_of_erasures({s: [one.key_id for one in found] for s, found in destroyed.items()})
        return [answers.get(p.entry.id) or await self._elsewhere(p) for p in group]

    async def _write_steps(
        self,
        group: Sequence[Progress],
        records: Mapping[str, Mapping[str, dict[str, Any]]],
        tx: Transaction,
    ) -> None:
        """The steps that are the ledger's own: of stores without steps, and of the consents of those that can end.

        The consents are last, since a write that is refused is refused before it asks for consent.
        """
        privacy = self._privacy
        site = privacy.site(privacy.ledger_name)
        if not group:
            return
        earlier = await site.steps.done_many([progress.entry.id for progress in group], tx)
        new: list[tuple[Progress, str, str, dict[str, Any]]] = []  # whose, what the step is called, its label, outcome
        for progress in group:
            before = earlier.get(progress.entry.id, {})
            for label, outcome in records.get(progress.entry.id, {}).items():
                name = step_name(label)
                if name in before:
                    progress.done[label] = before[name]
                else:
                    new.append((progress, name, label, outcome))
        ending = [progress for progress in group if not progress.waiting]
        tags = {p.entry.id: privacy.keys.subject_tag(p.entry.subject) for p in ending}
        found = await privacy.consents.delete(list(tags.values()), tx)
        await privacy.standing.delete(list(tags.values()), tx)
        for progress in ending:
            outcome = nothing("delete")
            outcome["found"] = number = found[tags[progress.entry.id]]
            outcome["done"] = {"deleted": number} if number else {}
            new.append((progress, CONSENTS, CONSENTS, outcome))
        audits = await site.log.append_many(
            tx,
            [
                {"action": "erased", "dataset": label, "details": step_details(progress.entry.id, outcome)}
                for progress, _, label, outcome in new
            ],
        )
        steps = []
        for (progress, name, label, outcome), audit in zip(new, audits, strict=True):
            progress.done[label] = {**outcome, "audit": audit}
            steps.append((progress.entry.id, name, progress.done[label]))
        await site.steps.record(steps, tx)

    def _certificate(
        self, progress: Progress, completed: str, audit: str, *, destroyed: Sequence[Destroyed], records: bool
    ) -> Certificate:
        privacy, entry = self._privacy, progress.entry
        claims = [RECORDS_CLAIM] if records else []
        if any(label.startswith(DERIVED) for label in entry.datasets):
            claims.append(DERIVED_CLAIM)
        return Certificate.issue(
            privacy.signer,
            "erased",
            {
                "organisation": privacy.organisation,
                "request": entry.id,
                "subject": entry.subject,
                "received": entry.received.isoformat(),
                "deadline": entry.deadline.isoformat(),
                "extended": entry.extended_at is not None,
                "identity": entry.details.get("identity"),
                "completed": completed,
                "stores": [{"dataset": label, **outcome} for label, outcome in progress.done.items()],
                "keys": [_key(d) for d in destroyed],
                "recipients": recipients(privacy.datasets, found=progress.done),
                "audit": audit,
                "claims": [*ERASED_CLAIMS, *claims],
                "limits": list(ERASED_LIMITS),
            },
        )

    async def _elsewhere(self, progress: Progress) -> Done | Receipt:
        """What came of an erasure that was not closed here: it waits, or another process has closed it."""
        return (None if progress.waiting else await self.done(progress.entry.id)) or _receipt(progress)


def _receipt(progress: Progress) -> Receipt:
    return Receipt(progress.entry.id, progress.done, progress.waiting)


def _key(destroyed: Destroyed) -> dict[str, Any]:
    return {"id": destroyed.key_id.hex(), "dataset": destroyed.dataset, "at": destroyed.destroyed_at}


def _message(done: Mapping[str, Mapping[str, Any]]) -> str:
    found = sum(outcome["found"] for outcome in done.values())
    if not found:
        return "Nothing was found about this subject."
    datasets = sum(1 for outcome in done.values() if outcome["found"])
    kept = sorted(
        ((k["until"], k["why"], k["rows"]) for outcome in done.values() for k in outcome["kept"]), reverse=True
    )
    message = f"Erased: {_rows(found - sum(rows for _, _, rows in kept))}, in {datasets} dataset{'s'[: datasets > 1]}."
    if kept:
        until, why, _ = kept[0]
        message += f" Kept because the law says so ({why}): {_rows(sum(rows for _, _, rows in kept))}, until {until}."
    return message


def _rows(number: int) -> str:
    return "1 row" if number == 1 else f"{number} rows"
