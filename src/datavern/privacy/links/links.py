"""Rows that name no person themselves, but a number that another dataset knows, or the row that they belong to.

``subject_via="users.personal_number"``, ``subject_via="orders.id"``: the row is whoever's that one is, over as many
steps as there are. A person's rows are found from the person outwards: what stands in the other dataset's column in the
person's rows there, and then the rows that hold one of these. Whose a row is, is found the other way, through the
lookup of the other dataset where its column is sealed; and it is sealed under that person's key, like any row.

Everything else asks a store for rows "of this person", and looks whose a row is; so both are done here, between a store
and its engine's hands, and marked in the row under names that no column has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, CryptoError, PrivacyError
from datavern.crypto.lookup import normalise
from datavern.privacy.datamap.dataset import ERASED_AT, RETAINED_UNTIL, ROW_TAG
from datavern.privacy.holds.grips import RELEASED, Grip
from datavern.privacy.links.values import fitting_in, text_of
from datavern.privacy.personal.paths import leaves, value_at
from datavern.privacy.personal.records import RecordStore
from datavern.privacy.personal.rows import SHARED, WHOSE, Rows

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.contracts.stores import Subjects
    from datavern.privacy.datamap.dataset import Dataset
    from datavern.privacy.links.rows import LinkedRecordRows, LinkedRows
    from datavern.privacy.personal.store import PersonalStore

__all__ = ["Link", "numbers_known"]

_AT_ONCE = 500
"""Values in one condition."""

Known = Mapping[tuple[str, str, str], Sequence[str]]
_known: ContextVar[Known] = ContextVar("datavern_numbers_known", default={})  # noqa: B039  (it is never changed)


@contextmanager
def numbers_known(numbers: Known) -> Iterator[None]:
    """Within the block, people are known by these numbers too: subject, dataset and column → numbers.

    For a request that was written down before its numbers went.
    """
    token = _known.set(numbers)
    try:
        yield
    finally:
        _known.reset(token)


class Link:
    """Where the value of a dataset's subject stands: in a column of another dataset.

    Args:
        store: the dataset whose rows name no person.
        target: the other one; it may be linked itself.
        column: its column, as the data map has it.

    Attributes:
        of: the other dataset's name, and the column, as the data map has it.
        name: the two of them, for people.
        number: whether it is a number of a person (a field of the other dataset), and not the key of a row.
    """

    __slots__ = ("_kind", "column", "name", "number", "of", "store", "target")

    def __init__(self, store: PersonalStore, target: PersonalStore, column: str, *, of: Dataset) -> None:
        self.store = store
        self.target = target
        self.of = of.name, column
        self.name = f"{of.name}.{column}"
        # Documents keep the key under a name of the engine's, where the data map does not say another.
        self.column = target.dataset.keys[0] if (column,) == of.keys and len(target.dataset.keys) == 1 else column
        field = of.fields.get(column)
        self.number = field is not None and column not in of.keys
        self._kind = None if field is None else field.kind

    def hands(self, inner: Subjects) -> Subjects:
        """The engine's hands in the store: they follow what its rows name."""
        from datavern.privacy.links.hands import Hands  # noqa: PLC0415  (made of this)

        return cast("Subjects", Hands(self, inner))

    def kind_of_rows(self, kind: type[Rows]) -> type[LinkedRows | LinkedRecordRows]:
        """How the store's rows stand in their table, where that kind of rows would name their people themselves."""
        from datavern.privacy.links.rows import linked  # noqa: PLC0415  (made of this)

        return linked(kind)

    @property
    def sealed(self) -> bool:
        """Whether what the rows hold is sealed, and found by its lookup."""
        return self.store.dataset.subject in self.store.dataset.sealed

    def text(self, value: Any) -> str | None:
        """What of a value is compared; None of what names nobody."""
        text = text_of(value)
        if text is None or self._kind is None:
            return text
        if type(value) is int and self._kind == "fodselsnummer":
            text = text.zfill(11)
        try:
            return normalise(self._kind, text)[1:].decode()
        except ConfigurationError:
            return None

    def spellings(self, text: str, raw: Iterable[Any] = ()) -> list[Any]:
        """How a value may stand in a column in the clear."""
        found = [*raw, text]
        if self._kind == "fodselsnummer":
            found += [f"{text[:6]} {text[6:]}", f"{text[:6]}-{text[6:]}"]
        return list({(type(one), one): one for one in found}.values())

    def _session(self, transaction: Transaction | None) -> Transaction | None:
        """The caller's transaction, where it is one of the other dataset's database."""
        return transaction if self.target.provider is self.store.provider else None

    # ---- from the person outwards -----------------------------------------------------------------------------------

    async def values(self, person: str, transaction: Transaction | None = None) -> dict[str, list[Any]]:
        """What stands for the person in the linked rows: text → as it is written in the other dataset.

        Raises:
            PrivacyError: another person is known by the same value.
        """
        found: dict[str, list[Any]] = {}
        for number in _known.get().get((person, *self.of), ()):
            found.setdefault(number, [])
        session, target = self._session(transaction), self.target
        if not await target.exists():
            return found
        rows = await target.rows(session)
        where = rows.where_subject(person)
        if where is None:
            return found
        if self.column in target.dataset.sealed:
            mine = await target.subjects.select(target.dataset.table, where, transaction=session)
            mine = [row for row in mine if await target.is_about(row, person)]
            for row in await target.opened(mine, session):
                self._add(found, value_at(row, self.column))
        else:
            async with target.subjects.stream(target.dataset.table, where, transaction=session) as stream:
                async for row in stream:
                    if await target.is_about(row, person):
                        self._add(found, value_at(row, self.column))
        if found and not self._unique(rows):
            others = await self.people(found, transaction)
            if any(one is None for one in others.values()):
                raise PrivacyError(
                    f"{self.name}: several people have the same value there, so that nobody can say whose rows of "
                    f"{self.store.dataset.name} those with it are: correct it first"
                )
        return found

    def _add(self, found: dict[str, list[Any]], value: Any) -> None:
        for one in value if isinstance(value, list) else [value]:
            text = self.text(one)
            if text is not None:
                found.setdefault(text, []).append(one)

    def _unique(self, rows: Rows) -> bool:
        """Whether the database sees to it that no two rows of the other dataset have the same value."""
        lookup = self.target.dataset.lookups.get(self.column, self.column)
        return any(names == {lookup} for names in rows.store.unique)

    async def conditions(
        self, rest: Mapping[str, Any], mine: Mapping[str, list[Any]], texts: Sequence[str], transaction: Any
    ) -> list[dict[str, Any]]:
        """The conditions under which rows hold one of these, and the rest of it."""
        name = self.store.dataset.subject or ""
        rows = await self.store.rows(transaction if not isinstance(self.store, RecordStore) else None)
        conditions: list[dict[str, Any]] = []
        for first in range(0, len(texts), _AT_ONCE):
            part = texts[first : first + _AT_ONCE]
            if self.sealed:
                conditions.append({**rest, **rows.where_fields({name: tuple(part)})})
                continue
            spelled = [form for text in part for form in self.spellings(text, mine[text])]
            if isinstance(self.store, RecordStore):
                fitting = [str(one) for one in spelled] if self.store.holding.keyed else spelled
            else:
                fitting = list(fitting_in(rows.subject_column, spelled))
            if fitting:
                conditions.append({**rest, name: tuple(dict.fromkeys(fitting))})
        return conditions

    # ---- from a row to the person -----------------------------------------------------------------------------------

    async def people(
        self, values: Mapping[str, Iterable[Any]], transaction: Transaction | None = None
    ) -> dict[str, str | None]:
        """Text → whose it is; None where several people have it, and no entry where nobody has."""
        session, target = self._session(transaction), self.target
        found: dict[str, set[str]] = {}
        if not values or not await target.exists():
            return {}
        await target.keys.heard()
        rows = await target.rows(session)
        sealed = self.column in target.dataset.sealed
        texts = list(values)
        for first in range(0, len(texts), _AT_ONCE):
            part = texts[first : first + _AT_ONCE]
            for row, value in await self._holding(rows, part, values, sealed=sealed, session=session):
                person = rows.subject_of(row)
                for one in value if isinstance(value, list) else [value]:
                    text = self.text(one)
                    if text is not None and person is not None:
                        found.setdefault(text, set()).add(person)
        known: dict[str, str | None] = {t: next(iter(p)) if len(p) == 1 else None for t, p in found.items()}
        if not sealed and not values.keys() <= known.keys():  # the columns may take letters of either case for the same
            folded: dict[str, str | None] = {}
            for text, person in known.items():
                folded[text.casefold()] = person if folded.setdefault(text.casefold(), person) == person else None
            known = {t: known.get(t, folded.get(t.casefold())) for t in values if t in known or t.casefold() in folded}
        return {text: person for text, person in known.items() if text in values}

    async def _holding(
        self,
        rows: Rows,
        texts: Sequence[str],
        values: Mapping[str, Iterable[Any]],
        *,
        sealed: bool,
        session: Transaction | None,
    ) -> list[tuple[Mapping[str, Any], Any]]:
        """The rows of the other dataset that hold one of these, and what they hold, opened."""
        target, table = self.target, self.target.dataset.table
        if not sealed:
            column = rows.columns.get(self.column)
            spelled = [form for text in texts for form in self.spellings(text, values[text])]
            asked = tuple(spelled if isinstance(target, RecordStore) else fitting_in(column, spelled))
            if not asked:
                return []
            found = await target.subjects.select(
                table, {self.column: asked}, columns=self._columns(rows), transaction=session
            )
            return [(row, value_at(row, self.column)) for row in found]
        wanted = {self.column: tuple(texts)}
        found = await target.subjects.select(table, rows.where_fields(wanted), transaction=session)
        if rows.aside and (aside := rows.where_aside(wanted)) is not None:
            found += await target.subjects.select(table, aside, transaction=session)
        opened = await target.opened([dict(row) for row in found], session)
        return [(row, one.get(self.column)) for row, one in zip(found, opened, strict=True)]

    def _columns(self, rows: Rows) -> list[str] | None:
        if isinstance(self.target, RecordStore) or self.target.link is not None:
            return None
        return list(dict.fromkeys([self.column, rows.subject or self.column]))

    async def marked(
        self, found: Sequence[Mapping[str, Any]], transaction: Transaction | None = None
    ) -> list[dict[str, Any]]:
        """The rows, marked with whose they are, where they are not yet."""
        marked = [type(row)(row) if isinstance(row, dict) else dict(row) for row in found]
        named = await self._named([row for row in marked if WHOSE not in row], transaction)
        everybody = {text: raw for each in named for text, raw in each.items()}
        people = await self.people(everybody, transaction)
        for row, each in zip([row for row in marked if WHOSE not in row], named, strict=True):
            of_row = {people.get(text) for text in each}
            row[SHARED] = tuple(sorted(of_row - {None})) if len(of_row) > 1 else ()
            row[WHOSE] = of_row.pop() if len(of_row) == 1 else None
        return marked

    async def _named(
        self, found: Sequence[Mapping[str, Any]], transaction: Transaction | None
    ) -> list[dict[str, list[Any]]]:
        """What each row holds in place of a person; of documents there may be several."""
        name = self.store.dataset.subject or ""
        held: list[Any] = [value_at(row, name) for row in found]
        if self.sealed:
            held = [await self.opened(row, value, transaction) for row, value in zip(found, held, strict=True)]
        named: list[dict[str, list[Any]]] = []
        for value in held if not isinstance(self.store, RecordStore) else [list(leaves(r, name)) for r in found]:
            each: dict[str, list[Any]] = {}
            self._add(each, value)
            named.append(each)
        return named

    async def opened(self, row: Mapping[str, Any], value: Any, transaction: Transaction | None) -> Any:
        """A number that is sealed: it opens with the key that it names, and whose that is, the number has to say."""
        if not isinstance(value, bytes) or row.get(ROW_TAG) is None:
            return value
        sealer = (await self.store.rows(transaction)).sealer
        name = self.store.dataset.subject or ""
        part = {name: value}
        try:
            keys = await self.store.keys.keys(sealer.key_ids(part), session=transaction)
            tag = next((key.subject_tag for key in keys.values()), None)
            return sealer.open_row(row[ROW_TAG], part, keys, tag)[name]
        except CryptoError:
            return None

    async def check_stays(
        self, rows: Sequence[Mapping[str, Any]], changes: Mapping[str, Any] | None, transaction: Transaction | None
    ) -> None:
        """Refuse a change of the other dataset's rows after which nobody would find the rows that they lead to.

        Args:
            rows: of the other dataset, as they are stored.
            changes: what will be written to them; None: they will be deleted.
            transaction: one of the other dataset's database, or None.

        Raises:
            PrivacyError: there are such rows.
        """
        if self.number if changes is None else self.column not in changes:
            return  # who deletes the row of a person says that the number there is not, or no longer, the person's
        new = None if changes is None else self.text(changes[self.column])
        old: dict[str, list[Any]] = {}
        for row in await self.target.opened(rows, transaction):
            self._add(old, value_at(row, self.column))
        old.pop(new or "", None)
        session = transaction if self.target.provider is self.store.provider else None
        if not old or not await self.store.exists():
            return
        store = self.store
        for condition in await self.conditions({}, old, list(old), session):
            if await needs(store.provider, "subjects").select(
                store.dataset.table, condition, limit=1, transaction=session
            ):
                raise PrivacyError(
                    f"{self.name}: {store.dataset.label} knows people by it, and has rows under it that nobody would "
                    + (
                        "find any more: end those first"
                        if changes is None
                        else "find any more: give those the new "
                        f"{self.column} with SQL first, if they are this person's (what is sealed there still opens); "
                        "if they are another's, delete the row here, and insert it anew"
                    )
                )

    async def leads(self, found: Sequence[Mapping[str, Any]], transaction: Transaction | None) -> list[Grip | None]:
        """What of the linked rows stays that would be found by nobody without each of these, of the other dataset.

        Args:
            found: rows as they are stored.
            transaction: the open one of the other dataset's database.
        """
        held: list[dict[str, list[Any]]] = []
        for row in await self.target.opened(found, transaction):
            held.append({})
            self._add(held[-1], value_at(row, self.column))
        every = {text: raw for each in held for text, raw in each.items()}
        until = await self._staying(every, transaction if self.target.provider is self.store.provider else None)
        why = f"rows of {self.store.dataset.label} stay, and are found through it"
        longest = [max((until[text] for text in each if text in until), default=None) for each in held]
        return [None if one is None else Grip(why, one) for one in longest]

    async def _staying(self, values: Mapping[str, list[Any]], session: Transaction | None) -> dict[str, str]:
        """Value → until when rows stay under it: their last day, or `RELEASED`; none that an erasure is done with."""
        store = self.store
        erasure = store.dataset.erasure
        if not values or erasure == "shred" or not await store.exists():
            return {}
        rows = await store.rows(session)
        marks = {ERASED_AT: None} if erasure in ("soft", "anonymize") else {}
        if not marks.keys() <= rows.columns.keys():
            return {}  # nothing tells what was anonymised from what was not
        hands = needs(store.provider, "subjects")
        until: dict[str, str] = {}
        for condition in await self.conditions(marks, values, list(values), session):
            async with hands.stream(store.dataset.table, condition, transaction=session) as stream:
                async for row in stream:
                    (named,) = await self._named([row], session)
                    for text in named:
                        last = row.get(RETAINED_UNTIL) or RELEASED
                        until[text] = max(until.get(text, ""), str(last))
        return until

    async def named(self, rows: Sequence[Mapping[str, Any]], transaction: Transaction | None = None) -> list[str]:
        """Whose each row is that is to be written.

        Raises:
            ConfigurationError: one says nothing, or says what nobody has, or several people have.
        """
        dataset = self.store.dataset
        held = [value_at(row, dataset.subject or "") for row in rows]
        texts = [self.text(value) for value in held]
        if None in texts:
            raise ConfigurationError(f"{dataset.name}.{dataset.subject}: missing; it says whose row it is")
        raw = {text: [value] for text, value in zip(texts, held, strict=True) if text is not None}
        people = await self.people(raw, transaction)
        named = []
        for text in texts:
            person = people.get(text or "")
            if person is None:
                what = "several people have it" if text in people else "nobody has it"
                raise ConfigurationError(
                    f"{dataset.name}.{dataset.subject}: {what} in {self.name}, which says whose row it is: "
                    + ("correct it there" if text in people else f"write the row of {self.of[0]} first")
                )
            named.append(person)
        return named
