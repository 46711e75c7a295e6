"""How the records of one dataset stand in their store: `Rows`, without a schema and with paths for names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.stores import Column, Store
from datavern.contracts.subjects import canonical_subject
from datavern.privacy.datamap.dataset import ERASED_AT, RETAINED_UNTIL, ROW_TAG, Dataset
from datavern.privacy.personal.paths import value_at
from datavern.privacy.personal.rows import Rows

if TYPE_CHECKING:
    from datavern.crypto.keystore import KeyStore
    from datavern.crypto.lookup_keys import LookupKey

__all__ = ["RecordRows", "as_stored"]

_DEFAULT_KEY = ("id",)


def as_stored(dataset: Dataset, own_key: str) -> Dataset:
    """A dataset, with the names by which the engine's own records answer."""
    if dataset.key is not None:
        return replace(dataset, key=None, store=dataset.key, subject="subject", primary_key=own_key)
    if dataset.keys == _DEFAULT_KEY and "id" not in dataset.fields:
        return replace(dataset, primary_key=own_key)
    return dataset


class RecordRows(Rows):
    """`Rows` of a store without a schema: what no record has yet may still be written, and names are paths."""

    __slots__ = ()

    def __init__(
        self, dataset: Dataset, store: Store, keys: KeyStore, lookup_keys: Mapping[str, LookupKey], *, seen: int
    ) -> None:
        needed = [*dataset.keys, *dataset.fields, *dataset.indexes]
        needed += [name for name in (dataset.subject, dataset.retention_from) if name]
        needed += [ERASED_AT] if dataset.marks_erased else [RETAINED_UNTIL] if dataset.erasure == "retain" else []
        needed += [ROW_TAG] if dataset.needs_keys else []
        known = {column.name: column for column in store.columns}
        for name in needed:
            known.setdefault(name, Column(name, ""))
        for name in (*dataset.keys, *((dataset.subject,) if dataset.subject else ())):
            known[name] = replace(known[name], type="text")  # the engine finds an id in whatever type it stands
        super().__init__(dataset, replace(store, columns=tuple(known.values())), keys, lookup_keys, seen=seen)

    def lacks(self, row: Mapping[str, Any]) -> bool:  # noqa: ARG002  (a record has what it is given)
        """It does not."""
        return False

    def fitted(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A record, copied: ids stay in the types that they came in, and are found in any."""
        return dict(row)

    def subject_of(self, row: Mapping[str, Any]) -> str | None:
        """Whose the record is; None where it names nobody, or several."""
        value = None if self.subject is None else value_at(row, self.subject)
        return None if value is None or isinstance(value, list | Mapping | bytes) else canonical_subject(value)

    def subject_named(self, row: Mapping[str, Any]) -> str:
        """Whose a record is that is to be written."""
        subject = self.subject_of(row)
        if subject is None:
            raise ConfigurationError(f"{self.dataset.name}.{self.subject}: missing; it says whose record it is")
        return subject

    def open_warm(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """The fast path is for records in which the subject stands at the top."""
        return None if self.subject is not None and self.subject not in row else super().open_warm(row)
