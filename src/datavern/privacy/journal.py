"""The journal of subject requests: written before the first change, so that a crash is finished and not forgotten.

A request is a row in the ledger, which names the person by a keyed tag and, while the request is open, by the id
sealed. A step is a row in the database where it was done, and commits with the rows that it changed: so it is done
once, whatever falls over when.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from datavern.contracts.capabilities import needs
from datavern.contracts.values import current_actor, timestamp
from datavern.crypto.sealed import RowSealer, new_row_tag
from datavern.privacy import tables

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
        opened_at: when the work began, RFC 3339.
        datasets: the labels of the datasets that it must reach.
        completed_at: when it was done, or None while it is open.
        key_ids: the keys that the erasure is to destroy; None until they are known.
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


class Journal:
    """The requests in the ledger.

    Args:
        provider: the ledger database.
        keys: names subjects by tag, and seals what must be read again.
    """

    def __init__(self, provider: Provider, keys: KeyStore) -> None:
        self._provider = provider
        self._keys = keys
        self._sealer = RowSealer(_DATASET, ("subject", "certificate"))

    async def key(self) -> DataKey:
        """The journal's own key, to be fetched before a transaction begins: making it is no part of one."""
        return await self._keys.dataset_key(_DATASET)

    async def begin(self, entry: Entry, transaction: Transaction, *, key: DataKey | None) -> None:
        """Write a request down.

        Args:
            entry: the request.
            transaction: an open one of the ledger.
            key: the journal's, for a request that is worked on; None: it was answered at once, and need not be taken up
                again, so the subject's id is not kept.
        """
        tag = new_row_tag()
        sealed: Mapping[str, Any] = {"subject": None}
        if key is not None:
            sealed = self._sealer.seal_row(key, tag, {"subject": entry.subject})
        row = {
            "id": entry.id,
            "kind": entry.kind,
            "subject_tag": self._keys.subject_tag(entry.subject),
            "row_tag": tag,
            "received": entry.received.isoformat(),
            "deadline": entry.deadline.isoformat(),
            "opened_at": entry.opened_at,
            "completed_at": timestamp() if key is None else None,
            "actor": current_actor(),
            "datasets": json.dumps(entry.datasets, ensure_ascii=False),
            "key_ids": None,
            "certificate": None,
            **sealed,
        }
        await transaction.execute(*self._bind(tables.REQUEST_INSERT, **row))

    async def open_of(self, subject: str, kind: str) -> Entry | None:
        """The request of that kind that is still open for the subject, or None."""
        tag = self._keys.subject_tag(subject)
        for row in await self._session.query(*self._bind(tables.REQUESTS_OF, subject_tag=tag)):
            if row["kind"] == kind and row["completed_at"] is None:
                return await self._entry(row)
        return None

    async def unfinished(self) -> list[Entry]:
        """Every request that is still open, the oldest first."""
        return [await self._entry(row) for row in await self._session.query(*self._bind(tables.REQUESTS_OPEN))]

    async def read(self, request: str) -> Entry | None:
        """The request as it stands now, or None."""
        row = await self._session.query_one(*self._bind(tables.REQUEST_BY_ID, request=request))
        return None if row is None else await self._entry(row)

    async def name_keys(self, request: str, key_ids: list[bytes]) -> None:
        """Write down which keys the erasure is to destroy. Idempotent: the first list stands.

        From here on the list is known, and a person who returns meanwhile, under new keys, is not erased again.
        """
        named = json.dumps([key_id.hex() for key_id in key_ids])
        await self._session.execute(*self._bind(tables.REQUEST_KEYS, request=request, named=named))

    async def close(self, entry: Entry, at: str, certificate: str, transaction: Transaction, *, key: DataKey) -> bool:
        """Close a request, in the ledger's transaction that records it; False when somebody else has closed it.

        The subject's id is dropped; the certificate is kept, sealed. From here on no closed request says whose it was:
        the audit log names requests beside handles.
        """
        row = await transaction.query_one(*self._bind(tables.REQUEST_BY_ID, request=entry.id))
        if row is None or row["completed_at"] is not None:
            return False
        sealed = self._sealer.seal_row(key, row["row_tag"], {"certificate": certificate})["certificate"]
        closing = self._bind(tables.REQUEST_CLOSE, request=entry.id, at=at, sealed=sealed)
        if await transaction.execute(*closing) != 1:
            return False
        tag = self._keys.subject_tag(entry.subject)
        await transaction.execute(*self._bind(tables.REQUESTS_UNLINK, tag=tag, nobody=b""))
        return True

    async def certificate(self, request: str) -> str | None:
        """The certificate of a closed request, as JSON, or None."""
        row = await self._session.query_one(*self._bind(tables.REQUEST_BY_ID, request=request))
        if row is None or row["certificate"] is None:
            return None
        return cast("str", (await self._opened(row))["certificate"])

    async def _entry(self, row: Any) -> Entry:
        named = row["key_ids"]
        return Entry(
            row["id"],
            row["kind"],
            "" if row["subject"] is None else (await self._opened(row))["subject"],
            dt.date.fromisoformat(row["received"]),
            dt.date.fromisoformat(row["deadline"]),
            row["opened_at"],
            tuple(json.loads(row["datasets"] or "[]")),
            row["completed_at"],
            None if named is None else tuple(bytes.fromhex(key_id) for key_id in json.loads(named)),
        )

    async def _opened(self, row: Any) -> dict[str, Any]:
        values = dict(row)
        keys = await self._keys.keys(self._sealer.key_ids(values))
        return self._sealer.open_row(values["row_tag"], values, keys, None)

    def _bind(self, statement: Any, /, **values: Any) -> Any:
        return statement.bind(needs(self._provider, "ledger").dialect, **values)

    @property
    def _session(self) -> Session:
        return needs(self._provider, "session")


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
        statement = tables.STEPS_OF.bind(needs(self._provider, "ledger").dialect, of_request=request)
        rows = await needs(self._provider, "session").query(*statement)
        return {row["dataset"]: json.loads(row["outcome"]) for row in rows}

    async def claim(self, request: str, dataset: str, transaction: Transaction) -> None:
        """Take a step on: the row that makes it one step, whoever else takes it on at the same time.

        Raises:
            ConstraintViolated: the step is done, or was being done and now is.
        """
        dialect = needs(self._provider, "ledger").dialect
        row = {"request": request, "dataset": dataset, "outcome": None, "done_at": timestamp()}
        await transaction.execute(*tables.STEP_INSERT.bind(dialect, **row))

    async def record(self, request: str, dataset: str, outcome: Mapping[str, Any], transaction: Transaction) -> None:
        """Say what the step did, before its transaction commits. Counts and names of columns, never a value."""
        dialect = needs(self._provider, "ledger").dialect
        result = json.dumps(outcome, ensure_ascii=False, sort_keys=True)
        values = {"of_request": request, "of_dataset": dataset, "result": result, "at": timestamp()}
        await transaction.execute(*tables.STEP_DONE.bind(dialect, **values))


def new_request_id() -> str:
    """A request's id: random, so that it says nothing about the person."""
    return secrets.token_hex(16)
