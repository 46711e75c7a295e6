"""The steps of erasures in one database that commits each of them with the rows that it changed.

All of them go together first: the datasets of the database, and the people of a batch, in one transaction, with the
rows of everybody read and written in a few statements. Where that is refused (a row of somebody else's refers to one
that should go, a column does not take what should stand in it) it is halved, until the one that cannot be done stands
alone: it waits, and the others do not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import (
    ConnectionFailed,
    ConstraintViolated,
    DatavernError,
    NoHealthyConnection,
    OutcomeUnknown,
    PoolTimeout,
)
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import today
from datavern.privacy.erasure.emptying import key_of_nobody
from datavern.privacy.erasure.policies import Outcome, Step, apply, columns_needed
from datavern.privacy.erasure.progress import Place, Progress, nothing, step_details, why
from datavern.privacy.erasure.turns import hold_back

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.crypto.sealed import DataKey
    from datavern.privacy.holds.holds import Grips
    from datavern.privacy.personal.rows import Rows
    from datavern.privacy.service import Privacy

__all__ = ["RowErasure"]

_ASKED_AT_ONCE = 256
_AWAY = (ConnectionFailed, PoolTimeout, NoHealthyConnection, OutcomeUnknown)
"""The errors that no smaller part would escape."""

Task = tuple[Place, Progress]


class RowErasure:
    """The steps of a group of erasures in one database.

    Args:
        privacy: the keys, and what Datavern keeps in that database.
        database: its name.
        places: the datasets there, those whose rows refer to another's before it.
        group: the erasures.
        linked: dataset's label → the labels of those whose rows are found through it.
        action: what the audit log calls a step: "erased", or "erased_again" after a restore.
    """

    def __init__(
        self,
        privacy: Privacy,
        database: str,
        places: Sequence[Place],
        group: Sequence[Progress],
        linked: Mapping[str, Sequence[str]],
        *,
        action: str = "erased",
    ) -> None:
        self._action = action
        self._privacy = privacy
        self._site = privacy.site(database)
        self._places = places
        self._group = group
        self._linked = linked
        self._today = today()
        self._nobody: dict[str, DataKey | None] = {}

    async def run(self) -> None:
        """Do what is not done yet; what came of it stands in each `Progress`. Idempotent."""
        hold_back(self._places, self._group, self._linked)
        tasks: list[Task] = [
            (place, progress)
            for place in self._places
            for progress in self._group
            if place.label in progress.entry.datasets and place.label not in progress.waiting
        ]
        try:
            for place in self._places:
                self._nobody[place.label] = await key_of_nobody(self._privacy.keys, place.store.dataset)
            await self._together(await self._not_done(tasks))
        except DatavernError as error:
            _wait(tasks, error)

    async def _not_done(self, tasks: Sequence[Task]) -> list[Task]:
        """Those of which no step has committed; what the others did is noted."""
        done = await self._site.steps.done_many({progress.entry.id for _, progress in tasks})
        left = []
        for place, progress in tasks:
            outcome = done.get(progress.entry.id, {}).get(place.name)
            if outcome is None:
                left.append((place, progress))
            else:
                progress.done[place.label] = outcome
        return left

    async def _together(self, tasks: Sequence[Task]) -> None:
        """All of them in one transaction; smaller parts where it is refused."""
        if not tasks:
            return

        async def work(tx: Transaction) -> list[Outcome]:
            return await self._work(tasks, tx)

        refused: DatavernError | None = None
        try:
            # What the steps do after they have waited for the last writers must see what those wrote, whatever the
            # server's default is: each statement by itself, and not as the database was when the transaction began.
            transactions = needs(self._site.provider, "transactions")
            outcomes = await transactions.run_in_transaction(work, isolation="read committed")
        except _AWAY as error:
            _wait(tasks, error)
            return
        except DatavernError as error:
            refused = error
        if refused is None:
            for (place, progress), outcome in zip(tasks, outcomes, strict=True):
                progress.done[place.label] = outcome
            return
        # Another process may have done some of it meanwhile: then a step was there already.
        left = await self._not_done(tasks)
        people = list(dict.fromkeys(id(progress) for _, progress in left))
        if len(people) > 1:
            first = set(people[: len(people) // 2])
            await self._together([task for task in left if id(task[1]) in first])
            await self._together([task for task in left if id(task[1]) not in first])
            return
        for task in left:
            await self._alone(task)

    async def _alone(self, task: Task) -> None:
        """One step in one transaction, each of its changes in a savepoint of its own; the reason where it waits."""
        place, progress = task
        hold_back([place], [progress], self._linked)
        if place.label in progress.waiting:
            return

        async def work(tx: Transaction) -> Outcome:
            await self._site.life.end(tx, sorted(progress.ended))
            outcome = nothing(place.store.dataset.erasure, f"there is no table {place.store.dataset.table}")
            if place.rows is not None:
                outcome = await apply(self._step(place, progress, tx))
            (written,) = await self._written([task], [outcome], tx)
            return written

        try:
            transactions = needs(self._site.provider, "transactions")
            progress.done[place.label] = await transactions.run_in_transaction(work, isolation="read committed")
        except ConstraintViolated as error:
            if await self._not_done([task]):  # else another process has done the step meanwhile
                progress.waiting[place.label] = why(error)
        except DatavernError as error:
            progress.waiting[place.label] = why(error)

    async def _work(self, tasks: Sequence[Task], tx: Transaction) -> list[Outcome]:
        await self._site.life.end(tx, sorted({key for _, progress in tasks for key in progress.ended}))
        outcomes: dict[int, Outcome] = {}
        for place in self._places:
            numbered = [(number, task) for number, task in enumerate(tasks) if task[0] is place]
            if not numbered:
                continue
            if place.rows is None:
                for number, _ in numbered:
                    outcomes[number] = nothing(
                        place.store.dataset.erasure, f"there is no table {place.store.dataset.table}"
                    )
                continue
            subjects = [task[1].entry.subject for _, task in numbered]
            found = await self._found(place, subjects, tx)
            # Asked once the rows are locked: no hold comes any more that is not seen here.
            gripped = await self._privacy.holds.grips(place.store.dataset, subjects, tx) if found else None
            later: list[tuple[dict[str, Any], Mapping[str, Any] | None]] = []
            for number, (_, progress) in numbered:
                step = _GroupStep(*self._parts(place, progress, tx))
                step.own, step.later, step.gripped = found.get(progress.entry.subject, []), later, gripped
                outcomes[number] = await apply(step)
            if later:
                hands: Any = needs(self._site.provider, "subjects")
                await hands.change_many(place.store.dataset.table, later, transaction=tx)
        return await self._written(tasks, [outcomes[number] for number in range(len(tasks))], tx)

    async def _written(self, tasks: Sequence[Task], outcomes: Sequence[Outcome], tx: Transaction) -> list[Outcome]:
        """The outcomes, with their audit entries, in the journal of steps."""
        audits = await self._site.log.append_many(
            tx,
            [
                {"action": self._action, "dataset": place.label, "details": step_details(progress.entry.id, outcome)}
                for (place, progress), outcome in zip(tasks, outcomes, strict=True)
            ],
        )
        written = [{**outcome, "audit": audit} for outcome, audit in zip(outcomes, audits, strict=True)]
        steps = [(p.entry.id, place.name, outcome) for (place, p), outcome in zip(tasks, written, strict=True)]
        await self._site.steps.record(steps, tx)
        return written

    async def _found(self, place: Place, subjects: Sequence[str], tx: Transaction) -> dict[str, list[dict[str, Any]]]:
        """Person → their rows, locked: those of that very id, whatever else the column takes for the same."""
        rows, dataset = place.rows, place.store.dataset
        assert rows is not None  # noqa: S101  (for the type checker: the caller saw to it)
        if place.store.link is not None:
            return {subject: await self._linked_rows(place, rows, subject, tx) for subject in subjects}
        column = rows.subject_column
        if column is None:
            return {}
        wheres = [where for where in map(rows.where_subject, subjects) if where is not None]
        values = [where[column.name] for where in wheres]
        found: dict[str, list[dict[str, Any]]] = {}
        for at in range(0, len(values), _ASKED_AT_ONCE):
            some = tuple(values[at : at + _ASKED_AT_ONCE])
            for row in await needs(self._site.provider, "subjects").select(
                dataset.table,
                {column.name: some if len(some) > 1 else some[0]},
                columns=columns_needed(rows),
                lock=True,
                transaction=tx,
            ):
                value = row[column.name]
                if value is not None:
                    found.setdefault(canonical_subject(value), []).append(row)
        return found

    async def _linked_rows(self, place: Place, rows: Rows, subject: str, tx: Transaction) -> list[dict[str, Any]]:
        """The same of one person, where the rows lead to people by something else than their ids."""
        found = await place.store.subjects.select(
            place.store.dataset.table,
            rows.where_subject(subject) or {},
            columns=columns_needed(rows),
            lock=True,
            transaction=tx,
        )
        return [row for row in found if rows.is_of(row, subject)]

    def _parts(self, place: Place, progress: Progress, tx: Transaction) -> tuple[Any, ...]:
        entry = progress.entry
        keys, holds = self._privacy.keys, self._privacy.holds
        ended, nobody = progress.ended, self._nobody.get(place.label)
        return place.store, place.rows, entry.subject, ended, entry.id, self._today, keys, tx, nobody, holds

    def _step(self, place: Place, progress: Progress, tx: Transaction) -> Step:
        return Step(*self._parts(place, progress, tx))


class _GroupStep(Step):
    """A step among others: its rows were read with those of the others, and what is to be done is kept for all."""

    later: list[tuple[dict[str, Any], Mapping[str, Any] | None]]
    gripped: Grips | None

    async def grips(self) -> Grips | None:
        """What holds rows of all of them."""
        return self.gripped

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """None: nothing is changed yet. A refusal is one of the whole, which is then done in smaller parts."""
        yield

    async def change(self, row: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        """Keep a change for later."""
        self.later.append((self.where_row(row), changes))

    async def delete(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Keep deletions for later: the rows are locked, so that they will all be there."""
        self.later += [(self.where_row(row), None) for row in rows]
        return len(rows)


def _wait(tasks: Sequence[Task], error: DatavernError) -> None:
    for place, progress in tasks:
        if place.label not in progress.done:
            progress.waiting[place.label] = why(error)
