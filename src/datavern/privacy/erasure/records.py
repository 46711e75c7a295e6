"""The steps of erasures in stores of records, where nothing commits with the record that a step was done.

So each is done in three, safe to do again. What was found is counted and written down in the ledger before the first
change, so that an erasure that is cut off still knows of it. The records are ended as the data map says. Once every
write under the old keys has ended or was taken back (`datavern.crypto.unguarded.BOUND` seconds after the keys were
closed), the store is looked through again, and what was done is written down with its audit entry: where nothing else
waits, in the transaction that closes the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, ConstraintViolated, DatavernError, PrivacyError
from datavern.contracts.values import today
from datavern.crypto.unguarded import BOUND
from datavern.privacy.erasure.emptying import left
from datavern.privacy.erasure.policies import Outcome, Step, apply
from datavern.privacy.erasure.progress import PLAN, nothing, why
from datavern.privacy.personal.paths import leaves

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.contracts.records import Holding
    from datavern.privacy.erasure.progress import Place, Progress
    from datavern.privacy.personal.records import RecordStore
    from datavern.privacy.personal.rows import Rows
    from datavern.privacy.service import Privacy

__all__ = ["RecordErasure", "RecordErasures", "RecordStep", "end_records", "ended_before"]

_STANDS = frozenset({"shred", "retain"})
"""The policies by which records stay where they are, so that a second look finds the same ones."""
_EMPTIES = frozenset({"anonymize", "soft"})
"""The policies by which records stay, and are found no more."""
_UNNAMED = "fields of the records that the data map does not name stay as they were"
_AT_ONCE = 8
"""Looks into stores that go on at the same time."""


class RecordErasures:
    """The steps of a group of erasures in stores of records.

    Args:
        privacy: the ledger's steps, and the keys.
        places: the datasets.
        group: the erasures.
    """

    def __init__(self, privacy: Privacy, places: Sequence[Place], group: Sequence[Progress]) -> None:
        self._privacy = privacy
        self._places = places
        self._group = group
        self._going: list[RecordErasure] = []
        self._few = asyncio.Semaphore(_AT_ONCE)

    async def begin(self) -> None:
        """Count, write it down, and end what is there. What is done already, or waits, stands in each `Progress`."""
        steps = self._privacy.site(self._privacy.ledger_name).steps
        asked = [progress.entry.id for progress in self._group] if self._places else []
        earlier = await steps.done_many(asked)
        for place in self._places:
            for progress in self._group:
                before = earlier.get(progress.entry.id, {})
                if place.label not in progress.entry.datasets or place.label in progress.waiting:
                    continue
                if place.name in before:
                    progress.done[place.label] = before[place.name]
                else:
                    self._going.append(RecordErasure(self._privacy, place, progress, before))
        await self._each(RecordErasure.count)
        plans = [one.plan for one in self._going if one.plan is not None]
        if plans:
            try:
                await self._write(plans)
            except DatavernError as error:
                for one in self._going:
                    one.progress.waiting[one.place.label] = why(error)
                self._going = []
        await self._each(RecordErasure.look)

    async def end(self, closed: float) -> dict[str, dict[str, Outcome]]:
        """Look again once no write under the old keys can come any more; request → dataset's label → what was done.

        Args:
            closed: when the keys were closed, or later, on the monotonic clock.
        """
        if self._going:
            await asyncio.sleep(max(0.0, closed + BOUND - monotonic()))
            await self._each(RecordErasure.look)
        done: dict[str, dict[str, Outcome]] = {}
        for one in self._going:
            done.setdefault(one.progress.entry.id, {})[one.place.label] = one.outcome
        return done

    async def _each(self, do: Callable[[RecordErasure], Awaitable[None]]) -> None:
        """The same of all that go on; what cannot be done waits, and goes on no further."""
        going, self._going = self._going, []

        async def one(erasure: RecordErasure) -> bool:
            try:
                async with self._few:
                    await do(erasure)
            except DatavernError as error:
                erasure.progress.waiting[erasure.place.label] = why(error)
                return False
            return True

        went = await asyncio.gather(*map(one, going))
        self._going = [erasure for erasure, well in zip(going, went, strict=True) if well]

    async def _write(self, plans: Sequence[tuple[str, str, Mapping[str, Any]]]) -> None:
        """The plans into the ledger, those that another process has not written meanwhile."""
        steps = self._privacy.site(self._privacy.ledger_name).steps
        while True:
            earlier = await steps.done_many({request for request, _, _ in plans})
            new = [plan for plan in plans if plan[1] not in earlier.get(plan[0], {})]
            for one in self._going:
                before = earlier.get(one.progress.entry.id, {}).get(one.place.name + PLAN)
                if before is not None:
                    one.planned = before["found"]

            async def work(tx: Transaction, new: Sequence[Any] = new) -> None:
                await steps.record(new, tx)

            try:
                if new:
                    await needs(self._privacy.ledger, "transactions").run_in_transaction(work)
            except ConstraintViolated:
                continue  # written by another process since they were read
            return


class RecordErasure:
    """One erasure in one store of records.

    Args:
        privacy: the keys.
        place: the dataset.
        progress: the erasure.
        earlier: the steps of the request that have committed in the ledger.

    Attributes:
        planned: how many records there were before the first change.
        plan: what is to be written down before the first change: request, name, and how many; None: it is written.
    """

    def __init__(
        self, privacy: Privacy, place: Place, progress: Progress, earlier: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self._privacy = privacy
        self._store: RecordStore = place.store  # type: ignore[assignment]  # the caller takes the others apart
        self.place = place
        self.progress = progress
        self._entry = progress.entry
        self._ended = progress.ended
        plan = earlier.get(place.name + PLAN)
        self._counted = plan is not None
        self.planned: int = 0 if plan is None else plan["found"]
        self.plan: tuple[str, str, Mapping[str, Any]] | None = None
        self._passes: list[Outcome] = []

    async def count(self) -> None:
        """How many records there are, where no earlier process has written it down."""
        if not self._counted:
            found, shared = await self._found()
            self.planned = len(found) + len(shared)
            self.plan = (self._entry.id, self.place.name + PLAN, {"found": self.planned})

    async def look(self) -> None:
        """End what is there, as the data map says."""
        self._passes.append(await self._once())

    @property
    def outcome(self) -> Outcome:
        """What was done, by this process and by those that were cut off."""
        return _merged(self.place.rows, self.planned, self._passes)

    # ---- the parts --------------------------------------------------------------------------------------------------

    async def _found(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The subject's records; and those that are about others too."""
        store, rows = self._store, self.place.rows
        own: list[dict[str, Any]] = []
        shared: list[dict[str, Any]] = []
        where = None if rows is None else rows.where_subject(self._entry.subject)
        if rows is None or where is None or rows.subject is None:
            return own, shared
        columns = [*store.dataset.keys, rows.subject] if store.holding.keyed else None
        found = await store.subjects.select(store.dataset.table, where | store.living(), columns=columns)
        for row in found:
            whose = await store.whose(row, self._entry.subject)
            if whose.theirs:
                (shared if whose.shared else own).append(row)
        return own, shared

    async def _wait_for_holds(self, own: Sequence[dict[str, Any]], shared: Sequence[dict[str, Any]]) -> None:
        """Records that a hold keeps, and that cannot be sealed anew: they open with the person's key alone.

        Raises:
            PrivacyError: there are some. The erasure waits for the hold: their key is not destroyed until then.
        """
        store, rows, subject = self._store, self.place.rows, self._entry.subject
        if rows is None:
            return
        whole = store.records.writes(store.holding) is not None
        looked = [*(own if whole else ()), *shared]
        grips = await self._privacy.holds.grips(store.dataset, [subject], None) if looked else None
        held = [grip for row in looked if grips and (grip := grips.on(rows, row, subject))]
        if held:
            raise PrivacyError(
                f"a legal hold keeps {len(held)} of the records, until {max(grip.until for grip in held)}: "
                f"{held[0].why}. They open with the person's own key, so the erasure goes on when it ends"
            )

    async def _once(self) -> Outcome:
        store, entry = self._store, self._entry
        dataset = store.dataset
        rows = self.place.rows
        if rows is None:
            return nothing(dataset.erasure, f"there is no {dataset.table}")
        own, shared = await self._found()
        await self._wait_for_holds(own, shared)
        for row in shared:
            if not await store.take_out(row, entry.subject):
                raise ConfigurationError(
                    f"{dataset.label}: a record is about several people, in a form out of which one cannot be taken: "
                    "take the person out of it with the driver, and the erasure goes on"
                )
        step = RecordStep(store, rows, entry.subject, self._ended, entry.id, today(), self._privacy.keys, None)
        step.own, step.holds = own, self._privacy.holds
        outcome = await end_records(step, store.holding)
        outcome["found"] += len(shared)
        if shared:
            outcome["done"]["taken out of records that are about others too"] = len(shared)
        return outcome


class RecordStep(Step):
    """An erasure in a store of records: the records were found already."""

    def where_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """One of them, as long as it is that person's."""
        where = {name: row[name] for name in self.store.dataset.keys}
        path = self.rows.subject
        if path is None or not self.subject:
            return where
        return where | {path: self.subject if self.store.link is None else next(leaves(row, path), None)}


async def end_records(step: RecordStep, holding: Holding) -> Outcome:
    """What the policy says, of the records that were found."""
    policy = holding.erasure
    if policy == "shred" and not holding.sealed:
        outcome = nothing(policy)
        own = await step.free(outcome)
        if own:
            outcome["done"]["left as they are, and shredded where they are sealed"] = len(own)
            outcome["notes"].append("what stands beside a sealed value stays: its name, times, and classification")
        return outcome
    outcome = await apply(step)
    if step.own and policy in _EMPTIES:
        outcome["notes"].append(_UNNAMED)
    return outcome


def ended_before(outcome: Outcome, rows: Rows | None, number: int) -> None:
    """Tell of records, too, that a process ended which was cut off before it could say so, and of what is left of them.

    Args:
        outcome: what was done to the others.
        rows: how they stand.
        number: how many are missing.
    """
    outcome["done"]["done before the erasure was cut off"] = number
    policy = outcome["policy"]
    if rows is None or policy not in _EMPTIES:
        return
    stays = rows.pseudonymous is None if policy == "anonymize" else not rows.number
    outcome["left"] = sorted({*outcome["left"], *left(rows, subject=stays)})
    if _UNNAMED not in outcome["notes"]:
        outcome["notes"].append(_UNNAMED)


def _merged(rows: Rows | None, planned: int, passes: Sequence[Outcome]) -> Outcome:
    """What the passes did together, of which an earlier process may have done a part."""
    first, last = passes[0], passes[-1]
    policy = last["policy"]
    outcome = nothing(policy, *dict.fromkeys(note for one in passes for note in one["notes"]))
    outcome["kept"] = last["kept"]
    standing = sum(kept["rows"] for kept in last["kept"]) if policy not in _STANDS else 0
    outcome["left"] = sorted({name for one in passes for name in one["left"]})
    if policy in _STANDS:
        outcome["done"] = {**first["done"], **last["done"]}
        outcome["found"] = max(planned, last["found"], first["found"])
        return outcome
    for one in passes:
        for what, number in one["done"].items():
            outcome["done"][what] = outcome["done"].get(what, 0) + number
    late = sum(one["found"] for one in passes[1:]) - standing * (len(passes) - 1)
    outcome["found"] = max(planned, first["found"]) + late
    unknown = outcome["found"] - sum(one["found"] for one in passes) + standing * (len(passes) - 1)
    if unknown > 0:
        ended_before(outcome, rows, unknown)
    return outcome
