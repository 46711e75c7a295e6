"""The step of an erasure in a store of records, where nothing commits with the record that it was done.

So it is done in three, each safe to do again. What was found is counted and written down in the ledger before the first
change, so that an erasure that is cut off still knows of it. The records are ended as the data map says. Once every
write under the old keys has ended or was taken back (`datavern.crypto.unguarded.BOUND` seconds after the keys were
closed), the store is looked through again, and what was done is written down with its audit entry.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, ConstraintViolated
from datavern.crypto.unguarded import BOUND
from datavern.privacy.policies import Outcome, Step, apply

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.contracts.records import Holding
    from datavern.privacy.journal import Entry
    from datavern.privacy.records import RecordStore
    from datavern.privacy.service import Privacy

__all__ = ["RecordErasure"]

_PLAN = "#plan"
"""What follows a dataset's name where its plan is written down: no dataset's name holds a #."""
_STANDS = frozenset({"shred", "retain"})
"""The policies by which records stay where they are, so that a second look finds the same ones."""


class RecordErasure:
    """One erasure in one store of records.

    Args:
        privacy: the ledger's steps and log, and the keys.
        store: the dataset.
        entry: the request.
        ended: the ids of the keys that it ends.
    """

    def __init__(self, privacy: Privacy, store: RecordStore, entry: Entry, ended: Sequence[bytes]) -> None:
        self._privacy = privacy
        self._store = store
        self._entry = entry
        self._ended = frozenset(ended)
        self._planned = 0
        self._passes: list[Outcome] = []

    @property
    def _name(self) -> str:
        return self._store.dataset.name

    async def begin(self, earlier: Mapping[str, Mapping[str, Any]]) -> None:
        """Count, write it down, and end what is there.

        Args:
            earlier: the steps of the request that have committed in the ledger.
        """
        plan = earlier.get(self._name + _PLAN)
        if plan is None:
            plan = await self._plan()
        self._planned = plan["found"]
        self._passes.append(await self._once())

    async def end(self, closed: float) -> dict[str, Any]:
        """Look again once no write under the old keys can come any more, and write down what was done.

        Args:
            closed: when the keys were closed, or later, on the monotonic clock.
        """
        await asyncio.sleep(max(0.0, closed + BOUND - monotonic()))
        self._passes.append(await self._once())
        outcome = _merged(self._planned, self._passes)
        site = self._privacy.site(self._privacy.ledger_name)
        entry, dataset = self._entry, self._store.dataset

        async def work(tx: Transaction) -> dict[str, Any]:
            await site.steps.claim(entry.id, dataset.name, tx)
            details = {"request": entry.id, **{k: v for k, v in outcome.items() if k not in ("kept", "notes")}}
            outcome["audit"] = await site.log.append(tx, action="erased", dataset=dataset.label, details=details)
            await site.steps.record(entry.id, dataset.name, outcome, tx)
            return outcome

        return await self._in_ledger(dataset.name, work)

    # ---- the parts --------------------------------------------------------------------------------------------------

    async def _plan(self) -> dict[str, Any]:
        site = self._privacy.site(self._privacy.ledger_name)
        name, entry = self._name + _PLAN, self._entry
        found, shared = await self._found()
        plan = {"found": len(found) + len(shared)}

        async def work(tx: Transaction) -> dict[str, Any]:
            await site.steps.claim(entry.id, name, tx)
            await site.steps.record(entry.id, name, plan, tx)
            return plan

        return await self._in_ledger(name, work)

    async def _in_ledger(self, name: str, work: Any) -> dict[str, Any]:
        """A step in one transaction of the ledger; what it did, whoever did it."""
        privacy = self._privacy
        violated: ConstraintViolated
        try:
            return await needs(privacy.ledger, "transactions").run_in_transaction(work, isolation="read committed")
        except ConstraintViolated as error:
            violated = error
        done = (await privacy.site(privacy.ledger_name).steps.done(self._entry.id)).get(name)
        if done is None:
            raise violated
        return done

    async def _found(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The subject's records; and those that are about others too."""
        store = self._store
        rows = await store.rows()
        where = rows.where_subject(self._entry.subject)
        own: list[dict[str, Any]] = []
        shared: list[dict[str, Any]] = []
        if where is None or rows.subject is None or not await store.exists():
            return own, shared
        columns = [*store.dataset.keys, rows.subject] if store.holding.keyed else None
        found = await store.subjects.select(store.dataset.table, where | store.living(), columns=columns)
        for row in found:
            whose = await store.records.whose(row, rows.subject, self._entry.subject)
            if whose.theirs:
                (shared if whose.shared else own).append(row)
        return own, shared

    async def _once(self) -> Outcome:
        store, entry = self._store, self._entry
        dataset = store.dataset
        if not await store.exists():
            return _nothing(dataset.erasure, f"there is no {dataset.table}")
        rows = await store.rows()
        own, shared = await self._found()
        for row in shared:
            if not await store.records.take_out(store.holding, row, entry.subject):
                raise ConfigurationError(
                    f"{dataset.label}: a record is about several people, in a form out of which one cannot be taken: "
                    "take the person out of it with the driver, and the erasure goes on"
                )
        today = dt.datetime.now().astimezone().date()
        step = _Step(store, rows, entry.subject, self._ended, entry.id, today, self._privacy.keys, None)
        step.own = own
        outcome = await _end(step, store.holding)
        outcome["found"] += len(shared)
        if shared:
            outcome["done"]["taken out of records that are about others too"] = len(shared)
        return outcome


class _Step(Step):
    """An erasure in a store of records: the records were found already."""

    own: Sequence[dict[str, Any]] = ()

    async def select(self, **_: Any) -> list[dict[str, Any]]:
        """Those of that very person."""
        return list(self.own)

    def where_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """One of them, as long as it is that person's."""
        where = {name: row[name] for name in self.store.dataset.keys}
        return where if self.rows.subject is None else where | {self.rows.subject: self.subject}


async def _end(step: _Step, holding: Holding) -> Outcome:
    """What the policy says, of the records that were found."""
    policy = holding.erasure
    if policy == "delete":
        outcome = _nothing(policy)
        for row in step.own:
            outcome["found"] += await step.subjects.delete(step.table, step.where_row(row))
        if outcome["found"]:
            outcome["done"]["deleted"] = outcome["found"]
        return outcome
    if policy == "shred" and not holding.sealed:
        outcome = _nothing(policy)
        outcome["found"] = len(step.own)
        if step.own:
            outcome["done"]["left as they are, and shredded where they are sealed"] = len(step.own)
            outcome["notes"].append("what stands beside a sealed value stays: its name, times, and classification")
        return outcome
    outcome = await apply(step)
    if step.own and policy in ("anonymize", "soft"):
        outcome["notes"].append("fields of the records that the data map does not name stay as they were")
    return outcome


def _nothing(policy: str, *notes: str) -> Outcome:
    return {"policy": policy, "found": 0, "done": {}, "kept": [], "left": [], "notes": list(notes)}


def _merged(planned: int, passes: Sequence[Outcome]) -> Outcome:
    """What the passes did together, of which an earlier process may have done a part."""
    first, last = passes[0], passes[-1]
    policy = last["policy"]
    outcome = _nothing(policy, *dict.fromkeys(note for one in passes for note in one["notes"]))
    outcome["kept"] = last["kept"]
    outcome["left"] = sorted({name for one in passes for name in one["left"]})
    if policy in _STANDS:
        outcome["done"] = {**first["done"], **last["done"]}
        outcome["found"] = max(planned, last["found"], first["found"])
        return outcome
    for one in passes:
        for what, number in one["done"].items():
            outcome["done"][what] = outcome["done"].get(what, 0) + number
    late = sum(one["found"] for one in passes[1:])
    outcome["found"] = max(planned, first["found"]) + late
    unknown = outcome["found"] - sum(one["found"] for one in passes)
    if unknown > 0:  # done by a process that was cut off before it could say so
        outcome["done"]["done before the erasure was cut off"] = unknown
    return outcome
