"""What stands in a person's rows and is somebody else's: it is left out of what the person gets (GDPR Art. 15(4)).

Whose a value is, three things say: ``of`` on a field of the data map; another dataset over the same table, whose fields
belong to whom that dataset's subject names; and a document that names several people in a list, whose other elements
are theirs. A path leads through lists by itself, or by ``*``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.subjects import canonical_subject
from datavern.privacy.journal.values import Masked

if TYPE_CHECKING:
    from datavern.privacy.datamap.dataset import Dataset
    from datavern.privacy.links.links import Link

__all__ = ["Masking"]

Path = tuple[str, ...]


class Masking:
    """Masks the rows of one dataset for one person, and counts what it left out.

    Args:
        dataset: whose rows.
        others: every dataset: those over the same table say whose their fields are.
        subject: the person's canonical id.
        link: where rows know people by another number, which leads from it.
        numbers: what stands for the person there, as `Link.values` gives it.
    """

    __slots__ = ("_counts", "_dataset", "_elsewhere", "_link", "_numbers", "_of", "_subject")

    def __init__(
        self,
        dataset: Dataset,
        others: Iterable[Dataset],
        subject: str,
        *,
        link: Link | None = None,
        numbers: Collection[str] = (),
    ) -> None:
        self._dataset = dataset
        self._subject = subject
        self._link, self._numbers = link, frozenset(numbers)
        self._of: dict[str, str] = {name: f.of for name, f in dataset.fields.items() if f.of is not None}
        self._elsewhere: set[str] = set()
        for other in others:
            shared = (other.database, other.table, other.key) == (dataset.database, dataset.table, dataset.key)
            if not shared or other.name == dataset.name or other.subject is None:
                continue
            self._of |= {name: other.subject for name in other.fields if name not in dataset.fields}
            # What is sealed there is opened there, and in the answer of that dataset if it is the person's.
            self._elsewhere |= {*other.sealed, *other.indexes} - dataset.fields.keys()
        self._counts: Counter[tuple[str, str]] = Counter()

    def masked(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row in values that JSON has, without what is others': in place."""
        for name, of in self._of.items():
            field, owner = self._split(row, name), self._split(row, of)
            self._mask(row, field, owner, (name, of))
        for name in self._elsewhere:
            row.pop(name, None)
        if self._dataset.subject is not None:
            path = self._split(row, self._dataset.subject)
            if len(path) > 1 or isinstance(row.get(path[0]), list):
                self._others(row, path)
        return row

    def report(self) -> list[Masked]:
        """What was left out, and how often."""
        return [Masked(self._dataset.label, name, of, times) for (name, of), times in self._counts.items()]

    @staticmethod
    def _split(row: Mapping[str, Any], name: str) -> Path:
        return (name,) if name in row else tuple(name.split("."))

    def _theirs(self, value: Any) -> bool:
        """Whether a value names the person, alone or among others."""
        if isinstance(value, list):
            return any(self._theirs(one) for one in value)
        if value is None or isinstance(value, dict | float | bool):
            return False
        if self._link is not None and self._link.text(value) in self._numbers:
            return True
        try:
            return canonical_subject(value) == self._subject
        except ConfigurationError:
            return False  # what cannot name a person does not name this one

    def _mask(self, node: Any, field: Path, owner: Path, said: tuple[str, str]) -> None:
        """Take the field out of what its owner, who stands beside it, does not share with the person."""
        if isinstance(node, list) and field[0] != "*" and owner[0] != "*":
            for element in node:
                self._mask(element, field, owner, said)
        elif field[0] == owner[0] and len(field) > 1 and len(owner) > 1:
            for _, inner in _entries(node, field[0]):
                self._mask(inner, field[1:], owner[1:], said)
        elif field[0] == owner[0]:  # the owner stands within the field, or is it: each value for itself
            for place, inner in list(_entries(node, field[0])):
                values = inner if isinstance(inner, list) and len(field) == 1 else [inner]
                for position, value in enumerate(values):
                    if not any(self._theirs(one) for one in _values(value, owner[1:])):
                        spot, key = (inner, position) if values is inner else (node, place)
                        self._blank(spot, key, said)
        elif not any(self._theirs(one) for one in _values(node, owner)):
            self._clear(node, field, said)
            self._clear(node, owner, (said[1], said[1]))

    def _clear(self, node: Any, path: Path, said: tuple[str, str]) -> None:
        if isinstance(node, list) and path[0] != "*":
            for element in node:
                self._clear(element, path, said)
            return
        for place, inner in list(_entries(node, path[0])):
            if len(path) == 1:
                self._blank(node, place, said)
            else:
                self._clear(inner, path[1:], said)

    def _blank(self, node: Any, place: Any, said: tuple[str, str]) -> None:
        if node[place] is not None:
            node[place] = None
            self._counts[said] += 1

    def _others(self, row: dict[str, Any], path: Path) -> None:
        """The elements of a list of people that are not the person."""
        node: Any = row
        for depth, part in enumerate(path):
            if part == "*":
                continue
            node = node.get(part) if isinstance(node, dict) else None
            if isinstance(node, list):
                rest, where = path[depth + 1 :], ".".join((*path[: depth + 1], "*"))
                for position, element in enumerate(node):
                    if not any(self._theirs(one) for one in _values(element, rest)):
                        self._blank(node, position, (where, self._dataset.subject or ""))
                return


def _entries(node: Any, part: str) -> Iterator[tuple[Any, Any]]:
    """Where a part of a path leads: key → value; ``*`` leads to every element of a list."""
    if part == "*":
        yield from enumerate(node) if isinstance(node, list) else ()
    elif isinstance(node, dict) and part in node:
        yield part, node[part]


def _values(node: Any, path: Path) -> Iterator[Any]:
    """The values at the end of a path."""
    if not path:
        yield node
    elif isinstance(node, list) and path[0] != "*":
        for element in node:
            yield from _values(element, path)
    else:
        for _, inner in _entries(node, path[0]):
            yield from _values(inner, path[1:])
