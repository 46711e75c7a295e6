"""How far anonymised rows hide in one another: the smallest group of rows that say the same (k-anonymity).

Rows whose generalised fields have the same values are a group. In a group of one, whoever knows these values of a
person knows which row was theirs. It is a measure and no proof: what the other columns say, and what others know, is
not in it (Article 29 Working Party, Opinion 05/2014).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import ConfigurationError
from datavern.privacy.datamap.dataset import ERASED_AT

if TYPE_CHECKING:
    from datavern.privacy.personal.store import PersonalStore

__all__ = ["Anonymity", "anonymity"]

_OPENED_AT_ONCE: Final = 500
_MOST_GROUPS: Final = 1_000_000
_TELLING: Final = ("generalise", "noise")


@dataclass(frozen=True, slots=True)
class Anonymity:
    """What is left of the anonymised rows of a dataset.

    Attributes:
        dataset: its label.
        fields: those that are generalised, or noisy, and compared.
        rows: how many anonymised rows there are.
        groups: how many groups of rows that say the same in these fields.
        smallest: rows in the smallest of them: k. None where there is no anonymised row.
        alone: rows that are the only one of their group.
    """

    dataset: str
    fields: tuple[str, ...] = field(default=())
    rows: int = 0
    groups: int = 0
    smallest: int | None = None
    alone: int = 0


async def anonymity(store: PersonalStore, fields: Sequence[str] | None = None) -> Anonymity:
    """Measure it: reads every row of the dataset, in memory that grows with the number of groups.

    Args:
        store: the dataset.
        fields: which are compared, columns that the data map does not name among them; None: those that are
            generalised or noisy.

    Raises:
        ConfigurationError: the dataset's rows are not anonymised, nothing in them is compared, or there are more than
            a million groups: nearly every row then stands alone.
    """
    dataset = store.dataset
    if dataset.erasure != "anonymize":
        raise ConfigurationError(f"{dataset.label}: its rows are not anonymised: erasure is {dataset.erasure}")
    telling = [name for name, strategy in dataset.strategies.items() if strategy.name in _TELLING]
    names = tuple(telling if fields is None else fields)
    rows = await store.rows(fresh=True)
    missing = [name for name in names if name not in rows.columns]
    if missing or not names:
        what = f"{missing[0]} is no field of it" if missing else "no field of it is generalised"
        raise ConfigurationError(f"{dataset.label}: {what}, so there is nothing to compare")
    if ERASED_AT not in rows.columns:
        raise ConfigurationError(f'{dataset.label}: await db.prepare("{dataset.name}") makes the column {ERASED_AT}')
    counted: Counter[tuple[Any, ...]] = Counter()
    batch: list[Mapping[str, Any]] = []

    async def count() -> None:
        for row in await store.opened(batch):
            counted[tuple(_plain(row.get(name)) for name in names)] += 1
        batch.clear()
        if len(counted) > _MOST_GROUPS:
            raise ConfigurationError(f"{dataset.label}: more than {_MOST_GROUPS:,} groups: nearly every row is alone")

    async with store.subjects.stream(dataset.table, {}, batch_size=_OPENED_AT_ONCE) as found:
        async for row in found:
            if row.get(ERASED_AT) is not None:
                batch.append(row)
            if len(batch) >= _OPENED_AT_ONCE:
                await count()
    await count()
    sizes = counted.values()
    return Anonymity(
        dataset.label, names, sum(sizes), len(counted), min(sizes, default=None), sum(size == 1 for size in sizes)
    )


def _plain(value: Any) -> Any:
    return value if value.__hash__ is not None else repr(value)
