"""How the rows of one dataset stand in its table: sealed fields, lookup columns, the row's tag; and back again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from datavern.contracts.errors import ConfigurationError, DecryptionFailed
from datavern.contracts.subjects import canonical_subject
from datavern.crypto.lookup import normalise
from datavern.crypto.sealed import retained_tag
from datavern.privacy.datamap.dataset import NGRAMS, ROW_TAG
from datavern.privacy.personal.finding import ANONYMOUS, RETENTION, FoundRows

if TYPE_CHECKING:
    from datavern.contracts.stores import Column
    from datavern.crypto.sealed import DataKey

__all__ = ["ANONYMOUS", "RETENTION", "SHARED", "WHOSE", "Rows"]

T = TypeVar("T")

WHOSE = "\N{RIGHTWARDS ARROW}whose"
"""Where a row that names no person itself is marked with whose it is; None where that is nobody, or several people."""
SHARED = "\N{RIGHTWARDS ARROW}shared"
"""Where a record that is about several people is marked with those of them who are known."""


class Rows(FoundRows):
    """The rows of a dataset, between what the application sees and what the table holds.

    Args:
        dataset: the data map's entry.
        store: the table as it stands.
        keys: the key store.
        lookup_keys: field → lookup keys, of every field with a lookup.
        seen: the store's `lookups_seen` when they were read: with another number they are read anew.

    Raises:
        ConfigurationError: the table lacks a column that the data map needs.
    """

    __slots__ = ()

    # ---- on the way in ----------------------------------------------------------------------------------------------

    def sealed(self, key: DataKey, tag: bytes, row: Mapping[str, Any], nonces: bytes | None = None) -> dict[str, Any]:
        """A row, or the changed part of one, as the table holds it: sealed, with its lookup columns."""
        return self._indexed(row, self.sealer.seal_row(key, tag, row, nonces))

    def sealed_many(self, rows: Sequence[tuple[DataKey, bytes, Mapping[str, Any]]]) -> list[dict[str, Any]]:
        """`sealed` for each key, tag and row."""
        sealed = self.sealer.seal_rows(rows)
        return [self._indexed(row, fields) for (_, _, row), fields in zip(rows, sealed, strict=True)]

    def _indexed(self, row: Mapping[str, Any], sealed: Mapping[str, bytes | None]) -> dict[str, Any]:
        stored = {**row, **sealed}
        for name, column, of in self._indexes:
            if name in row:
                value = row[name]
                stored[column] = None if value is None else of(value)
        return stored

    def lookup_lives(self, key: DataKey) -> tuple[bytes, ...]:
        """Under which ids the lookup keys live that a write under this data key makes its indexes with."""
        lives = self._lookup_lives
        return lives[key.id[0] % len(lives)] if lives else ()

    def indexes(self, values: Mapping[str, Any]) -> dict[str, bytes | str]:
        """Index column → what stands there for a field's value by now; without fields that are None or missing."""
        made = {column: of(values[name]) for name, column, of in self._indexes if values.get(name) is not None}
        return {column: value for column, value in made.items() if value is not None}

    def clashes(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Where a rotation is making the indexes anew: which rows would hold the same value of a unique field.

        The database keeps indexes unique, and not those of one value under two keys.
        """
        return [
            {column: tuple(of(values[name]) for of in self.renewing[column])}
            for name, column, _, _ in self._lookups
            if column in self.renewing and self.dataset.fields[name].unique and values.get(name) is not None
        ]

    def resealed(self, key: DataKey, row: Mapping[str, Any], opened: Mapping[str, Any]) -> dict[str, Any]:
        """The sealed fields of a row that the law keeps, under a retention key; no index leads to them any more."""
        changes: dict[str, Any] = dict(self._retained.seal_row(key, self._retained_tag(row), opened))
        for name, column, _ in self._indexes:
            if name in opened:
                changes[column] = self.no_index(column)
        changes |= self.sealed_by_now(row, opened)
        return changes

    def sealed_anew(self, key: DataKey, tag: bytes, values: Mapping[str, Any]) -> dict[str, bytes | None]:
        """What is left of an anonymised row's sealed fields, under a key that is nobody's; no index leads to it."""
        return self._anonymous.seal_row(key, tag, values)

    def sealed_by_now(self, row: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """The columns with a row's plain values of fields that are written sealed: they are emptied."""
        return {c: None for name, c in self.aside.items() if name in changes and row.get(c) is not None}

    def with_aside(self, row: Mapping[str, Any], opened: dict[str, Any]) -> dict[str, Any]:
        """The opened fields, with the values of those that are not sealed yet."""
        for name, column in self.aside.items():
            value = row.get(column)
            if value is not None and opened.get(name) is None:
                opened[name] = value
        return opened

    def where_aside(self, fields: Mapping[str, Any]) -> dict[str, Any] | None:
        """Which rows hold these values where they are not sealed yet, as they are written; None: there are none."""
        names = [name for name in fields if name in self.aside and fields[name] is not None]
        if not names:
            return None
        rest = {name: value for name, value in fields.items() if name not in names}
        where = self.where_fields(rest) if rest else {}
        for name in names:
            value, kind = fields[name], self.dataset.fields[name].kind
            spelled = list(value) if isinstance(value, tuple) else [value]
            if kind is not None:
                spelled += [normalise(kind, one)[1:].decode() for one in spelled]
            where[self.aside[name]] = tuple(dict.fromkeys(spelled))
        return where

    def no_index(self, column: str) -> bytes | str | None:
        """What stands in an index column of a value that is gone: nothing, or what no value's index begins with."""
        if self.columns[column].nullable:
            return None
        if column.endswith(NGRAMS):
            return ""
        import secrets  # noqa: PLC0415  (only tables of other people's making have such columns)

        return b"\x00" + secrets.token_bytes(32)

    # ---- on the way out ---------------------------------------------------------------------------------------------

    def key_ids(self, row: Mapping[str, Any]) -> set[bytes]:
        """The ids of the keys that a row's sealed fields name."""
        return self.sealer.key_ids(row)

    def subject_of(self, row: Mapping[str, Any]) -> str | None:
        """Whose the row is; None where the data map or the row names nobody."""
        value = None if self.subject is None else row[self.whose]
        return None if value is None else canonical_subject(value)

    def subject_named(self, row: Mapping[str, Any]) -> str:
        """Whose a row is that is to be written.

        Raises:
            ConfigurationError: it names nobody.
        """
        subject = self.subject_of(row) if self.subject in row else None
        if subject is None:
            raise ConfigurationError(f"{self.dataset.name}.{self.subject}: missing; it says whose row it is")
        return subject

    def open_row(self, row: Mapping[str, Any], keys: Mapping[bytes, DataKey]) -> dict[str, Any]:
        """A row as the application sees it. Fields that an erasure emptied are None.

        Raises:
            DecryptionFailed: a sealed value is not one of this row, column and person.
        """
        own = self._own
        opened = self.with_aside(row, self.opened(row, keys))
        return {name: opened.get(name, value) for name, value in row.items() if name not in own}

    def open_warm(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """The fast path of a read: `open_row` with the keys at hand, in place.

        None where that is not enough (a key that is not at hand, a row that the law keeps, a value that does not open):
        then the row is as it was, and `open_row` says what is to be said.
        """
        opened = self.warm(row)
        if opened is None:
            return None
        for name in self._present:
            row.pop(name, None)
        row.update(opened)
        return row

    def warm(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """The sealed fields of a row, opened with the keys at hand; None as `open_warm`."""
        sealer = self.sealer
        tag = row.get(ROW_TAG)
        if tag is None:
            return None
        for name in sealer.fields:
            value = row.get(name)
            if value is not None:
                break
        else:
            return None
        subject = None if self.subject is None else row[self.whose]
        opened = self._at_hand(sealer.open_row, row, tag, value, subject)
        return self.with_aside(row, opened) if self.aside and opened is not None else opened

    def opener(self, columns: Mapping[int, str]) -> Callable[[Sequence[Any]], list[Any] | None]:
        """`warm` for rows as a driver gives them: what makes of one a list, with its sealed fields opened.

        Args:
            columns: position → name, of the sealed fields that were read, of the tag, and of the subject.
        """
        at = {name: place for place, name in columns.items()}
        fields = [(place, name) for place, name in columns.items() if name in self.sealer.fields]
        places = [place for place, _ in fields]
        tag_at, subject_at = at[ROW_TAG], None if self.subject is None else at[self.whose]
        at_hand, open_ = self._at_hand, self.sealer.placed(fields)

        def opened(row: Sequence[Any]) -> list[Any] | None:
            tag = row[tag_at]
            if tag is None:
                return None
            for place in places:
                value = row[place]
                if value is not None:
                    break
            else:
                return None
            return at_hand(open_, row, tag, value, None if subject_at is None else row[subject_at])

        return opened

    def _at_hand(self, open_: Callable[..., T], row: Any, tag: bytes, value: Any, subject: Any) -> T | None:
        """Open a row with the keys at hand, for the subject that it names; None where that is not enough.

        Args:
            open_: opens it, as `RowSealer.open_row` does.
            row: the row.
            tag: its tag.
            value: the first of its sealed values: the others are mostly under the same key.
            subject: as the row names it.
        """
        keys = self._warm_keys()
        key = keys.get(value[1:17])
        if key is None or key.dataset != self.sealer.dataset:
            return None
        try:
            if type(subject) is str and subject == key.subject:
                return open_(tag, row, keys, key.subject_tag)
            opened = open_(tag, row, keys, None if subject is None else self._subject_tag(canonical_subject(subject)))
            if type(subject) is str:
                key.subject = subject
        except DecryptionFailed:
            return None
        return opened

    def opened(self, row: Mapping[str, Any], keys: Mapping[bytes, DataKey]) -> dict[str, Any]:
        """The sealed fields of a row, opened."""
        sealer = self.sealer
        if not sealer.fields:
            return {}
        tag = row.get(ROW_TAG)
        if tag is None:  # written by plain SQL, past everything
            if any(row.get(name) is not None for name in sealer.fields):
                raise DecryptionFailed
            return {name: None for name in sealer.fields if name in row}
        for key in keys.values():
            if key.dataset == self._retained.dataset:
                return self._retained.open_row(self._retained_tag(row), self._left(row), keys, key.subject_tag)
            if key.dataset == self._anonymous.dataset:
                return self._anonymous.open_row(tag, self._left(row), keys, None)
        subject = self.subject_of(row)
        subject_tag = None if subject is None else self._subject_tag(subject)
        try:
            return sealer.open_row(tag, row, keys, subject_tag)
        except DecryptionFailed:
            left = self._left(row)
        return sealer.open_row(tag, left, keys, subject_tag)

    def _retained_tag(self, row: Mapping[str, Any]) -> bytes:
        subject = self._retained_for(row)
        if subject is None:
            raise DecryptionFailed  # a row that the law keeps says whose it was
        return retained_tag(row[ROW_TAG], self._subject_tag(subject))

    def _retained_for(self, row: Mapping[str, Any]) -> str | None:
        """What a row that the law keeps is bound to: whose it is, as it says itself."""
        return self.subject_of(row)

    @property
    def number(self) -> bool:
        """Whether the subject's column holds a number of the person, that another dataset knows."""
        return False

    @property
    def pseudonymous(self) -> Column | None:
        """The column in which a pseudonym takes the person's place; None where what stands there names no person."""
        return self.subject_column

    def _left(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row without the marks of fields that an erasure emptied in columns that take no NULL."""
        return {
            name: None if isinstance(value, bytes) and is_erased(value) else value
            for name, value in row.items()
            if name in self.sealer.fields
        }

    def warm_keys(self, ids: Iterable[bytes]) -> dict[bytes, DataKey] | None:
        """The keys of those ids when every one of them is in the cache; otherwise None."""
        found = {}
        for id_ in ids:
            key = self._warm_key(id_)
            if key is None:
                return None
            found[id_] = key
        return found


def is_erased(value: bytes) -> bool:
    """Whether a stored value is what an erasure leaves in a sealed column that takes no NULL.

    It is empty; or, where the column is unique, a zero byte (no form of a sealed value begins so) and random bytes.
    """
    return not value or value[0] == 0
