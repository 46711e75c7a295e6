"""Legal holds: rows that must stay, whatever the data map says, until somebody lets them go or a day has passed.

A hold stands in the database that holds its rows. Who places one locks the rows first, and whoever is about to end rows
asks for holds once it has locked them: so no row goes that a hold was placed on, and no hold is placed on a row that
has gone. Engines that hold none of Datavern's tables have their holds in the ledger, and no lock: there a hold that is
placed while a store is being looked through may come too late for it, and says how many rows it found.
"""

from __future__ import annotations

import datetime as dt
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, ConstraintViolated, DatavernError, PrivacyError
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import current_actor, timestamp, today
from datavern.crypto.sealed import RowSealer, new_row_tag
from datavern.privacy.holds import tables
from datavern.privacy.holds.grips import RELEASED, Grip, Grips, Hold
from datavern.privacy.personal.records import RecordStore

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.crypto.sealed import DataKey
    from datavern.privacy.datamap.dataset import Dataset
    from datavern.privacy.personal.rows import Rows
    from datavern.privacy.personal.store import PersonalStore
    from datavern.privacy.service import Privacy, Site

__all__ = ["RELEASED", "Grip", "Grips", "Hold", "Holds"]

_DATASET: Final = "datavern.holds"
_EVERY: Final = "*"
_MOST_ROWS: Final = 10_000


class Holds:
    """The legal holds of one manager.

    Args:
        privacy: the datasets, the keys and the databases.
    """

    def __init__(self, privacy: Privacy) -> None:
        self._privacy = privacy
        self._sealer = RowSealer(_DATASET, ("sealed",))

    # ---- placing, releasing, listing --------------------------------------------------------------------------------

    async def place(
        self,
        dataset: str | None = None,
        *,
        subject: object = None,
        key: Any = None,
        where: Mapping[str, Any] | None = None,
        reason: str,
        until: dt.date | None = None,
        actor: str | None = None,
    ) -> Hold:
        """Keep rows from being ended: by erasures, by the retention run, and by `delete`.

        Args:
            dataset: where; None: in every dataset, now and later, for which `subject` is needed.
            subject: whose rows, those that come later among them.
            key: the primary key of one row of `dataset`.
            where: field → value, of rows of `dataset` (sealed fields by their lookup): those that match now, at most
                10,000.
            reason: why, for certificates. It is kept sealed.
            until: its last day; None: until it is released.
            actor: who says so; whoever `datavern.actor` says when None.

        Returns:
            The hold; `rows` says how many rows it found.

        Raises:
            ConfigurationError: it is not said whose rows, or which; no reason; a day that has passed; more rows than
                one hold may name. Nothing was held.
            ProviderError: a database could not be reached. Nothing was held.
        """
        if not isinstance(reason, str) or not reason.strip() or "\0" in reason:
            raise ConfigurationError("reason: expected text: it stands on certificates of what stays")
        if until is not None and (not isinstance(until, dt.date) or isinstance(until, dt.datetime) or until < today()):
            raise ConfigurationError("until: expected the hold's last day, today or later, as a date")
        said = sum(one is not None for one in (subject, key, where))
        if said != 1 or (dataset is None and subject is None) or where == {}:
            raise ConfigurationError(
                "a hold is of a subject=, or of rows of a dataset: key=, or where={field: value}; one of them"
            )
        person = None if subject is None else canonical_subject(subject)
        hold = Hold(
            secrets.token_hex(16), reason, person, dataset, 0, until, timestamp(), actor or current_actor()
        )  # fmt: skip
        if dataset is not None:
            return await self._place_in(self._privacy.unwatched(dataset), hold, key, where)
        return await self._place_everywhere(hold)

    async def release(self, hold: Hold | str, *, actor: str | None = None) -> list[Any]:
        """Let the rows of a hold go: what an erasure had to leave because of it ends now. Idempotent.

        Returns:
            The answers to the erasures that this completed, each with its certificate (`SubjectResponse`); of one that
            something is in the way of, a `Receipt` that says what: it goes on by itself.

        Raises:
            PrivacyError: there is no hold of that id.
        """
        id_ = hold.id if isinstance(hold, Hold) else hold
        entries = [entry for site in self._sites() for entry in await self._entries(site) if entry["hold"] == id_]
        if not entries:
            raise PrivacyError("there is no hold of that id: `datavern hold list` shows them")
        by = actor or current_actor()
        tags = list(dict.fromkeys(bytes(entry["subject_tag"]) for entry in entries))
        completions, ledger = self._privacy.completions, self._privacy.site(self._privacy.ledger_name)
        await completions.hasten(tags)  # so that a crash on the way leaves them to the next who looks
        for site in sorted(self._sites(), key=lambda site: site is ledger):

            async def work(tx: Transaction, site: Site = site) -> None:
                released = self._bind(site, tables.HOLD_RELEASE, of_hold=id_, at=timestamp(), by=by)
                if await tx.execute(*released):
                    await site.log.append(tx, action="hold_released", actor=by, details={"hold": id_})
                if site is ledger:  # once more: whoever looked meanwhile found the hold, and put them off
                    await completions.hasten(tags, tx)

            await needs(site.provider, "transactions").run_in_transaction(work)
        return await self._privacy.completions.of(tags)

    # ---- for whoever ends rows --------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Make the tables. Idempotent."""
        for site in self._sites():
            await needs(site.provider, "ledger").create_tables(tables.site_tables())

    async def grips(self, dataset: Dataset, subjects: Sequence[str] | None, tx: Transaction | None) -> Grips | None:
        """What holds rows of a dataset at this moment; None: nothing does.

        Args:
            dataset: the dataset.
            subjects: of these people; None: of everybody.
            tx: the open transaction that has locked the rows; None in engines without any.
        """
        site = self._privacy.site(dataset.database)
        named: dict[str, Any] = {"of_dataset": dataset.name, "every": _EVERY, "today": today().isoformat()}
        dialect = needs(site.provider, "ledger").dialect
        asked: Iterable[tuple[str, Any]] = [tables.HOLDS_OF_ALL.bind(dialect, **named)]
        if subjects is not None:
            asked = tables.HOLDS_OF.bind(dialect, [self.tag(subject) for subject in subjects], **named)
        session = tx or needs(site.provider, "session")
        entries = [entry for statement in asked for entry in await session.query(*statement)]
        if not entries:
            return None
        return Grips(self, dataset, [{**dict(one), **await self._opened(one, tx)} for one in entries])

    async def refuse(self, dataset: Dataset, rows: Rows, row: Mapping[str, Any], tx: Transaction | None) -> None:
        """Refuse to delete a row that a hold keeps.

        Raises:
            PrivacyError: one does.
        """
        subject = rows.subject_of(row)
        grips = await self.grips(dataset, None if subject is None else [subject], tx)
        grip = None if grips is None else grips.on(rows, row)
        if grip is not None:
            raise PrivacyError(f"{dataset.label}: a legal hold keeps the row until {grip.until}: {grip.why}")

    async def keep(self, dataset: Dataset, row: Mapping[str, Any], request: str, tx: Transaction | None) -> None:
        """Write down that an erasure leaves a row, so that it ends with the hold. Idempotent where `tx` is None."""
        site = self._privacy.site(dataset.database)
        tag = self.key_tag(dataset, row)
        entry = {"entry": f"{request}:{tag.hex()}", "request": request, "dataset": dataset.name, "key_tag": tag}
        statement = self._bind(site, tables.KEPT_INSERT, **entry)
        if tx is not None:
            await tx.execute(*statement)
            return
        try:
            await needs(site.provider, "session").execute(*statement)
        except ConstraintViolated:
            return  # it was left before

    def tag(self, subject: str) -> bytes:
        """How the tables name a person."""
        return self._privacy.keys.subject_tag(subject)

    def key_tag(self, dataset: Dataset, row: Mapping[str, Any]) -> bytes:
        """How the tables name a row: by a keyed hash of its primary key, which may tell who somebody is."""
        key = json.dumps([_text(row[name]) for name in dataset.keys], ensure_ascii=False)
        return self._privacy.keys.subject_tag(f"\0row\0{dataset.name}\0{key}")  # no subject's id holds a NUL

    # ---- the parts --------------------------------------------------------------------------------------------------

    async def _place_in(self, store: PersonalStore, hold: Hold, key: Any, where: Mapping[str, Any] | None) -> Hold:
        dataset = store.dataset
        if not await store.exists():
            raise ConfigurationError(f"{dataset.label}: there is no {dataset.table} yet, so nothing can be held there")
        if isinstance(store, RecordStore) and store.holding.keyed and hold.subject is None:
            raise ConfigurationError(f"{dataset.label}: keys and values are held by their person: subject=")
        rows = await store.rows(fresh=True)
        condition = _condition(rows, hold, key, where)
        site = self._privacy.site(dataset.database)
        sealing = await self._privacy.keys.dataset_key(_DATASET)
        handle = None if hold.subject is None else await self._privacy.keys.handle(hold.subject, create=False)
        inside = not isinstance(store, RecordStore)

        async def work(tx: Transaction) -> Hold:
            found = await self._found(store, rows, condition, hold, tx if inside else None)
            if hold.subject is not None:
                entries = [self._entry(replace(hold, rows=len(found)), sealing, dataset.name, hold.subject, b"")]
            else:
                tags = [(rows.subject_of(row), self.key_tag(dataset, row)) for row in found]
                entries = [self._entry(replace(hold, rows=1), sealing, dataset.name, who, tag) for who, tag in tags]
            if not entries:
                raise ConfigurationError(f"{dataset.label}: no row is that, so nothing can be held")
            await self._write(site, tx, entries)
            details = {"hold": hold.id, "rows": len(found), "until": None if hold.until is None else str(hold.until)}
            said: dict[str, Any] = {"actor": hold.placed_by, "dataset": dataset.label, "details": details}
            await site.log.append(tx, action="hold_placed", handle=handle, **said)
            return replace(hold, rows=len(found), notes=_notes([store]))

        # Each statement by itself: what was written while the rows were waited for is seen.
        return await needs(site.provider, "transactions").run_in_transaction(work, isolation="read committed")

    async def _place_everywhere(self, hold: Hold) -> Hold:
        privacy = self._privacy
        sealing = await privacy.keys.dataset_key(_DATASET)
        handle = await privacy.keys.handle(str(hold.subject), create=False)
        stores = await privacy.stores()
        known = {s.dataset.label: await s.rows() for s in stores if await s.exists()}  # ahead of any transaction
        found = 0
        placed: list[Site] = []
        failed: DatavernError | None = None
        for site in self._sites():
            own = [s for s in stores if privacy.site(s.dataset.database) is site]

            async def work(tx: Transaction, site: Site = site, own: Sequence[PersonalStore] = own) -> int:
                number = 0
                for store in own:
                    rows = known.get(store.dataset.label)
                    if rows is not None:
                        inside = None if isinstance(store, RecordStore) else tx
                        number += len(await self._found(store, rows, _condition(rows, hold, None, None), hold, inside))
                await self._write(
                    site, tx, [self._entry(replace(hold, rows=number), sealing, _EVERY, hold.subject, b"")]
                )
                details = {"hold": hold.id, "rows": number, "until": None if hold.until is None else str(hold.until)}
                await site.log.append(
                    tx, action="hold_placed", actor=hold.placed_by, handle=handle, details=details
                )  # fmt: skip
                return number

            try:
                found += await needs(site.provider, "transactions").run_in_transaction(work, isolation="read committed")
                placed.append(site)
            except DatavernError as error:
                failed = error
                break
        if failed is not None:  # all, or none: what was placed is released again
            for site in placed:
                released = self._bind(site, tables.HOLD_RELEASE, of_hold=hold.id, at=timestamp(), by=hold.placed_by)
                await needs(site.provider, "session").execute(*released)
            raise failed
        return replace(hold, rows=found, notes=_notes(stores))

    async def _found(
        self, store: PersonalStore, rows: Rows, where: Mapping[str, Any] | None, hold: Hold, tx: Transaction | None
    ) -> list[dict[str, Any]]:
        """The rows, locked where they can be."""
        if where is None:
            return []
        names = None
        if not isinstance(store, RecordStore) or store.holding.keyed:
            names = [name for name in dict.fromkeys((*store.dataset.keys, rows.subject)) if name is not None]
        most = None if hold.subject is not None else _MOST_ROWS + 1
        found: list[dict[str, Any]] = await store.subjects.select(
            store.dataset.table, where, columns=names, limit=most, lock=tx is not None, transaction=tx
        )
        if most is not None and len(found) == most:
            raise ConfigurationError(f"{store.dataset.label}: more than {_MOST_ROWS:,} rows: hold them by subject=")
        return found

    async def _write(self, site: Site, tx: Transaction, entries: Sequence[Mapping[str, Any]]) -> None:
        dialect = needs(site.provider, "ledger").dialect
        await tx.execute_many(*tables.HOLD_INSERT.bind_many(dialect, entries))

    def _entry(self, hold: Hold, sealing: DataKey, dataset: str, subject: str | None, key_tag: bytes) -> dict[str, Any]:
        tag = new_row_tag()
        told = {"subject": subject, "reason": hold.reason, "dataset": hold.dataset, "rows": hold.rows}
        return {
            "entry": secrets.token_hex(16),
            "hold": hold.id,
            "dataset": dataset,
            "subject_tag": b"" if subject is None else self.tag(subject),
            "key_tag": key_tag,
            "row_tag": tag,
            **self._sealer.seal_row(sealing, tag, {"sealed": json.dumps(told, ensure_ascii=False)}),
            "until": None if hold.until is None else hold.until.isoformat(),
            "placed_at": hold.placed_at,
            "actor": hold.placed_by,
            "released_at": None,
            "released_by": None,
        }

    async def _entries(self, site: Site) -> list[dict[str, Any]]:
        statement = self._bind(site, tables.HOLDS_LIST)
        return [dict(row) for row in await needs(site.provider, "session").query(*statement)]

    async def _opened(self, entry: Any, tx: Transaction | None) -> dict[str, Any]:
        values = dict(entry)
        keys = await self._privacy.keys.keys(self._sealer.key_ids(values), session=tx)
        opened = self._sealer.open_row(bytes(values["row_tag"]), values, keys, None)
        told: dict[str, Any] = json.loads(opened["sealed"])
        return {"subject": told["subject"], "reason": told["reason"], "held": told["dataset"], "rows": told["rows"]}

    def _sites(self) -> list[Site]:
        return self._privacy.sites

    def _bind(self, site: Site, statement: Any, /, **values: Any) -> Any:
        return statement.bind(needs(site.provider, "ledger").dialect, **values)

    # The last one: from here on `list` is a method.

    async def list(self, *, subject: object = None, dataset: str | None = None, all: bool = False) -> list[Hold]:  # noqa: A002  (as the command's)
        """The holds that stand, the oldest first.

        Args:
            subject: of that person alone.
            dataset: of that dataset alone, and those of every dataset.
            all: those that were released, or whose day has passed, too.
        """
        person = None if subject is None else canonical_subject(subject)
        found: dict[str, Hold] = {}
        for site in self._sites():
            for entry in await self._entries(site):
                one = _hold(entry, await self._opened(entry, None))
                known = found.get(one.id)
                if known is not None:
                    whose = one.subject if one.subject == known.subject else None
                    one = replace(known, subject=whose, rows=known.rows + one.rows)
                found[one.id] = one
        held = [h for h in found.values() if person is None or h.subject == person]
        held = [h for h in held if dataset is None or h.dataset in (dataset, None)]
        return sorted((h for h in held if all or h.stands()), key=lambda h: (h.placed_at, h.id))


def _condition(rows: Rows, hold: Hold, key: Any, where: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if hold.subject is not None:
        return None if rows.subject is None else rows.where_subject(hold.subject)
    if where is not None:
        return rows.where_fields(where)
    found = rows.where_key(key)
    if found is None:
        raise ConfigurationError(f"{rows.dataset.label}: no row can have that key")
    return found


def _notes(stores: Iterable[PersonalStore]) -> tuple[str, ...]:
    keyed = [s.dataset.label for s in stores if isinstance(s, RecordStore) and s.holding.keyed]
    return tuple(f"{label}: keys expire when their time is up, and no hold stops that" for label in keyed)


def _hold(entry: Mapping[str, Any], opened: Mapping[str, Any]) -> Hold:
    until = entry["until"]
    return Hold(
        entry["hold"],
        opened["reason"],
        opened["subject"],
        opened["held"],
        opened["rows"],
        None if until is None else dt.date.fromisoformat(until),
        entry["placed_at"],
        entry["actor"],
        entry["released_at"],
        entry["released_by"],
    )


def _text(value: Any) -> str:
    """A part of a primary key, as its tag is made of it: the same from every engine and driver."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)
