"""Erasures that had to leave rows, because a legal hold or the law keeps them, and that complete themselves.

An erasure is closed with a certificate that says what stays, why, and until when. In the transaction that closes it, it
is written down that it waits for the rest. It is looked at when its day has come (as a manager opens, and by the
retention run) and when a hold of the person is released: what may go goes as the data map says, and when nothing stays
any more, the keys of what stayed are destroyed, and a second certificate says that the erasure is complete.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import DatavernError
from datavern.contracts.values import timestamp, today
from datavern.crypto.sealed import RowSealer, new_row_tag
from datavern.privacy.certificate.certificate import ERASED_CLAIMS, ERASED_LIMITS, RECORDS_CLAIM, Certificate
from datavern.privacy.erasure.policies import retention_subject
from datavern.privacy.erasure.progress import why
from datavern.privacy.erasure.rest import COMPLETED, Rest, Waiting
from datavern.privacy.erasure.turns import found_first
from datavern.privacy.holds import tables
from datavern.privacy.holds.holds import RELEASED
from datavern.privacy.journal.values import Receipt, SubjectResponse
from datavern.privacy.personal.records import RecordStore

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Session, Transaction
    from datavern.crypto.keystore import Destroyed
    from datavern.crypto.sealed import DataKey
    from datavern.privacy.journal.journal import Entry
    from datavern.privacy.personal.store import PersonalStore
    from datavern.privacy.service import Privacy

__all__ = ["COMPLETED", "Completions", "first_day"]

_DATASET: Final = "datavern.completions"

_AT_ONCE: Final = 100
_FOR_EVER: Final = dt.date.max


def first_day(kept: Iterable[Sequence[Mapping[str, Any]]]) -> dt.date:
    """The first day on which something of what is kept may go; the last of all days where nobody knows."""
    until = [one["until"] for of_store in kept for one in of_store if one["until"] != RELEASED]
    return dt.date.fromisoformat(min(until)) + dt.timedelta(days=1) if until else _FOR_EVER


class Completions:
    """The rest of erasures.

    Args:
        privacy: the datasets, the keys and the signature.
    """

    def __init__(self, privacy: Privacy) -> None:
        self._privacy = privacy
        self._rest = Rest(privacy)
        self._sealer = RowSealer(_DATASET, ("subject", "certificate"))

    async def open(self) -> None:
        """Make the table. Idempotent."""
        await needs(self._privacy.ledger, "ledger").create_tables(tables.ledger_tables())

    async def key(self) -> DataKey:
        """What the table's values are sealed under, to be fetched before a transaction begins."""
        return await self._privacy.keys.dataset_key(_DATASET)

    async def wait(
        self, ended: Iterable[tuple[Entry, Mapping[str, Mapping[str, Any]]]], tx: Transaction, *, key: DataKey
    ) -> None:
        """Write down which erasures left rows, in the transaction that closes them.

        Args:
            ended: erasures, and what was done in each dataset.
            tx: an open transaction of the ledger.
            key: from `key`.
        """
        rows = []
        for entry, done in ended:
            kept = {label: outcome["kept"] for label, outcome in done.items() if outcome["kept"]}
            if not kept:
                continue
            tag = new_row_tag()
            rows.append(
                {
                    "request": entry.id,
                    "subject_tag": self._privacy.keys.subject_tag(entry.subject),
                    "row_tag": tag,
                    **self._sealer.seal_row(key, tag, {"subject": entry.subject, "certificate": None}),
                    "received": entry.received.isoformat(),
                    "due": first_day(kept.values()).isoformat(),
                    "datasets": json.dumps(list(kept), ensure_ascii=False),
                    "completed_at": None,
                }
            )
        if rows:
            await tx.execute_many(*tables.COMPLETION_INSERT.bind_many(self._dialect, rows))

    async def kept(self, database: str) -> dict[str, set[str]]:
        """Request → the labels of the datasets of a database where a hold has kept rows from it, and they are there."""
        site = self._privacy.site(database)
        labels = {s.dataset.name: s.dataset.label for s in self._privacy.datasets if s.dataset.database == database}
        query = tables.KEPT_REQUESTS.bind(needs(site.provider, "ledger").dialect)
        found: dict[str, set[str]] = {}
        for request, dataset in await needs(site.provider, "session").query(*query):
            if dataset in labels:
                found.setdefault(request, set()).add(labels[dataset])
        return found

    async def waiting(self, requests: Iterable[str]) -> set[str]:
        """Those of the erasures whose rest is waited for."""
        found: set[str] = set()
        for statement in tables.COMPLETIONS_WAITING.bind(self._dialect, sorted(requests)):
            found.update(row[0] for row in await self._session.query(*statement))
        return found

    async def again(self, request: str, subject: str, received: str, datasets: Iterable[str]) -> bool:
        """Let a completed erasure wait for the rest of it again, which a restore brought back; False where it waits."""
        row = await self._session.query_one(*tables.COMPLETION.bind(self._dialect, of_request=request))
        if row is not None and row["completed_at"] is None:
            return False
        key, tag = await self.key(), new_row_tag() if row is None else bytes(row["row_tag"])
        sealed = self._sealer.seal_row(key, tag, {"subject": subject, "certificate": None})
        reach = json.dumps(sorted(datasets), ensure_ascii=False)
        whose, day = self._privacy.keys.subject_tag(subject), today().isoformat()
        if row is not None:
            named = {"of_request": request, "day": day, "reach": reach, "sealed": sealed["subject"], "tag": whose}
            await self._session.execute(*tables.COMPLETION_REOPEN.bind(self._dialect, **named))
            return True
        values = {"request": request, "subject_tag": whose, "row_tag": tag, **sealed, "received": received}
        values |= {"due": day, "datasets": reach, "completed_at": None}
        await self._session.execute(*tables.COMPLETION_INSERT.bind(self._dialect, **values))
        return True

    async def due(self, most: int = _AT_ONCE) -> list[SubjectResponse | Receipt]:
        """Complete what may be completed today, so many at the most: what was completed, and what is in the way."""
        done: list[SubjectResponse | Receipt] = []
        behind, day = "", today().isoformat()
        while most > 0:
            named = {"day": day, "behind": behind, "most": min(most, _AT_ONCE)}
            found = await self._session.query(*tables.COMPLETIONS_DUE.bind(self._dialect, **named))
            done += await self._all([await self._waiting(row) for row in found])
            if len(found) < _AT_ONCE:
                break
            behind, most = found[-1]["request"], most - len(found)
        return done

    async def hasten(self, tags: Iterable[bytes], transaction: Transaction | None = None) -> None:
        """Have those of these people looked at today. In an open transaction of the ledger where one is given."""
        for statement in tables.COMPLETIONS_HASTEN.bind(
            self._dialect, [tag for tag in tags if tag], day=today().isoformat()
        ):
            await (transaction or self._session).execute(*statement)

    async def of(self, tags: Iterable[bytes]) -> list[SubjectResponse | Receipt]:
        """The same of these people, whatever day it waits for."""
        statements = tables.COMPLETIONS_OF.bind(self._dialect, [tag for tag in tags if tag])
        found = [row for statement in statements for row in await self._session.query(*statement)]
        return await self._all([await self._waiting(row) for row in found])

    async def certificate(self, request: str) -> Certificate | None:
        """The certificate of an erasure that completed itself, by its id with ``-completed`` behind it, or None."""
        if not request.endswith(COMPLETED):
            return None
        named = {"of_request": request.removesuffix(COMPLETED)}
        row = await self._session.query_one(*tables.COMPLETION.bind(self._dialect, **named))
        if row is None or row["certificate"] is None:
            return None
        return Certificate.from_json((await self._opened(row))["certificate"])

    async def _waiting(self, row: Any) -> Waiting:
        subject = (await self._opened(row))["subject"]
        return Waiting(row["request"], subject, row["received"], tuple(json.loads(row["datasets"])))

    async def _opened(self, row: Any) -> dict[str, Any]:
        values = dict(row)
        keys = await self._privacy.keys.keys(self._sealer.key_ids(values))
        return self._sealer.open_row(bytes(values["row_tag"]), values, keys, None)

    @property
    def _dialect(self) -> Any:
        return needs(self._privacy.ledger, "ledger").dialect

    @property
    def _session(self) -> Session:
        return needs(self._privacy.ledger, "session")

    async def _all(self, entries: Sequence[Waiting]) -> list[SubjectResponse | Receipt]:
        found = [await self._complete(entry) for entry in entries]
        return [one for one in found if one is not None]

    async def _complete(self, entry: Waiting) -> SubjectResponse | Receipt | None:
        """The answer when nothing stays any more; what is in the way; or None: some of it is kept on."""
        stores = {store.dataset.label: store for store in await self._privacy.stores(entry.datasets)}
        missing = [label for label in entry.datasets if label not in stores]
        here = [stores[label] for label in entry.datasets if label in stores]
        kept: list[Sequence[Mapping[str, Any]]] = []
        waiting = dict.fromkeys(missing, "it is not in this manager's data map")
        for store in found_first(here):
            try:
                kept.append(await self._rest.end(store, entry))
            except DatavernError as error:
                waiting[store.dataset.label] = why(error)
        if waiting:
            return Receipt(entry.id, waiting=waiting)
        if any(kept):
            day = max(first_day(kept), today() + dt.timedelta(days=1)).isoformat()
            put_off = tables.COMPLETION_PUT_OFF.bind(self._dialect, of_request=entry.request, day=day)
            await self._session.execute(*put_off)
            return None
        try:
            return await self._close(entry, [stores[label] for label in entry.datasets])
        except DatavernError as error:  # the ledger cannot be asked
            return Receipt(entry.id, waiting={"datavern.completions": why(error)})

    # ---- the end ----------------------------------------------------------------------------------------------------

    async def _close(self, entry: Waiting, stores: Sequence[PersonalStore]) -> SubjectResponse | None:
        privacy = self._privacy
        done = [{"dataset": s.dataset.label, **await self._rest.done(s, entry)} for s in stores]
        kept_under = retention_subject(entry.request)
        await privacy.keys.start_erasure(kept_under)
        destroyed = await privacy.keys.destroy(kept_under)
        completed, key = timestamp(), await self.key()
        found = sum(outcome["found"] for outcome in done)
        records = [RECORDS_CLAIM] if any(isinstance(store, RecordStore) for store in stores) else []
        details = {"request": entry.id, "found": found, "keys": len(destroyed)}
        try:
            async with needs(privacy.ledger, "transactions").transaction() as tx:
                audit = await privacy.ledger_log.append(tx, action="erasure_completed", details=details)
                certificate = Certificate.issue(
                    privacy.signer,
                    "erased",
                    {
                        "organisation": privacy.organisation,
                        "request": entry.id,
                        "completes": entry.request,
                        "subject": entry.subject,
                        "received": entry.received,
                        "completed": completed,
                        "stores": done,
                        "keys": [_key(one) for one in destroyed],
                        "audit": audit,
                        "claims": [*ERASED_CLAIMS, *records],
                        "limits": list(ERASED_LIMITS),
                    },
                )
                tag = bytes((await self._row(entry, tx))["row_tag"])
                signed = self._sealer.seal_row(key, tag, {"certificate": certificate.to_json()})["certificate"]
                named = {"of_request": entry.request, "at": completed, "signed": signed, "nobody": b""}
                if not await tx.execute(*tables.COMPLETION_DONE.bind(self._dialect, **named)):
                    raise _DoneByAnotherError  # noqa: TRY301  (it rolls the transaction back)
        except _DoneByAnotherError:
            return None
        message = f"The erasure is complete: {found} row{'s'[: found != 1]} that had to stay ended too."
        at = dt.datetime.fromisoformat(completed)
        return SubjectResponse(True, message, at, certificate=certificate, request_id=entry.id)

    async def _row(self, entry: Waiting, session: Session) -> Any:
        return await session.query_one(*tables.COMPLETION.bind(self._dialect, of_request=entry.request))


class _DoneByAnotherError(Exception):
    """Another process has completed it: what this one was about to write is undone."""


def _key(destroyed: Destroyed) -> dict[str, Any]:
    return {"id": destroyed.key_id.hex(), "dataset": destroyed.dataset, "at": destroyed.destroyed_at}
