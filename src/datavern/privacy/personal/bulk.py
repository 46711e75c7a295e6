"""Many rows at once: sealed together, so that keys, consents and audit entries take a few statements in all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.subjects import canonical_subject
from datavern.crypto.sealed import new_row_tags
from datavern.privacy.datamap.dataset import ROW_TAG

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.crypto.keystore import KeyStore
    from datavern.crypto.sealed import DataKey
    from datavern.privacy.personal.rows import Rows

__all__ = ["Batch"]

_AT_ONCE = 200  # rows that are sealed before others have their turn: a few milliseconds


class Batch:
    """Rows of one dataset on their way in.

    Args:
        rows: how the dataset's rows stand in its table.
        given: the rows, as the application gave them.
        consent: as `PersonalStore.insert_many` takes it.
        people: whose they are, where they do not say it themselves.

    Attributes:
        subjects: whose each row is; empty strings where the dataset is about nobody.
        consents: the consent given for each row, or None.
        fitted: the rows with their ids as the table wants them, not sealed.
        keys: what the rows are sealed under; set by `seal`.
        of_subject: subject → key; set by `seal`.

    Raises:
        ConfigurationError: as `PersonalStore.insert`.
    """

    __slots__ = ("_given", "_handles", "_rows", "_stored", "consents", "fitted", "keys", "of_subject", "subjects")

    def __init__(
        self, rows: Rows, given: Sequence[Mapping[str, Any]], consent: Any, people: Sequence[str] | None = None
    ) -> None:
        _check(rows, given)
        self._rows = rows
        self._given = given
        self.fitted: list[dict[str, Any]] = [rows.fitted(row) for row in given]
        self._stored = list(self.fitted)
        self._handles: dict[str, str | None] = {"": None}
        self.subjects = people or [rows.subject_named(row) if rows.subject else "" for row in self._stored]
        self.consents = _consents_for(consent, self.subjects)
        self.keys: list[DataKey] = []
        self.of_subject: Mapping[str, DataKey] = {}

    async def seal(
        self, keys: KeyStore, of_nobody: DataKey | None, transaction: Transaction | None, *, tagged: bool = False
    ) -> None:
        """Get every subject's key and handle, and seal the rows.

        Args:
            keys: the key store.
            of_nobody: the dataset's own key, where it has no subjects.
            transaction: the caller's, or None.
            tagged: every row gets a tag, with sealed fields or without.

        Raises:
            KeyErased: an erasure of one of the subjects runs.
        """
        dataset = self._rows.dataset
        of_subject: Mapping[str, DataKey]
        if of_nobody is not None:
            of_subject = {"": of_nobody}
        else:
            of_subject = await keys.subject_keys(dataset.name, self.subjects, session=transaction)
            self.of_subject = of_subject
            self._handles = {subject: await keys.handle(subject, session=transaction) for subject in of_subject}
        self.keys = list(of_subject.values())
        for first in range(0, len(self.fitted), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            tags = new_row_tags(len(self.fitted[part]))
            rows = zip(self.subjects[part], tags, self.fitted[part], strict=True)
            sealed = self._rows.sealed_many([(of_subject[subject], tag, row) for subject, tag, row in rows])
            if tagged or dataset.needs_keys:
                for row, tag in zip(sealed, tags, strict=True):
                    row[ROW_TAG] = tag
            self._stored[part] = sealed
            await asyncio.sleep(0)

    def index(self, rows: Rows) -> None:
        """Make the lookup indexes again, with the keys that a rotation has renewed meanwhile."""
        for stored, fitted in zip(self._stored, self.fitted, strict=True):
            stored.update(rows.indexes(fitted))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows as the table takes them, in their order."""
        return self._stored

    def stored(self) -> list[list[dict[str, Any]]]:
        """The rows as the table takes them, those with the same columns together: the others keep their defaults."""
        batches: dict[frozenset[str], list[dict[str, Any]]] = {}
        for row in self._stored:
            batches.setdefault(frozenset(row), []).append(row)
        return list(batches.values())

    def entries(self, checked: Mapping[int, tuple[str, ...]]) -> Iterator[tuple[str | None, dict[str, Any]]]:
        """Handle and details of an audit entry for each subject.

        Args:
            checked: row number → the ids of the consents that it was written under.
        """
        rows_of: dict[str, list[int]] = {}
        for i, subject in enumerate(self.subjects):
            rows_of.setdefault(subject, []).append(i)
        for subject, numbers in rows_of.items():
            details: dict[str, Any] = {"fields": _fields(self._given[i] for i in numbers), "rows": len(numbers)}
            consents = sorted({id_ for i in numbers for id_ in checked.get(i, ())})
            if consents:
                details["consents"] = consents
            yield self._handles[subject], details


def _check(rows: Rows, given: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what may not be written; of several rows it is told which, from 1."""
    problem, number = "", 0
    try:
        for number, row in enumerate(given, 1):  # noqa: B007  (told where one is refused)
            rows.check_names(row)
    except ConfigurationError as error:
        problem = str(error)
    if problem:
        raise ConfigurationError(problem if len(given) == 1 else f"row {number} of {len(given)}: {problem}")


def _consents_for(consent: Any, subjects: Sequence[str]) -> list[Any]:
    """A consent for each row, whichever way they were given."""
    if consent is None or isinstance(consent, str) or hasattr(consent, "purpose"):
        return [consent] * len(subjects)
    if isinstance(consent, Mapping):
        of_subject = {canonical_subject(subject): one for subject, one in consent.items()}
        return [of_subject.get(subject) for subject in subjects]
    each = list(consent)
    if len(each) != len(subjects):
        raise ConfigurationError(f"consent: {len(each)} were given for {len(subjects)} rows; expected one for each")
    return each


def _fields(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
