"""What stands in a row when its person is gone from it: emptied fields, and what an anonymised one still says."""

from __future__ import annotations

import datetime as dt
import secrets
import uuid
from collections import Counter
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError, DecryptionFailed, KeyErased
from datavern.contracts.subjects import canonical_subject
from datavern.privacy.datamap.dataset import ERASED_AT, RETAINED_UNTIL, ROW_TAG
from datavern.privacy.personal.finding import ANONYMOUS
from datavern.privacy.personal.ids import is_whole

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Session
    from datavern.contracts.stores import Column
    from datavern.crypto.keystore import KeyStore
    from datavern.crypto.sealed import DataKey
    from datavern.privacy.datamap.anonymize import Anonymizer, Strategy
    from datavern.privacy.datamap.dataset import Dataset
    from datavern.privacy.personal.rows import Rows

__all__ = ["Remains", "emptied", "is_unique", "key_of_nobody", "left", "of_others", "plain", "pseudonym"]


async def key_of_nobody(keys: KeyStore, dataset: Dataset) -> DataKey | None:
    """The key for what is left of the sealed fields of anonymised rows, where the data map lets anything be left.

    To be fetched before a transaction begins: making it is no part of one.
    """
    sealed = any(f.sealed and f.anonymize is not None for f in dataset.fields.values())
    return await keys.dataset_key(dataset.name + ANONYMOUS) if sealed else None


class Remains:
    """What stands in the fields of anonymised rows, where the data map says more than that they are emptied.

    Args:
        rows: how they stand in their table.
        keys: the key store.
        nobody: what `key_of_nobody` gave.
        today: the day of the erasure.
    """

    def __init__(self, rows: Rows, keys: KeyStore, nobody: DataKey | None, today: dt.date) -> None:
        self._rows = rows
        self._keys = keys
        self._nobody = nobody
        self._today = today
        self._unfit: Counter[str] = Counter()
        self._notes: list[str] = []
        self._strategies: dict[str, Strategy] = {}
        for name, strategy in rows.dataset.strategies.items():
            if strategy.name == "null":
                continue
            if not strategy.distinct and is_unique(rows, rows.columns[name]):
                self._notes.append(f"{name} was emptied: its column is unique, and {strategy} would tell rows apart")
                continue
            self._strategies[name] = strategy
            self._notes.append(f"what is left in {name}: {strategy}")
        self._opens = any(rows.dataset.fields[name].sealed for name in self._strategies)
        self._anonymizer: Anonymizer | None = None
        self.another()

    def another(self) -> None:
        """From here on it is about somebody else: nothing is to be equal that is not equal for everybody."""
        if self._strategies:
            from datavern.privacy.datamap.anonymize import Anonymizer  # noqa: PLC0415  (few data maps say more than: emptied)

            self._anonymizer = Anonymizer(self._today)

    async def of(self, row: Mapping[str, Any], tag: bytes | None, session: Session | None) -> dict[str, Any]:
        """Column → what stands there, of the fields that are not simply emptied.

        Args:
            row: as it is stored.
            tag: the row's new tag.
            session: the open transaction.
        """
        anonymizer = self._anonymizer
        if anonymizer is None:
            return {}
        from datavern.privacy.datamap.anonymize import Unfit  # noqa: PLC0415  (as above)

        fields = self._rows.dataset.fields
        opened = await self._opened(row, session) if self._opens else {}
        clear: dict[str, Any] = {}
        sealed: dict[str, Any] = {}
        for name, strategy in self._strategies.items():
            one = fields[name]
            try:
                if one.sealed:
                    sealed[name] = anonymizer(strategy, name, opened.get(name))
                else:
                    clear[name] = anonymizer(strategy, name, row.get(name), kind=one.type)
            except Unfit:
                self._unfit[name] += 1
        made = {name: value for name, value in clear.items() if value is not None}
        sealed = {name: value for name, value in sealed.items() if value is not None}
        if sealed and self._nobody is not None and tag is not None:
            made |= self._rows.sealed_anew(self._nobody, tag, sealed)
        return made

    def notes(self) -> list[str]:
        """What is to be said of it: strategies and counts, never a value."""
        unfit = sorted(self._unfit.items())
        return self._notes + [f"{name}: {n} values were none that it could be done to: emptied" for name, n in unfit]

    async def _opened(self, row: Mapping[str, Any], session: Session | None) -> dict[str, Any]:
        rows = self._rows
        try:
            opened = rows.opened(row, await self._keys.keys(rows.key_ids(row), session=session))
        except (DecryptionFailed, KeyErased):  # nobody can open it: nothing is left of it
            return {}
        return rows.with_aside(row, opened)


def of_others(rows: Rows, row: Mapping[str, Any], subject: str) -> frozenset[str]:
    """The fields of a row that are about somebody else than its subject: they stay (see `Field.of`).

    None where there is no subject: the time of the whole row is up.
    """
    theirs = {name: f.of for name, f in rows.dataset.fields.items() if f.of not in (None, rows.dataset.subject)}
    return frozenset(name for name, of in theirs.items() if subject and not _names(row.get(of or ""), subject))


def _names(owner: Any, subject: str) -> bool:
    try:
        return owner is not None and canonical_subject(owner) == subject
    except ConfigurationError:
        return False  # several people, in a list


def emptied(rows: Rows, others: Collection[str] = ()) -> dict[str, Any]:
    """Every mapped field of a row, empty, and no index to it left; without those that are others'."""
    dataset = rows.dataset
    empty: dict[str, Any] = {}
    for name, field in dataset.fields.items():
        if name in dataset.keys or name in others or (name == dataset.subject and not field.sealed):
            continue
        column = rows.columns[name]
        unique = is_unique(rows, column)
        if column.nullable:
            empty[name] = None
        elif field.sealed:
            empty[name] = b"\x00" + secrets.token_bytes(16) if unique else b""
        else:
            empty[name] = _blank(field.type, unique=unique)
    number = rows.pseudonymous if rows.number else None
    if number is not None and number.name not in dataset.keys:  # it names the person as well as any field does
        empty[number.name] = None if number.nullable else pseudonym(number)
    empty |= dict.fromkeys(rows.aside.values())
    for column_name in dataset.indexes:
        empty[column_name] = rows.no_index(column_name)
    return empty


def _blank(kind: str, *, unique: bool) -> Any:
    """What stands in a column that takes no NULL when its value is gone."""
    if unique and kind in ("text", "bytes", "integer"):
        random = {"text": _text(), "bytes": secrets.token_bytes(16), "integer": -1 - secrets.randbelow(2**31 - 1)}
        return random[kind]
    blank: dict[str, Any] = {
        "text": "",
        "integer": 0,
        "real": 0.0,
        "boolean": False,
        "bytes": b"",
        "date": dt.date(1970, 1, 1),
        "timestamp": dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
        "json": {},
    }
    return blank[kind]


def _text() -> str:
    return f"erased-{secrets.token_hex(8)}"


def pseudonym(column: Column | None) -> Any:
    """A random value for a subject column, from which nothing leads back; None where its type takes none."""
    kind = "" if column is None else column.type
    if kind == "uuid":
        return str(uuid.uuid4())
    if column is not None and is_whole(kind):
        return -1 - secrets.randbelow((1 << (column.bits or 64) - 1) - 1)
    return _text() if kind == "text" or "char" in kind else None


def is_unique(rows: Rows, column: Column | None) -> bool:
    """Whether a unique constraint or index covers a column, alone or with others."""
    return column is not None and any(column.name in names for names in rows.store.unique)


def left(rows: Rows, *, subject: bool) -> list[str]:
    """The columns that stay as they are: those not mapped, the primary key, and the subject if it does."""
    dataset = rows.dataset
    own = [name for name, field in dataset.fields.items() if field.of is None or field.of == dataset.subject]
    gone = {ROW_TAG, ERASED_AT, RETAINED_UNTIL, *dataset.indexes, *own, *rows.aside.values()} - set(dataset.keys)
    if dataset.subject is not None and dataset.subject not in dataset.sealed:
        gone = gone - {dataset.subject} if subject else gone | {dataset.subject}
    return [name for name in rows.columns if name not in gone]


def plain(rows: Rows) -> list[str]:
    """The mapped fields that are not sealed: where rows stay as they are, these can be read."""
    dataset = rows.dataset
    return [name for name, field in dataset.fields.items() if not field.sealed and name != dataset.subject]
