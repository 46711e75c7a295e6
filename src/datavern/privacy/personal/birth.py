"""When a person was born, where the data itself tells it: for whoever must be of an age to consent."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from datavern.contracts.errors import ConfigurationError, ProviderError
from datavern.contracts.identity import fodselsnummer
from datavern.contracts.values import now
from datavern.privacy.personal.records import RecordStore

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.privacy.personal.store import PersonalStore

__all__ = ["birth_date"]

_TELLS_NOTHING: Final = 2032
"""From this year on."""
_BORN: Final = ("fodselsnummer", "d-number", "tenor")
"""The numbers that tell a birth date: not those whose offset of 40 on the month may mean two things."""


async def birth_date(stores: Iterable[PersonalStore], subject: str, transaction: Transaction | None) -> dt.date | None:
    """A person's birth date, where a fødselsnummer that the data map names tells it.

    A number that fits the rule in force was assigned before 2032 only as long as it is not 2032: from then on one may
    be new, and tells no century.

    Args:
        stores: the datasets to look in.
        subject: the person's canonical id.
        transaction: the caller's: rows of its own database are read in it.
    """
    if now().year >= _TELLS_NOTHING:
        return None
    for store in stores:
        dataset = store.dataset
        fields = [name for name, field in dataset.fields.items() if field.kind == "fodselsnummer"]
        if not fields or dataset.subject is None or isinstance(store, RecordStore):
            continue
        own = transaction if transaction is not None and transaction.provider is store.provider else None
        try:
            async for row in store.all_of(subject, transaction=own):
                for value in (row[name] for name in fields):
                    number = fodselsnummer(str(value)) if value is not None else None
                    if number is not None and number.kind in _BORN and number.birth_date is not None:
                        return number.birth_date
        except (ProviderError, ConfigurationError):
            continue  # it cannot be asked now, or has no table yet: what is not known is not guessed
    return None
