"""The journal of subject requests: written before the first change, so that a crash is finished and not forgotten.

A request is a row in the ledger, which names the person by a keyed tag and, while the request is open, by the id
sealed. A step is a row in the database where it was done, and commits with the rows that it changed: so it is done
once, whatever falls over when.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import SubjectRequestRejected
from datavern.contracts.values import current_actor, timestamp
from datavern.crypto.sealed import RowSealer, new_row_tag
from datavern.privacy.journal import tables

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Provider, Session, Transaction
    from datavern.crypto.keystore import KeyStore
    from datavern.crypto.sealed import DataKey

__all__ = ["Entry", "Journal", "Steps"]

_DATASET = "datavern.requests"


@dataclass(frozen=True, slots=True)
class Entry:
    """A request in the journal.

    Attributes:
        id: random.
        kind: "access", "erasure", …
        subject: the canonical id; empty once the request is closed.
        received: when it came.
        deadline: until when it must be answered.
        opened_at: when it was written down, RFC 3339.
        datasets: the labels of the datasets that it must reach.
        completed_at: when it was done, or None while it is open.
        key_ids: the keys that the erasure is to destroy; None until they are known.
        begun_at: when the work began, or None while it was only received.
        extended_at: when its deadline was extended.
        outcome: "done" or "rejected", once it is completed.
        waiting: dataset → why, of the last time that it was worked on.
        details: what is kept sealed: ``identity``, ``asked``, ``extension``, ``doubt``, ``answer``.
        row_tag: what the sealed values are bound to.
        subject_tag: the person's keyed tag; empty once the person was erased, or of a new entry.
        known: whether it stands in the journal.
    """

    id: str
    kind: str
    subject: str
    received: dt.date
    deadline: dt.date
    opened_at: str
    datasets: tuple[str, ...] = ()
    completed_at: str | None = None
    key_ids: tuple[bytes, ...] | None = None
    begun_at: str | None = None
    extended_at: str | None = None
    outcome: str | None = None
    waiting: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    row_tag: bytes = field(default_factory=new_row_tag)
    subject_tag: bytes = b""
    known: bool = False


class Journal:
    """The requests in the ledger.

    Args:
        provider: the ledger database.
        keys: names subjects by tag, and seals what must be read again.
    """

    def __init__(self, provider: Provider, keys: KeyStore) -> None:
        self._provider = provider
        self._keys = keys
        self._sealer = RowSealer(_DATASET, ("subject", "certificate", "details"))

    async def key(self) -> DataKey:
        """The journal's own key, to be fetched before a transaction begins: making it is no part of one."""
        return await self._keys.dataset_key(_DATASET)

    async def receive(self, entries: Sequence[Entry], transaction: Transaction, *, key: DataKey) -> None:
        """Write requests down. Whether work on one begins at once, its `begun_at` says.

        Args:
            entries: the requests.
            transaction: an open one of the ledger.
            key: the journal's.

        Raises:
            ConstraintViolated: there is one of that id.
        """
        rows = []
        for entry in entries:
            values = {"subject": entry.subject, "details": _text(entry.details)}
            row = {
                "id": entry.id,
                "kind": entry.kind,
                "subject_tag": self._keys.subject_tag(entry.subject),
                "row_tag": entry.row_tag,
                "received": entry.received.isoformat(),
                "deadline": entry.deadline.isoformat(),
                "opened_at": entry.opened_at,
                "completed_at": None,
                "actor": current_actor(),
                "datasets": json.dumps(entry.datasets, ensure_ascii=False),
                "key_ids": _named(entry),
                "certificate": None,
                "begun_at": entry.begun_at,
                "extended_at": None,
                "outcome": None,
                "waiting": None,
                **self._sealer.seal_row(key, entry.row_tag, values),
            }
            rows.append(row)
        await transaction.execute_many(*tables.REQUEST_INSERT.bind_many(self._dialect, rows))

    async def begin(self, entries: Sequence[Entry], transaction: Transaction, *, key: DataKey) -> list[Entry]:
        """Say that work on requests begins, and write down those that are not; the entries as they are then.

        Raises:
            SubjectRequestRejected: somebody else has begun one, or answered it, since it was read.
        """
        moment = timestamp()
        begun = [replace(entry, begun_at=moment, known=True) for entry in entries]
        new = [after for before, after in zip(entries, begun, strict=True) if not before.known]
        if new:
            await self.receive(new, transaction, key=key)
        for entry in (entry for entry in entries if entry.known):
            reach = json.dumps(entry.datasets, ensure_ascii=False)
            values = {"request": entry.id, "at": moment, "reach": reach, "named": _named(entry)}
            if await transaction.execute(*self._bind(tables.REQUEST_BEGIN, **values)) != 1:
                raise SubjectRequestRejected("the request was taken up, or answered, by somebody else: ask again")
        return begun

    async def unbegin(self, request: str) -> None:
        """Say that nothing was changed: the request waits for somebody to look at it."""
        await self._session.execute(*self._bind(tables.REQUEST_UNBEGIN, request=request))

    async def waits(self, request: str, waiting: Mapping[str, str]) -> None:
        """Say what the request waits for: kinds of errors, never a value."""
        why = json.dumps(waiting, ensure_ascii=False)
        await self._session.execute(*self._bind(tables.REQUEST_WAIT, request=request, why=why))

    async def held(self, request: str, transaction: Transaction) -> Entry | None:
        """The request, locked until the transaction ends, or None."""
        row = await transaction.query_one(*self._bind(tables.REQUEST_HELD, request=request))
        return None if row is None else await self._entry(row, transaction)

    async def note(self, entry: Entry, transaction: Transaction, *, key: DataKey, **details: Any) -> Entry:
        """Add to what is kept sealed with an open request that is held; the entry as it is then."""
        noted = replace(entry, details={**entry.details, **details})
        sealed = self._details(noted, key)
        await transaction.execute(*self._bind(tables.REQUEST_NOTE, request=entry.id, sealed=sealed))
        return noted

    async def extend(
        self, entry: Entry, until: dt.date, transaction: Transaction, *, key: DataKey, extension: Mapping[str, Any]
    ) -> bool:
        """Put the deadline off, once; False when it was put off before, or the request is closed."""
        sealed = self._details(replace(entry, details={**entry.details, "extension": extension}), key)
        values = {"request": entry.id, "until": until.isoformat(), "at": timestamp(), "sealed": sealed}
        return await transaction.execute(*self._bind(tables.REQUEST_EXTEND, **values)) == 1

    async def complete(
        self, entry: Entry, transaction: Transaction, *, key: DataKey, answer: Mapping[str, Any], outcome: str = "done"
    ) -> bool:
        """Complete a request that leaves no certificate; False when somebody else has.

        The subject's id, and the values of a rectification, are dropped. The keyed tag says whose it was until the
        person is erased.
        """
        kept = {name: value for name, value in entry.details.items() if name != "asked" or "changes" not in value}
        sealed = self._details(replace(entry, details={**kept, "answer": answer}), key)
        values = {"request": entry.id, "at": answer["completed"], "how": outcome, "sealed": sealed}
        return await transaction.execute(*self._bind(tables.REQUEST_COMPLETE, **values)) == 1

    def _details(self, entry: Entry, key: DataKey) -> Any:
        return self._sealer.seal_row(key, entry.row_tag, {"details": _text(entry.details)})["details"]

    async def open_of(self, subjects: Sequence[str], kind: str) -> dict[str, Entry]:
        """Subject → the request of that kind that is still open for it, of those that have one."""
        tags = {self._keys.subject_tag(subject): subject for subject in subjects}
        found: dict[str, Entry] = {}
        for statement in tables.REQUESTS_OPEN_OF.bind(self._dialect, list(tags)):
            for row in await self._session.query(*statement):
                if row["kind"] == kind:
                    found.setdefault(tags[bytes(row["subject_tag"])], await self._entry(row))
        return found

    async def unfinished(self) -> list[Entry]:
        """Every request that is still open, the oldest first."""
        return [await self._entry(row) for row in await self._session.query(*self._bind(tables.REQUESTS_OPEN))]

    async def read(self, request: str) -> Entry | None:
        """The request as it stands now, or None."""
        row = await self._session.query_one(*self._bind(tables.REQUEST_BY_ID, request=request))
        return None if row is None else await self._entry(row)

    async def read_many(self, requests: Sequence[str]) -> dict[str, Entry]:
        """Those of the requests that are known, by id."""
        found = {}
        for statement in tables.REQUESTS_BY_IDS.bind(self._dialect, requests):
            for row in await self._session.query(*statement):
                found[row["id"]] = await self._entry(row)
        return found

    async def hold(self, requests: Sequence[str], transaction: Transaction) -> dict[str, Any]:
        """The rows of those of the requests that are still open, held until the transaction ends: by id."""
        found = {}
        for statement in tables.REQUESTS_HELD.bind(self._dialect, sorted(requests)):
            for row in await transaction.query(*statement):
                if row["completed_at"] is None:
                    found[row["id"]] = row
        return found

    async def close(
        self,
        closing: Sequence[tuple[Entry, str]],
        at: str,
        transaction: Transaction,
        *,
        key: DataKey,
        held: Mapping[str, Any],
    ) -> None:
        """Close requests, in the ledger's transaction that records it.

        The subject's id is dropped; the certificate is kept, sealed. From here on no closed request says whose it was:
        the audit log names requests beside handles.

        Args:
            closing: requests and their certificates, as JSON.
            at: when.
            transaction: the open one.
            key: the journal's.
            held: as `hold` gave it in this transaction: so nobody else has closed them.
        """
        if not closing:
            return
        rows = []
        for entry, certificate in closing:
            sealed = self._sealer.seal_row(key, held[entry.id]["row_tag"], {"certificate": certificate})
            rows.append({"request": entry.id, "at": at, "sealed": sealed["certificate"]})
        await transaction.execute_many(*tables.REQUEST_CLOSE.bind_many(self._dialect, rows))
        unlinked = [
            {"tag": self._keys.subject_tag(entry.subject), "nobody": b"", "own": entry.id} for entry, _ in closing
        ]
        await transaction.execute_many(*tables.REQUESTS_UNLINK.bind_many(self._dialect, unlinked))

    async def certificate(self, request: str) -> str | None:
        """The certificate of a closed request, as JSON, or None."""
        row = await self._session.query_one(*self._bind(tables.REQUEST_BY_ID, request=request))
        if row is None or row["certificate"] is None:
            return None
        return cast("str", (await self._opened(row))["certificate"])

    async def _entry(self, row: Any, session: Session | None = None) -> Entry:
        named = row["key_ids"]
        opened = {} if row["subject"] is None and row["details"] is None else await self._opened(row, session)
        return Entry(
            row["id"],
            row["kind"],
            opened.get("subject") or "",
            dt.date.fromisoformat(row["received"]),
            dt.date.fromisoformat(row["deadline"]),
            row["opened_at"],
            tuple(json.loads(row["datasets"] or "[]")),
            row["completed_at"],
            None if named is None else tuple(bytes.fromhex(key_id) for key_id in json.loads(named)),
            row["begun_at"],
            row["extended_at"],
            row["outcome"],
            json.loads(row["waiting"] or "{}"),
            json.loads(opened.get("details") or "{}"),
            row["row_tag"],
            row["subject_tag"],
            known=True,
        )

    async def _opened(self, row: Any, session: Session | None = None) -> dict[str, Any]:
        values = dict(row)
        keys = await self._keys.keys(self._sealer.key_ids(values), session=session)
        return self._sealer.open_row(values["row_tag"], values, keys, None)

    def _bind(self, statement: Any, /, **values: Any) -> Any:
        return statement.bind(self._dialect, **values)

    @property
    def _dialect(self) -> Any:
        return needs(self._provider, "ledger").dialect

    @property
    def _session(self) -> Session:
        return needs(self._provider, "session")


def _text(details: Mapping[str, Any]) -> str:
    return json.dumps(details, ensure_ascii=False)


def _named(entry: Entry) -> str | None:
    return None if entry.key_ids is None else json.dumps([key_id.hex() for key_id in entry.key_ids])


class Steps:
    """The steps that were done in one database.

    Args:
        provider: the database.
    """

    __slots__ = ("_provider",)

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    async def open(self) -> None:
        """Make the table. Idempotent."""
        await needs(self._provider, "ledger").create_tables(tables.step_tables())

    async def done(self, request: str) -> dict[str, dict[str, Any]]:
        """Dataset → what its step did, of every step of the request that has committed here."""
        return (await self.done_many([request])).get(request, {})

    async def done_many(
        self, requests: Collection[str], session: Session | None = None
    ) -> dict[str, dict[str, dict[str, Any]]]:
        """Request → dataset → what its step did. In an open transaction of this database where one is given."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        speak = session or needs(self._provider, "session")
        for statement in tables.STEPS_OF.bind(needs(self._provider, "ledger").dialect, sorted(requests)):
            for row in await speak.query(*statement):
                found.setdefault(row["request"], {})[row["dataset"]] = json.loads(row["outcome"])
        return found

    async def counts(
        self, datasets: Sequence[str], requests: Sequence[str] | None = None, session: Session | None = None
    ) -> dict[str, int]:
        """Request → how many of these datasets have a step of it here.

        Args:
            datasets: their names.
            requests: of these alone; of every one there ever was when None.
            session: an open transaction of this database.
        """
        found: dict[str, int] = {}
        dialect, speak = needs(self._provider, "ledger").dialect, session or needs(self._provider, "session")
        if requests is not None:
            for query in tables.STEPS_NAMED.bind(dialect, requests):
                for request, dataset in await speak.query(*query):
                    found[request] = found.get(request, 0) + (dataset in datasets)
            return found
        for query in tables.STEPS_COUNTED.bind(dialect, datasets):
            for request, number in await speak.query(*query):
                found[request] = found.get(request, 0) + number
        return found

    async def forget(self, request: str, dataset: str, transaction: Transaction) -> bool:
        """Remove a row that is no step, but stands among them; whether it was there. Idempotent."""
        dialect = needs(self._provider, "ledger").dialect
        return await transaction.execute(*tables.STEP_DELETE.bind(dialect, of_request=request, of_dataset=dataset)) > 0

    async def record(self, steps: Sequence[tuple[str, str, Mapping[str, Any]]], transaction: Transaction) -> None:
        """Say what steps did, in the transaction that did it: request, dataset, outcome.

        The row makes it one step: of two that do it at the same time, one is undone. An outcome holds counts and names
        of columns, never a value.

        Raises:
            ConstraintViolated: a step is done.
        """
        moment = timestamp()
        rows = [
            {
                "request": request,
                "dataset": dataset,
                "outcome": json.dumps(outcome, ensure_ascii=False, sort_keys=True),
                "done_at": moment,
            }
            for request, dataset, outcome in steps
        ]
        if rows:
            await transaction.execute_many(*tables.STEP_INSERT.bind_many(needs(self._provider, "ledger").dialect, rows))


def new_request_id() -> str:
    """A request's id: random, so that it says nothing about the person."""
    return secrets.token_hex(16)
