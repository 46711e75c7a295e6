"""The erasure of a person, store by store, to its end (GDPR Art. 17).

In this order: the journal, so that a crash is finished; the keys are marked, so that nothing new is sealed; every
dataset in its own database, in one transaction each: the keys end there, the rows go as the data map says, the audit
entry and the step are written; the keys are destroyed; the certificate is signed, and the journal closed. Each of these
is safe to do again, and each dataset's step is done once.

The audit entries of an erasure name the request and no handle, and the journal forgets whose requests were: the
certificate names the person and those entries, and must not lead to the handle, and by it to all that the log holds.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConstraintViolated, DatavernError, ErasureIncomplete, ProviderError
from datavern.contracts.values import timestamp
from datavern.privacy.certificate import ERASED_CLAIMS, ERASED_LIMITS, RECORDS_CLAIM, Certificate
from datavern.privacy.policies import Step, apply
from datavern.privacy.record_erasure import RecordErasure
from datavern.privacy.records import RecordStore

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.crypto.keystore import Destroyed
    from datavern.privacy.journal import Entry, Journal
    from datavern.privacy.personal import PersonalStore
    from datavern.privacy.service import Privacy, Site

__all__ = ["Done", "Erasures", "Receipt"]

CONSENTS = "datavern.consents"


@dataclass(frozen=True, slots=True)
class Receipt:
    """How far an erasure has come.

    Attributes:
        request_id: its id in the journal.
        done: dataset → what was done there.
        waiting: dataset → why it waits: the kind of error and its code, never a value.
    """

    request_id: str
    done: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)


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

    async def begin(self, entry: Entry) -> Entry:
        """Write the erasure down, once it is known that it can be carried out as it stands; the entry as written.

        Raises:
            ConfigurationError: the live schema lacks what the data map says. Nothing was changed.
        """
        privacy = self._privacy
        stores = await privacy.stores()
        for store in stores:
            try:
                if await store.exists():
                    await store.rows(fresh=True)
            except ProviderError:
                continue  # its database cannot be asked now: it waits, and the others do not
        entry = replace(entry, datasets=tuple(store.dataset.label for store in stores))
        key = await self._journal.key()
        details = {"request": entry.id}
        async with needs(privacy.ledger, "transactions").transaction() as tx:
            await self._journal.begin(entry, tx, key=key)
            await privacy.ledger_log.append(tx, action="erasure_received", details=details)
        return entry

    async def run(self, entry: Entry) -> Done:
        """Do all that is left of it. Idempotent.

        Raises:
            ErasureIncomplete: a store could not be reached, or its schema does not let the rows go; the rest is done,
                and the request stays open.
        """
        privacy = self._privacy
        ended = entry.key_ids
        if ended is None:
            started = await privacy.keys.start_erasure(entry.subject)
            closed = monotonic()
            await self._journal.name_keys(entry.id, started)
            ended = tuple(started)
        else:
            closed = monotonic()  # they were closed before
        done, waiting = await self._steps(entry, ended, closed)
        if waiting:
            stores = ", ".join(waiting)
            raise ErasureIncomplete(
                f"the erasure {entry.id} waits for {stores}; it is open, and goes on when the manager opens",
                Receipt(entry.id, done, waiting),
            )
        destroyed = [d for d in await privacy.keys.destroy(entry.subject) if d.key_id in set(ended)]
        return await self._close(entry, done, destroyed)

    async def certificate(self, request_id: str) -> Certificate | None:
        """The certificate of an erasure that has ended, or None."""
        text = await self._journal.certificate(request_id)
        return None if text is None else Certificate.from_json(text)

    # ---- store by store ---------------------------------------------------------------------------------------------

    async def _steps(
        self, entry: Entry, ended: Sequence[bytes], closed: float
    ) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        privacy = self._privacy
        done: dict[str, dict[str, Any]] = {}
        waiting: dict[str, str] = {}
        earlier: dict[str, dict[str, dict[str, Any]]] = {}
        stores = await _in_order(await privacy.stores(entry.datasets), waiting)
        here = {store.dataset.label for store in stores} | waiting.keys()
        waiting |= {label: "it is not in this manager's data map" for label in entry.datasets if label not in here}
        for name in dict.fromkeys([store.dataset.database for store in stores] + [privacy.ledger_name]):
            try:
                earlier[name] = await privacy.site(name).steps.done(entry.id)
            except ProviderError as error:
                labels = [s.dataset.label for s in stores if s.dataset.database == name]
                waiting |= dict.fromkeys(labels or [CONSENTS], _why(error))
        records: dict[str, RecordErasure] = {}
        for store in (store for store in stores if store.dataset.label not in waiting):
            label, before = store.dataset.label, earlier[store.dataset.database]
            try:
                if store.dataset.name in before:
                    done[label] = before[store.dataset.name]
                elif isinstance(store, RecordStore):
                    records[label] = RecordErasure(privacy, store, entry, ended)
                    await records[label].begin(before)
                else:
                    done[label] = await self._step(store, entry, ended)
            except DatavernError as error:
                waiting[label] = _why(error)
        for label in [
            label for label in records if label not in waiting
        ]:  # last: the time that the others took need not be waited for
            try:
                done[label] = await records[label].end(closed)
            except DatavernError as error:
                waiting[label] = _why(error)
        if not waiting:  # the ledger's own: last, since a write that is refused is refused before it asks for consent
            done[CONSENTS] = earlier[privacy.ledger_name].get(CONSENTS) or await self._consents(entry)
        return done, waiting

    async def _step(self, store: PersonalStore, entry: Entry, ended: Sequence[bytes]) -> dict[str, Any]:
        dataset = store.dataset
        site = self._privacy.site(dataset.database)
        here = await store.exists()
        rows = await store.rows() if here else None

        async def work(tx: Transaction) -> dict[str, Any]:
            await site.steps.claim(entry.id, dataset.name, tx)
            await site.life.end(tx, ended)
            outcome = _nothing(dataset.erasure, f"there is no table {dataset.table}")
            if rows is not None:
                today = dt.datetime.now().astimezone().date()
                step = Step(store, rows, entry.subject, frozenset(ended), entry.id, today, self._privacy.keys, tx)
                outcome = await apply(step)
            details = {"request": entry.id, **{k: v for k, v in outcome.items() if k not in ("kept", "notes")}}
            outcome["audit"] = await site.log.append(tx, action="erased", dataset=dataset.label, details=details)
            await site.steps.record(entry.id, dataset.name, outcome, tx)
            return outcome

        return await _once(site, entry.id, dataset.name, work)

    async def _consents(self, entry: Entry) -> dict[str, Any]:
        privacy = self._privacy
        site = privacy.site(privacy.ledger_name)

        async def work(tx: Transaction) -> dict[str, Any]:
            await site.steps.claim(entry.id, CONSENTS, tx)
            outcome = _nothing("delete")
            number = await privacy.consents.delete(privacy.keys.subject_tag(entry.subject), tx)
            outcome["found"] = number
            outcome["done"] = {"deleted": number} if number else {}
            details = {"request": entry.id, "found": number}
            outcome["audit"] = await site.log.append(tx, action="erased", dataset=CONSENTS, details=details)
            await site.steps.record(entry.id, CONSENTS, outcome, tx)
            return outcome

        return await _once(site, entry.id, CONSENTS, work)

    # ---- the end ----------------------------------------------------------------------------------------------------

    async def _close(self, entry: Entry, done: Mapping[str, Mapping[str, Any]], destroyed: Sequence[Destroyed]) -> Done:
        privacy = self._privacy
        completed = timestamp()
        found = sum(outcome["found"] for outcome in done.values())
        key = await self._journal.key()
        stores = await privacy.stores(entry.datasets)
        claims = [RECORDS_CLAIM] if any(isinstance(store, RecordStore) for store in stores) else []
        audit_details = {"request": entry.id, "found": found, "keys": len(destroyed)}
        try:
            async with needs(privacy.ledger, "transactions").transaction() as tx:
                audit = await privacy.ledger_log.append(tx, action="erasure_completed", details=audit_details)
                certificate = Certificate.issue(
                    privacy.signer,
                    "erased",
                    {
                        "organisation": privacy.organisation,
                        "request": entry.id,
                        "subject": entry.subject,
                        "received": entry.received.isoformat(),
                        "deadline": entry.deadline.isoformat(),
                        "completed": completed,
                        "stores": [{"dataset": label, **outcome} for label, outcome in done.items()],
                        "keys": [_key(d) for d in destroyed],
                        "audit": audit,
                        "claims": [*ERASED_CLAIMS, *claims],
                        "limits": list(ERASED_LIMITS),
                    },
                )
                if not await self._journal.close(entry, completed, certificate.to_json(), tx, key=key):
                    raise _ClosedByAnotherError  # noqa: TRY301  (it rolls the transaction back)
            return Done(_message(done), completed, certificate)
        except _ClosedByAnotherError:
            pass
        signed = await self.certificate(entry.id)
        if signed is None:
            raise ErasureIncomplete(f"the erasure {entry.id} is no longer in the journal", Receipt(entry.id, done))
        return Done(_message(done), str(signed.body["completed"]), signed)


def _nothing(policy: str, *notes: str) -> dict[str, Any]:
    return {"policy": policy, "found": 0, "done": {}, "kept": [], "left": [], "notes": list(notes)}


async def _once(
    site: Site, request: str, dataset: str, work: Callable[[Transaction], Awaitable[dict[str, Any]]]
) -> dict[str, Any]:
    """A step in one transaction, run again on a conflict; what it did, whoever did it."""
    violated: ConstraintViolated
    try:
        # What the step does after it has waited for the last writers must see what they wrote, whatever the server's
        # default is: each statement by itself, and not as the database was when the step began.
        return await needs(site.provider, "transactions").run_in_transaction(work, isolation="read committed")
    except ConstraintViolated as error:
        violated = error
    # Either another process has done the step meanwhile, or a row of somebody else's refers to one that should go.
    done = (await site.steps.done(request)).get(dataset)
    if done is None:
        raise violated
    return done


class _ClosedByAnotherError(Exception):
    """Another process has closed the request: what this one was about to write is undone."""


async def _in_order(stores: Sequence[PersonalStore], waiting: dict[str, str]) -> list[PersonalStore]:
    """The stores, those whose rows refer to another's before it: a row goes after what refers to it."""
    refers: dict[str, set[str]] = {}
    known: dict[str, PersonalStore] = {}
    by_table = {(store.dataset.database, store.dataset.table): store.dataset.label for store in stores}
    for store in stores:
        label = store.dataset.label
        try:
            rows = await store.rows(fresh=True) if await store.exists() else None
        except DatavernError as error:
            waiting[label] = _why(error)
            continue
        known[label] = store
        for place in rows.store.referenced_by if rows is not None else ():
            other = by_table.get((store.dataset.database, place.rpartition(".")[0]))
            if other is not None and other != label:
                refers.setdefault(label, set()).add(other)
    ordered: list[PersonalStore] = []
    seen: set[str] = set()

    def visit(label: str) -> None:
        if label in seen or label not in known:
            return
        seen.add(label)
        for other in sorted(refers.get(label, ())):
            visit(other)
        ordered.append(known[label])

    for label in known:
        visit(label)
    return ordered


def _why(error: DatavernError) -> str:
    return f"{type(error).__name__}: {error}"


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
