"""How the rows of one dataset stand in its table: sealed fields, lookup columns, the row's tag; and back again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from datavern.contracts.errors import ConfigurationError, DecryptionFailed
from datavern.contracts.stores import Words
from datavern.contracts.subjects import canonical_subject
from datavern.crypto.lookup import grams, indexer, normalise, normalised_part, prefix_indexer
from datavern.crypto.lookup_keys import life_ids
from datavern.crypto.sealed import RowSealer, retained_tag
from datavern.privacy.datamap.dataset import ASIDE, ERASED_AT, LOOKUP, NGRAMS, PREFIX, RETAINED_UNTIL, ROW_TAG, Dataset

if TYPE_CHECKING:
    from datavern.contracts.stores import Column, Store
    from datavern.crypto.keystore import KeyStore
    from datavern.crypto.lookup_keys import LookupKey
    from datavern.crypto.sealed import DataKey

__all__ = ["ANONYMOUS", "RETENTION", "SHARED", "WHOSE", "Rows", "fit"]

T = TypeVar("T")
RETENTION = "#retention"
"""What follows a dataset's name in the name of the keys that its retained rows are sealed under."""
ANONYMOUS = "#anonymous"
"""What follows a dataset's name in the name of the key that what is left of anonymised rows is sealed under."""
WHOSE = "\N{RIGHTWARDS ARROW}whose"
"""Where a row that names no person itself is marked with whose it is; None where that is nobody, or several people."""
SHARED = "\N{RIGHTWARDS ARROW}shared"
"""Where a record that is about several people is marked with those of them who are known."""
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_NO_NUMBER = 1 << 63  # past what any column holds
_MOST_WORDS = 16  # of a condition; the row is looked at again once it is open
_ID_TYPES = frozenset({int, str})
_OTHER_ID_TYPES = frozenset({"UUID", "ObjectId"})


def is_whole(kind: str) -> bool:
    """Whether a column of that type holds whole numbers."""
    return "int" in kind and "point" not in kind and "interval" not in kind


def fit(column: Column | None, value: Any) -> Any:
    """An id as the column's type wants it: an id may be given as text where the column holds numbers, and so on.

    Args:
        column: as the live schema has it.
        value: an int, a UUID, an ObjectId or text.

    Raises:
        ValueError: no value of that type is this id, so that no row can have it. The id is not in the message.
    """
    kind = "" if column is None else column.type
    if is_whole(kind):
        if type(value) is not int:
            text = canonical_subject(value)
            value = int(text) if _WHOLE.fullmatch(text) and str(int(text)) == text else _NO_NUMBER
        bits = 64 if column is None or column.bits is None else column.bits
        if not -(1 << bits - 1) <= value < 1 << bits - 1:
            raise ValueError(f"not a whole number of {bits} bits")
        return value
    if kind == "uuid":
        import uuid  # noqa: PLC0415  (few tables have such a column)

        try:
            return str(uuid.UUID(str(value)))
        except ValueError:
            pass
        raise ValueError("not a UUID")
    return value if type(value) is str else canonical_subject(value)


class Rows:
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

    __slots__ = (
        "_anonymous",
        "_ids",
        "_indexes",
        "_keys",
        "_lookup_lives",
        "_lookups",
        "_named",
        "_own",
        "_present",
        "_retained",
        "_subject_tag",
        "_text_key",
        "_warm_key",
        "_warm_keys",
        "aside",
        "columns",
        "dataset",
        "key_columns",
        "led",
        "renewing",
        "sealer",
        "seen",
        "store",
        "subject",
        "subject_column",
        "whose",
    )

    def __init__(
        self, dataset: Dataset, store: Store, keys: KeyStore, lookup_keys: Mapping[str, LookupKey], *, seen: int
    ) -> None:
        self.dataset = dataset
        self.store = store
        self.subject = dataset.subject
        self.whose = dataset.subject or ""
        self.led: tuple[str, ...] = ()  # the columns by which rows of other datasets are found
        self.columns = {column.name: column for column in store.columns}
        self._named = frozenset(self.columns)
        needed = [*dataset.keys, *dataset.fields, *dataset.indexes]
        needed += [name for name in (dataset.subject, dataset.retention_from) if name is not None]
        needed += [ROW_TAG] if dataset.needs_keys else []
        needed += [ERASED_AT] if dataset.erasure == "soft" or any(f.anonymize for f in dataset.fields.values()) else []
        needed += [RETAINED_UNTIL] if dataset.erasure == "retain" else []
        missing = [name for name in needed if name not in self.columns]
        if missing:
            raise ConfigurationError(
                f"datasets.{dataset.name}: the table {store.name} lacks {', '.join(missing)}: "
                f'await db.prepare("{dataset.name}") makes it'
            )
        self.subject_column = None if dataset.subject is None else self.columns[dataset.subject]
        if self.subject_column is not None and not self.subject_column.exact:
            raise ConfigurationError(
                f"datasets.{dataset.name}.subject: {store.name}.{dataset.subject} is {self.subject_column.type}, which "
                "changes an id that it is given, and what is sealed under the id would not open again: use text, a "
                "whole number or uuid"
            )
        self.key_columns = tuple(self.columns[name] for name in dataset.keys)
        ids = self.key_columns if self.subject_column is None else (*self.key_columns, self.subject_column)
        self._ids = tuple({c.name: (c.name, c, c.type == "text" or "char" in c.type) for c in ids}.values())
        self.sealer = RowSealer(dataset.name, dataset.sealed)
        self._retained = RowSealer(dataset.name + RETENTION, dataset.sealed)
        self._anonymous = RowSealer(dataset.name + ANONYMOUS, dataset.sealed)
        self._keys = keys
        self._warm_key = keys.warm_key
        self._warm_keys = keys.warm_keys
        self._subject_tag = keys.subject_tag
        # While a column is sealed in place: field → where the values stand that are not sealed yet.
        self.aside = {name: name + ASIDE for name in dataset.sealed if name + ASIDE in self.columns}
        self._own = frozenset({ROW_TAG, ERASED_AT, RETAINED_UNTIL, *dataset.indexes, *self.aside.values()})
        self._present = tuple(name for name in self._own if name in self.columns)
        only = self.key_columns[0] if len(self.key_columns) == 1 else None
        self._text_key = only.name if only is not None and (only.type == "text" or "char" in only.type) else None
        kinds = {name: field.kind for name, field in dataset.fields.items()}
        self._lookups = tuple(
            (n, c, kinds[n], indexer(lookup_keys[n].key, n, kinds[n])) for n, c in dataset.lookups.items()
        )
        self._indexes = tuple((n, c, _maker(dataset, n, c, lookup_keys[n].key)) for c, n in dataset.indexes.items())
        self.seen = seen
        self._lookup_lives = tuple(zip(*(life_ids(key.id) for key in lookup_keys.values()), strict=True))
        # While a rotation makes the indexes anew, some are still under another key: column → what makes those.
        self.renewing = {
            c: tuple(_maker(dataset, n, c, other) for other in lookup_keys[n].others)
            for c, n in dataset.indexes.items()
            if lookup_keys[n].others
        }

    # ---- on the way in ----------------------------------------------------------------------------------------------

    def lacks(self, row: Mapping[str, Any]) -> bool:
        """Whether the row names a column that the table did not have when it was read: it may have it by now."""
        return not self._named.issuperset(row)

    def check_names(self, row: Mapping[str, Any]) -> None:
        """Refuse columns that are Datavern's own to write, and those that the table has not, before anything is sent.

        A database that takes ``Name`` for ``name`` would be given in the clear what belongs into a sealed field.

        Raises:
            ConfigurationError: naming the first.
        """
        if self.lacks(row):
            name = min(set(row) - self._named, key=str)
            raise ConfigurationError(
                f"{self.dataset.name} has no field {name}: the table {self.store.name} has no such column"
            )
        if not self._own.isdisjoint(row):
            name = min(self._own.intersection(row))
            raise ConfigurationError(f"{self.dataset.name}: {name} is Datavern's own column: leave it out")

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

    def fitted(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row, copied, with its ids as the table's types want them.

        Raises:
            ConfigurationError: an id that its column cannot hold, or that cannot name a person; it is not told.
        """
        fitted = dict(row)
        for name, column, text in self._ids:
            value = fitted.get(name)
            if value is None or (text and type(value) is str and name != self.subject):
                continue
            if name == self.subject or type(value) in _ID_TYPES or type(value).__name__ in _OTHER_ID_TYPES:
                fitted[name] = self._fit(column, value)
        return fitted

    def _fit(self, column: Column, value: Any) -> Any:
        try:
            return fit(column, value)
        except ValueError as error:
            problem = str(error)
        raise ConfigurationError(
            f"{self.dataset.name}.{column.name}: {problem}, and the column's type is {column.type}"
        )

    def where_key(self, key: Any) -> dict[str, Any] | None:
        """Which row has that primary key; None where no row can.

        Args:
            key: the value; for several columns a sequence in their order, or a mapping.

        Raises:
            ConfigurationError: as many values as there are columns were not given.
        """
        if type(key) is str and self._text_key is not None:
            return {self._text_key: key}
        columns = self.key_columns
        values: Sequence[Any]
        if isinstance(key, Mapping):
            values = [key.get(column.name) for column in columns] if len(key) == len(columns) else []
        elif len(columns) == 1:
            values = (key,)
        else:
            values = key if isinstance(key, tuple | list) else ()
        if len(values) != len(columns) or any(value is None for value in values):
            names = ", ".join(column.name for column in columns)
            raise ConfigurationError(f"{self.dataset.name}: expected the primary key: {names}")
        try:
            return {column.name: _key(column, value) for column, value in zip(columns, values, strict=True)}
        except ValueError:
            return None

    def where_subject(self, subject: str) -> dict[str, Any] | None:
        """Which rows are a person's; None where no row can be.

        The column may compare ids that differ as equal (letter case, by its collation): `is_of` tells.
        """
        column = self.subject_column
        if column is None:
            return None
        try:
            value = fit(column, subject)
        except ValueError:
            return None
        # A UUID in another spelling is another text: the keys and consents are those of the canonical one.
        return {column.name: value} if canonical_subject(value) == subject else None

    def is_of(self, row: Mapping[str, Any], subject: str) -> bool:
        """Whether a row that `where_subject` led to is that very person's."""
        value = row[self.whose]
        return value == subject or (value is not None and canonical_subject(value) == subject)

    def where_fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Which rows hold these values: through the lookup column of a sealed field, as it is for any other column.

        Raises:
            ConfigurationError: a sealed field without lookup, a column that is not there, or no field at all.
        """
        if not fields:
            raise ConfigurationError(f"{self.dataset.name}: find needs a field: nobody means every row")
        where: dict[str, Any] = {}
        lookups = {name: (column, of) for name, column, _, of in self._lookups}
        for name, value in fields.items():
            if name in lookups:
                column, of = lookups[name]
                makers = (of, *self.renewing.get(column, ()))
                if value is None:
                    where[name] = None
                elif isinstance(value, tuple):
                    where[column] = tuple(make(one) for one in value for make in makers)
                elif len(makers) > 1:
                    where[column] = tuple(make(value) for make in makers)
                else:
                    where[column] = of(value)
            elif name in self.sealer.fields:
                raise ConfigurationError(
                    f"{self.dataset.name}.{name} is sealed without lookup, so it cannot be searched: "
                    "set lookup=True in the data map, and prepare again"
                )
            elif name not in self.columns or name in self._own:
                raise ConfigurationError(f"{self.dataset.name} has no field {name}")
            elif name == self.subject and value is not None:
                given = value if isinstance(value, tuple) else (value,)
                found = [self.where_subject(canonical_subject(one)) for one in given]
                where[name] = tuple(one[name] for one in found if one is not None)
            else:
                where[name] = value
        return where

    def where_starts(self, name: str, text: Any) -> list[dict[str, Any]]:
        """Which rows may hold a value that begins so: those of the longest beginning that there is an index of.

        One condition, and while a rotation makes the indexes anew one for each key.

        Raises:
            ConfigurationError: no index of beginnings, or a text that is shorter than the shortest of them.
        """
        field = self.dataset.fields.get(name)
        if field is None or not field.prefixes:
            raise ConfigurationError(
                f"{self.dataset.name}.{name} has no index of beginnings: set prefixes=[…] in the data map, and prepare"
            )
        length = max((n for n in field.prefixes if n <= len(self._part(name, text))), default=None)
        if length is None:
            least = field.prefixes[0]
            raise ConfigurationError(f"{self.dataset.name}.{name}: starts_with needs {least} characters or more")
        column = f"{name}{PREFIX}{length}"
        return [{column: of(text)} for of in self._makers(column)]

    def where_contains(self, name: str, text: Any) -> list[dict[str, Any]]:
        """Which rows may hold a value that this is a part of: conditions as of `where_starts`.

        Raises:
            ConfigurationError: no index of parts, or a text that is shorter than they are.
        """
        field = self.dataset.fields.get(name)
        if field is None or not field.ngrams:
            raise ConfigurationError(
                f"{self.dataset.name}.{name} has no index of parts: set ngrams=3 in the data map, and prepare"
            )
        if len(self._part(name, text)) < field.ngrams:
            raise ConfigurationError(f"{self.dataset.name}.{name}: contains needs {field.ngrams} characters or more")
        column = name + NGRAMS
        return [{column: Words(str(of(text)).split()[:_MOST_WORDS])} for of in self._makers(column)]

    def _makers(self, column: str) -> list[Callable[[Any], bytes | str | None]]:
        return [*(of for _, c, of in self._indexes if c == column), *self.renewing.get(column, ())]

    def has_part(self, opened: Mapping[str, Any], name: str, text: Any, *, start: bool) -> bool:
        """Whether an opened row's field begins so, or contains it; what an index leads to may only look like it."""
        value = opened.get(name)
        if value is None:
            return False
        try:
            whole = self._part(name, value)
        except ConfigurationError:
            return False
        part = self._part(name, text)
        return whole.startswith(part) if start else part in whole

    def _part(self, name: str, text: Any) -> str:
        problem = ""
        try:
            return normalised_part(self.dataset.fields[name].kind, text)
        except ConfigurationError as error:
            problem = str(error)
        raise ConfigurationError(f"{self.dataset.name}.{name}: {problem}")

    def answers(self, opened: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
        """Whether a row that `where_fields` led to holds what was asked for, now that it is open.

        False where a value is gone with its key: an old copy of the row was brought back after the erasure.

        Raises:
            DecryptionFailed: it holds something else: its lookup column was changed, or is another row's.
        """
        for name, _, kind, _ in self._lookups:
            wanted = fields.get(name)
            if wanted is None:
                continue
            value = opened.get(name)
            if value is None:
                return False
            try:
                asked = wanted if isinstance(wanted, tuple) else (wanted,)
                same = normalise(kind, value) in [normalise(kind, one) for one in asked]
            except ConfigurationError:
                same = False  # it is not even one of that kind
            if not same:
                raise DecryptionFailed
        return True

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


def _maker(dataset: Dataset, name: str, column: str, key: bytes) -> Callable[[Any], bytes | str | None]:
    """What makes an index column's value from a field's."""
    field = dataset.fields[name]
    kind = field.kind
    if column == name + LOOKUP:
        return indexer(key, name, kind)
    if column == name + NGRAMS:
        size = field.ngrams or 0
        return lambda value: " ".join(grams(key, name, size, normalised_part(kind, value)))
    return prefix_indexer(key, name, int(column.removeprefix(name + PREFIX)), kind)


def is_erased(value: bytes) -> bool:
    """Whether a stored value is what an erasure leaves in a sealed column that takes no NULL.

    It is empty; or, where the column is unique, a zero byte (no form of a sealed value begins so) and random bytes.
    """
    return not value or value[0] == 0


def _key(column: Column, value: Any) -> Any:
    fits = type(value) in _ID_TYPES or type(value).__name__ in _OTHER_ID_TYPES
    return fit(column, value) if fits else value
