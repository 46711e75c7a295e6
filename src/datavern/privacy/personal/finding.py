"""How a dataset's table stands, and which of its rows are meant: by key, by person, by the values of their fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError, DecryptionFailed
from datavern.contracts.stores import Words
from datavern.contracts.subjects import canonical_subject
from datavern.crypto.lookup import grams, indexer, normalise, normalised_part, prefix_indexer
from datavern.crypto.lookup_keys import life_ids
from datavern.crypto.sealed import RowSealer
from datavern.privacy.datamap.dataset import ASIDE, ERASED_AT, LOOKUP, NGRAMS, PREFIX, RETAINED_UNTIL, ROW_TAG, Dataset
from datavern.privacy.personal.ids import fit, is_id
from datavern.privacy.personal.numbers import check_numbers, numbers_of

if TYPE_CHECKING:
    from datavern.contracts.stores import Column, Store
    from datavern.crypto.keystore import KeyStore
    from datavern.crypto.lookup_keys import LookupKey

__all__ = ["ANONYMOUS", "RETENTION", "FoundRows"]

RETENTION = "#retention"
"""What follows a dataset's name in the name of the keys that its retained rows are sealed under."""
ANONYMOUS = "#anonymous"
"""What follows a dataset's name in the name of the key that what is left of anonymised rows is sealed under."""
_MOST_WORDS = 16  # of a condition; the row is looked at again once it is open


class FoundRows:
    """The table of a dataset: its columns, and which of its rows are meant. See `Rows`, which is made of this.

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
        "_numbers",
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
        self._numbers = numbers_of(dataset)
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

    def lacks(self, row: Mapping[str, Any]) -> bool:
        """Whether the row names a column that the table did not have when it was read: it may have it by now."""
        return not self._named.issuperset(row)

    def check_names(self, row: Mapping[str, Any]) -> None:
        """Refuse columns that are Datavern's own, or that the table has not, and numbers that cannot be, before all.

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
        if self._numbers:
            check_numbers(self.dataset, self._numbers, row)

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
            if name == self.subject or is_id(value):
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


def _key(column: Column, value: Any) -> Any:
    return fit(column, value) if is_id(value) else value
