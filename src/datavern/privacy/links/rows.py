"""How rows stand in their table that name no person themselves: see `datavern.privacy.links`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError
from datavern.privacy.links.links import Link
from datavern.privacy.links.values import fitting_in, text_of
from datavern.privacy.personal.paths import value_at
from datavern.privacy.personal.record_rows import RecordRows
from datavern.privacy.personal.rows import SHARED, WHOSE, Rows

if TYPE_CHECKING:
    from datavern.contracts.stores import Column, Store
    from datavern.crypto.keystore import KeyStore
    from datavern.crypto.lookup_keys import LookupKey
    from datavern.privacy.datamap.dataset import Dataset

__all__ = ["LinkedRecordRows", "LinkedRows", "linked"]


class _Linked(Rows):
    """`Rows` that name no person themselves. They are marked with whose they are before anything looks at them."""

    __slots__ = ()

    link: Link

    def __init__(
        self, dataset: Dataset, store: Store, keys: KeyStore, lookup_keys: Mapping[str, LookupKey], *, seen: int
    ) -> None:
        super().__init__(dataset, store, keys, lookup_keys, seen=seen)
        self.whose = WHOSE
        self._own |= {WHOSE, SHARED}
        self._named |= {WHOSE, SHARED}
        self._present = (*self._present, WHOSE, SHARED)
        self._ids = tuple(one for one in self._ids if one[0] != self.subject)

    def check_names(self, row: Mapping[str, Any]) -> None:
        """Refuse columns that are Datavern's own to write; the marks of a row that was read are none."""
        super().check_names({name: value for name, value in row.items() if name not in {WHOSE, SHARED}})

    def where_subject(self, subject: str) -> dict[str, Any] | None:
        """The person, for `Hands` to say how rows are reached from there."""
        return {WHOSE: subject}

    def is_of(self, row: Mapping[str, Any], subject: str) -> bool:
        """Whether the row is that very person's."""
        return bool(row[WHOSE] == subject)

    def subject_of(self, row: Mapping[str, Any]) -> str | None:
        """Whose the row is; None where nobody was found."""
        return row[WHOSE]  # type: ignore[no-any-return]  # a mark: text, or None

    def where_fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """As for any rows; the number, or the row that they belong to, is a field like others."""
        name = self.subject or ""
        if name not in fields or name in self.sealer.fields or fields[name] is None:
            return super().where_fields(fields)
        rest = {field: value for field, value in fields.items() if field != name}
        asked = fields[name] if isinstance(fields[name], tuple) else (fields[name],)
        where = super().where_fields(rest) if rest else {}
        return {**where, name: tuple(fitting_in(self.subject_column, asked))}

    def _retained_for(self, row: Mapping[str, Any]) -> str | None:
        """The number, or the row that it belongs to: it still stands there when nobody can be found by it."""
        value = value_at(row, self.subject or "")
        return None if value is None else text_of(value)

    @property
    def number(self) -> bool:
        """Whether the row holds a number of a person, and not the key of another row."""
        return self.link.number


class LinkedRows(_Linked):
    """The rows of a table."""

    __slots__ = ("link",)

    def fitted(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row, copied, with its ids as the table's types want them."""
        fitted = super().fitted(row)
        name = self.subject or ""
        value = fitted.get(name)
        if value is not None and name not in self.sealer.fields:
            fits = list(fitting_in(self.subject_column, (value,)))
            if not fits:
                raise ConfigurationError(f"{self.dataset.name}.{name}: the column's type does not hold such a value")
            fitted[name] = fits[0]
        return fitted

    @property
    def pseudonymous(self) -> Column | None:
        """A number gives way to a pseudonym; the key of another row names no person, once that one does not."""
        return self.subject_column if self.link.number and self.subject not in self.sealer.fields else None


class LinkedRecordRows(_Linked, RecordRows):
    """Documents; keys and values."""

    __slots__ = ("link",)

    def subject_of(self, row: Mapping[str, Any]) -> str | None:
        """As it is marked."""
        return _Linked.subject_of(self, row)

    def open_warm(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """The mark stands at the top, wherever the path leads."""
        return Rows.open_warm(self, row)

    @property
    def pseudonymous(self) -> Column | None:
        """As of tables."""
        return self.subject_column if self.link.number and self.subject not in self.sealer.fields else None


def linked(kind: type[Rows]) -> type[LinkedRows | LinkedRecordRows]:
    """What stands for that kind of rows where they name no person themselves."""
    return LinkedRecordRows if issubclass(kind, RecordRows) else LinkedRows
