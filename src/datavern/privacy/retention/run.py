"""The retention run: what is past its time ends, as the data map says, without anybody asking for it.

A dataset's `retention`, counted from `retention_from`, says when; its `erasure` says how. Rows go in batches, oldest
first, each in one transaction with its audit entry. Nothing is kept of how far it came but the rows themselves: one
that ended is gone, or marked. So a run that was cut off goes on when it is run again, and of two that run at the same
time each takes what the other has not locked. Rows that a legal hold keeps, and those of people whose data is
restricted (GDPR Art. 18(2): stored, and nothing else), stay.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, DatavernError
from datavern.contracts.values import today
from datavern.privacy.datamap.dataset import ERASED_AT, OWN_DATASETS, RETAINED_UNTIL
from datavern.privacy.erasure.progress import Place, why
from datavern.privacy.erasure.survey import in_order
from datavern.privacy.journal.values import Receipt
from datavern.privacy.personal.records import RecordStore
from datavern.privacy.retention.expiring import Expired, Pass, stays
from datavern.privacy.values.periods import Period

if TYPE_CHECKING:
    from datavern.privacy.datamap.dataset import Dataset
    from datavern.privacy.personal.store import PersonalStore
    from datavern.privacy.retention.anonymity import Anonymity
    from datavern.privacy.service import Privacy

__all__ = ["Expired", "Retention", "RetentionReport", "first_kept"]

_MOST: Final = 10_000
_SECONDS_A_DAY: Final = 86_400
_DOES: Final = {
    "delete": "delete",
    "retain": "delete",
    "anonymize": "anonymise",
    "soft": "empty and mark",
    "shred": "empty what is sealed",
}


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What a run did.

    Attributes:
        dry_run: whether it only looked.
        datasets: dataset by dataset.
        completed: the ids of erasures that had left rows, and are complete now.
        waiting: the ids of those that could be, and why they are not: dataset → what is in the way.
    """

    dry_run: bool
    datasets: tuple[Expired, ...]
    completed: tuple[str, ...] = ()
    waiting: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether everything that is past its time ended, or was kept for a reason."""
        return not self.waiting and not any(one.waiting or one.refused for one in self.datasets)

    @property
    def rows(self) -> int:
        """How many rows ended."""
        return sum(one.rows for one in self.datasets)


def first_kept(dataset: Dataset, day: dt.date) -> dt.date:
    """The first date that is not past its time on a day: what is counted from an earlier one is.

    Args:
        dataset: one with a `retention`.
        day: the day.
    """
    period = Period.parse(dataset.retention or "")

    def past(start: dt.date) -> bool:
        return period.after(dt.date(start.year, 12, 31) if dataset.retention_from_year_end else start) < day

    low, high = dt.date.min.toordinal(), day.toordinal()
    while low < high:
        middle = (low + high) // 2
        if past(dt.date.fromordinal(middle)):
            low = middle + 1
        else:
            high = middle
    return dt.date.fromordinal(low)


class Retention:
    """Retention runs of one manager.

    Args:
        privacy: the datasets, the holds and the keys.
    """

    def __init__(self, privacy: Privacy) -> None:
        self._privacy = privacy

    async def run(
        self,
        dataset: str | None = None,
        *,
        dry_run: bool = False,
        batch_size: int = 500,
        progress: Callable[[str, int], None] | None = None,
    ) -> RetentionReport:
        """End what is past its time. Safe to run again, at any time, and in several processes at once.

        Args:
            dataset: this one alone; None: all of the data map.
            dry_run: only say what would end.
            batch_size: rows in one transaction, 1 to 10,000.
            progress: told of each batch: the dataset's label, and how many rows ended.

        Returns:
            What was done, dataset by dataset. One whose database cannot be reached waits, and the others do not.

        Raises:
            ConfigurationError: the data map has no dataset of that name, or no such batch size.
        """
        if not 1 <= batch_size <= _MOST:
            raise ConfigurationError(f"batch_size is 1 to {_MOST:,}")
        wanted = None if dataset is None else self._privacy.personal(dataset).dataset.name
        found: dict[str, Expired] = {}
        turns: dict[tuple[int, str], list[Place]] = {}
        for store in self._privacy.datasets:
            one = store.dataset
            if one.name.startswith(OWN_DATASETS) or (wanted is not None and one.name != wanted):
                continue
            expired = found[one.label] = Expired(one.label)
            try:
                place = await self._look(store, expired)
            except DatavernError as error:
                expired.waiting = why(error)
                continue
            if place is not None:
                turns.setdefault((-_depth(store), one.database), []).append(place)
        told = progress or (lambda _label, _rows: None)
        # What is reached over other rows goes before these: afterwards nobody could say whose it is, and what holds it.
        for turn in sorted(turns):
            for place in in_order(turns[turn]):
                await self._end(place, found[place.label], dry_run=dry_run, size=batch_size, told=told)
        rest = [] if dry_run else await self._privacy.completions.due(_MOST)
        waiting = {one.request_id: one.waiting for one in rest if isinstance(one, Receipt)}
        completed = tuple(one.request_id for one in rest if not isinstance(one, Receipt))
        return RetentionReport(dry_run, tuple(found.values()), completed, waiting)

    async def anonymity(self, dataset: str, fields: Sequence[str] | None = None) -> Anonymity:
        """How far the anonymised rows of a dataset hide in one another: the smallest group that says the same.

        Args:
            dataset: which.
            fields: what is compared; None: the fields that are generalised or noisy.

        Raises:
            ConfigurationError: its rows are not anonymised, or there is nothing to compare.
        """
        from datavern.privacy.retention.anonymity import anonymity  # noqa: PLC0415  (seldom asked)

        return await anonymity(self._privacy.unwatched(dataset), fields)

    # ---- what there is ----------------------------------------------------------------------------------------------

    async def _look(self, store: PersonalStore, expired: Expired) -> Place | None:
        """Whether anything of a dataset ends by its age; what is to be known of it is noted."""
        dataset = store.dataset
        if dataset.retention is None:
            expired.notes.append("no retention: nothing here ends by its age")
            return None
        keyed = isinstance(store, RecordStore) and store.holding.keyed
        if not keyed and dataset.retention_from is None and dataset.erasure != "retain":
            expired.notes.append("no retention_from: nothing says from when its retention counts, so it is passed over")
            return None
        if not await store.exists():
            expired.notes.append(f"there is no {dataset.table}")
            return None
        rows = await store.rows(fresh=True)
        if keyed:
            expired.action = "expire"
            return Place(store, rows)
        expired.action = _DOES[dataset.erasure]
        if dataset.retention_from is not None:
            expired.before = first_kept(dataset, today())
            if dataset.retention_from not in rows.store.indexed:
                expired.notes.append(
                    f"no index leads with {dataset.retention_from}: every batch reads the whole of {dataset.table}"
                )
            if dataset.marks_erased and ERASED_AT not in rows.columns:
                raise ConfigurationError(
                    f'{dataset.table} has no column {ERASED_AT}, by which a row is known that ended: await db.prepare("'
                    f'{dataset.name}") makes it'
                )
        return Place(store, rows)

    async def _end(
        self, place: Place, expired: Expired, *, dry_run: bool, size: int, told: Callable[[str, int], None]
    ) -> None:
        store, dataset = place.store, place.store.dataset
        try:
            await self._privacy.standing.ask()
            if isinstance(store, RecordStore) and store.holding.keyed:
                await self._keys(store, expired, dry_run=dry_run)
                return
            passes = [] if expired.before is None else [(dataset.retention_from or "", expired.before)]
            if dataset.erasure == "retain":
                passes.append((RETAINED_UNTIL, today()))
            for column, before in passes:
                one = Pass(self._privacy, place, column, before, size)
                if dry_run:
                    await one.count(expired)
                else:
                    await one.run(expired, told)
        except DatavernError as error:
            expired.waiting = why(error)

    async def _keys(self, store: RecordStore, expired: Expired, *, dry_run: bool) -> None:
        """Keys and values: those that would live beyond the retention are given that long, from now on."""
        privacy, dataset = self._privacy, store.dataset
        seconds = (Period.parse(dataset.retention or "").after(today()) - today()).days * _SECONDS_A_DAY
        grips = await privacy.holds.grips(dataset, None, None)

        def spares(subject: str) -> bool:
            return stays(privacy, store, {store.dataset.subject or "": subject}, None, grips)

        if not dry_run:
            details = {"policy": dataset.erasure, "retention": dataset.retention}
            await privacy.ledger_log.append(
                needs(privacy.ledger, "session"), action="expired", dataset=dataset.label, details=details
            )
        longer, fixed = await store.records.cap(store.holding, seconds, fix=not dry_run, spares=spares)
        expired.rows = longer if dry_run else fixed


def _depth(store: PersonalStore) -> int:
    """Over how many other datasets its rows lead to a person."""
    depth, link = 0, store.link
    while link is not None:
        depth, link = depth + 1, link.target.link
    return depth
