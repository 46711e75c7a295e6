"""The rest of an erasure in one store: what may be ended today of the rows that had to stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConstraintViolated
from datavern.contracts.values import today
from datavern.crypto.sealed import new_row_tag
from datavern.privacy.datamap.dataset import RETAINED_UNTIL
from datavern.privacy.erasure.emptying import key_of_nobody
from datavern.privacy.erasure.policies import Step, apply
from datavern.privacy.erasure.progress import PLAN
from datavern.privacy.holds import tables
from datavern.privacy.personal.records import RecordStore

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.privacy.personal.store import PersonalStore
    from datavern.privacy.service import Privacy

__all__ = ["COMPLETED", "Rest", "Waiting"]

COMPLETED: Final = "-completed"
"""What follows a request's id in the name of its completion."""


class Waiting(NamedTuple):
    """An erasure that waits for the rest of it.

    Attributes:
        request: the erasure's id.
        subject: whose.
        received: when the request came.
        datasets: the labels of those where rows stayed.
    """

    request: str
    subject: str
    received: str
    datasets: tuple[str, ...]

    @property
    def id(self) -> str:
        """What its end is called in the audit log, and on its certificate."""
        return self.request + COMPLETED


class Rest:
    """What stayed of erasures, in one store after the other.

    Args:
        privacy: the datasets and the keys.
    """

    def __init__(self, privacy: Privacy) -> None:
        self._privacy = privacy

    async def end(self, store: PersonalStore, entry: Waiting) -> Sequence[Mapping[str, Any]]:
        """End what may be ended of the rows that stayed in one store; what stays on, as outcomes tell it."""
        if not await store.exists():
            return []
        dataset = store.dataset
        rows = await store.rows()
        nobody = await key_of_nobody(self._privacy.keys, dataset)
        if isinstance(store, RecordStore):
            return await self._in_records(store, entry)
        site = self._privacy.site(dataset.database)

        async def work(tx: Transaction) -> Sequence[Mapping[str, Any]]:
            step = Step(store, rows, entry.subject, (), "", today(), self._privacy.keys, tx, nobody)
            step.holds = self._privacy.holds
            left = await self._left(store, entry, tx)
            found = await step.select()
            step.own = [row for row in found if self._stayed(store, row, left)]
            step.ended = _keys_of(step)
            outcome = await apply(step)
            await self._note(store, entry, outcome, left, tx)
            kept: Sequence[Mapping[str, Any]] = outcome["kept"]
            return kept

        # Each statement by itself: what was written while the rows were waited for is seen.
        return await needs(site.provider, "transactions").run_in_transaction(work, isolation="read committed")

    async def done(self, store: PersonalStore, entry: Waiting) -> dict[str, Any]:
        """What became of the rows that stayed in a store, over all the days on which some of them ended."""
        site, name = self._privacy.site(store.dataset.database), store.dataset.name
        first = (await site.steps.done(entry.request)).get(name, {"kept": []})
        done_here = await site.steps.done(entry.id)
        steps = [o for n, o in done_here.items() if n.startswith(f"{name}#") and n != name + PLAN]
        stayed = sum(one["rows"] for one in first["kept"])
        done: dict[str, int] = {}
        for outcome in steps:
            for what, number in outcome["done"].items():
                done[what] = done.get(what, 0) + number
        if sum(done.values()) < stayed:
            done["ended by the retention run, or before"] = stayed - sum(done.values())
        return {
            "policy": store.dataset.erasure,
            "found": stayed,
            "done": done,
            "kept": [],
            "left": sorted({column for outcome in steps for column in outcome["left"]}),
            "notes": list(dict.fromkeys(note for outcome in steps for note in outcome["notes"])),
        }

    # ---- the parts --------------------------------------------------------------------------------------------------

    async def _in_records(self, store: RecordStore, entry: Waiting) -> Sequence[Mapping[str, Any]]:
        """The same in a store where nothing commits with the records: what is found is written down before it goes."""
        from datavern.privacy.erasure import records  # noqa: PLC0415  (only where there are some)

        privacy, rows = self._privacy, await store.rows()
        site = privacy.site(privacy.ledger_name)
        left = await self._left(store, entry, None)
        step = records.RecordStep(store, rows, entry.subject, (), "", today(), privacy.keys, None)
        step.holds = privacy.holds
        where = rows.where_subject(entry.subject)
        found = [] if where is None else await store.subjects.select(store.dataset.table, where)
        step.own = [row for row in found if self._stayed(store, row, left)]
        step.ended = _keys_of(step)
        planned = await self._planned(store, entry, len(step.own))
        before = planned - len(step.own)
        outcome = await records.end_records(step, store.holding)
        if before > 0:
            outcome["found"] += before
            records.ended_before(outcome, rows, before)

        async def work(tx: Transaction) -> None:
            # Of two that ended them at the same time, the one that finds the plan tells of it.
            if await site.steps.forget(entry.id, store.dataset.name + PLAN, tx) or not planned:
                await self._note(store, entry, outcome, left, tx)

        await needs(site.provider, "transactions").run_in_transaction(work)
        kept: Sequence[Mapping[str, Any]] = outcome["kept"]
        return kept

    async def _planned(self, store: RecordStore, entry: Waiting, found: int) -> int:
        """How many records there were before the first change, by an earlier process if one was cut off."""
        site, name = self._privacy.site(self._privacy.ledger_name), store.dataset.name + PLAN
        while True:
            earlier = (await site.steps.done(entry.id)).get(name)
            if earlier is not None or not found:
                return found if earlier is None else int(earlier["found"])

            async def work(tx: Transaction) -> None:
                await site.steps.record([(entry.id, name, {"found": found})], tx)

            try:
                await needs(site.provider, "transactions").run_in_transaction(work)
            except ConstraintViolated:
                continue  # written by another process since it was looked for
            return found

    async def _left(self, store: PersonalStore, entry: Waiting, tx: Transaction | None) -> dict[bytes, str]:
        """Key tag → entry, of the rows that the erasure left because of a hold."""
        site = self._privacy.site(store.dataset.database)
        request, dialect = entry.request, needs(site.provider, "ledger").dialect
        session = tx or needs(site.provider, "session")
        found = await session.query(*tables.KEPT_OF.bind(dialect, of_request=request))
        return {bytes(row["key_tag"]): row["entry"] for row in found if row["dataset"] == store.dataset.name}

    def _stayed(self, store: PersonalStore, row: Mapping[str, Any], left: Mapping[bytes, str]) -> bool:
        """Whether the erasure left a row: the person may have returned since, and what is new is not concerned."""
        if store.dataset.erasure == "retain":
            return row.get(RETAINED_UNTIL) is not None
        return self._privacy.holds.key_tag(store.dataset, row) in left

    async def _note(
        self, store: PersonalStore, entry: Waiting, outcome: dict[str, Any], left: Mapping[bytes, str], tx: Transaction
    ) -> None:
        """What was done, in the transaction that did it: the audit entry, the step, and what no longer waits."""
        site = self._privacy.site(store.dataset.database)
        dialect = needs(site.provider, "ledger").dialect
        if outcome["done"]:
            details = {"request": entry.id, **{k: v for k, v in outcome.items() if k not in ("kept", "notes")}}
            label = store.dataset.label
            outcome["audit"] = await site.log.append(tx, action="erased", dataset=label, details=details)
            name = f"{store.dataset.name}#{new_row_tag().hex()}"  # rows may go one after the other, on several days
            await site.steps.record([(entry.id, name, outcome)], tx)
        if not outcome["kept"]:
            for one in left.values():
                await tx.execute(*tables.KEPT_DELETE.bind(dialect, of_entry=one))


def _keys_of(step: Step) -> frozenset[bytes]:
    """The keys that end with the rows, where these stay as they are."""
    shred = step.store.dataset.erasure == "shred"
    return frozenset(key for row in step.own or () for key in step.rows.key_ids(row)) if shred else frozenset()
