"""The breach register: what happened, whom it touched, what was done, and when (GDPR Art. 33(5)).

Append only: an entry holds the whole breach as it was known then, sealed, and commits with an audit entry that holds
the digest of what was sealed. Whoever changes or removes one is found by `Breaches.verify`.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, ConstraintViolated
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import current_actor, now, timestamp
from datavern.crypto.sealed import RowSealer, new_row_tag
from datavern.privacy.breach import tables
from datavern.privacy.breach.affected import Affected, Counted, counted, ids_of
from datavern.privacy.breach.breach import Assessment, Breach, Exposed, assess, check_order, checked_changes
from datavern.privacy.breach.distinct import Distinct
from datavern.privacy.breach.proof import WRITTEN, digest_of, verify_register
from datavern.privacy.breach.scope import window_of
from datavern.privacy.breach.touched import Reads, Touched, exposed_in, read_in, scope_again, write_lines

if TYPE_CHECKING:
    from datavern.privacy.breach.report import BreachReport
    from datavern.privacy.personal.store import PersonalStore
    from datavern.privacy.service import Privacy

__all__ = ["Breaches", "Reads"]

_DATASET: Final = "datavern.breaches"
_ATTEMPTS: Final = 8
_CHANGES: Final = frozenset({f.name for f in fields(Breach)}) - {
    "id", "version", "opened_at", "closed_at", "affected", "scope", "essential", "changed_at", "changed_by"
}  # fmt: skip


class Breaches:
    """The register.

    Args:
        privacy: the manager's services: the ledger, its audit log, the keys, the datasets.
        essential: whether digitalsikkerhetsloven's 24 hours hold for new breaches.
    """

    def __init__(self, privacy: Privacy, *, essential: bool = False) -> None:
        self._privacy = privacy
        self._essential = essential
        self._sealer = RowSealer(_DATASET, ("body",))
        self._ready = False
        self._lock = asyncio.Lock()

    # ---- entries ----------------------------------------------------------------------------------------------------

    async def open(
        self, *, kinds: Sequence[str] | str, description: str, aware_at: dt.datetime | None = None, **more: Any
    ) -> Breach:
        """Enter a breach. The clocks run from the moment when the organisation became aware.

        Args:
            kinds: what was violated: "confidentiality", "integrity", "availability".
            description: what happened, as far as it is known. It is sealed.
            aware_at: when the organisation became aware; now when None.
            more: happened_at, happened_until, datasets, databases, exposure, keys_exposed, consequences, measures,
                contact, note, decision: see `datavern.privacy.breach.breach.Breach`.

        Raises:
            ConfigurationError: a moment without a time zone or in the future, a dataset or database that is not there,
                an unknown word.
        """
        at = now()
        given = self._checked({"kinds": kinds, "description": description, "aware_at": aware_at or at, **more}, at)
        await self._prepare()
        for _ in range(_ATTEMPTS):
            known = {breach.id for breach in await self.list()}
            prefix = f"{given['aware_at'].year}-"
            last = max((int(i.removeprefix(prefix)) for i in known if i.startswith(prefix)), default=0)
            breach = Breach(id=f"{prefix}{last + 1:03d}", version=1, opened_at=at, essential=self._essential, **given)
            check_order(breach)
            written = await self._write(breach, "opened")
            if written is not None:
                return written
        raise ConfigurationError("the breach could not be entered: others are entering many at the same time")

    async def update(self, breach: str, **changes: Any) -> Breach:
        """Add an entry: what has become known, was done or decided. What was said before stays in its own entry.

        Args:
            breach: its id.
            changes: as `open` takes them, and sent (when Datatilsynet was notified, once for each phase),
                people_notified_at, incident_notified_at, delay_reason, decision.

        Raises:
            ConfigurationError: no such breach, it is closed, or as `open`.
        """
        given = self._checked(changes, now())
        if not given:
            raise ConfigurationError("an update needs something to say: note= at the least")
        return await self._change(breach, "updated", lambda _: given)

    async def close(self, breach: str, *, decision: str = "") -> Breach:
        """Close a breach. It stays in the register.

        Args:
            breach: its id.
            decision: what was decided, and why; needed where Datatilsynet, or people at a high risk, were not told.

        Raises:
            ConfigurationError: no such breach, it is closed already, or nobody said why Datatilsynet, or the people,
                were not told.
        """
        at = now()
        given = self._checked({"decision": decision} if decision else {}, at)

        def closing(found: Breach) -> dict[str, Any]:
            if not found.sent and not (decision or found.decision):
                raise ConfigurationError(
                    f"{breach}: Datatilsynet was not notified: say why with decision= (--decision; GDPR Art. 33(5))"
                )
            untold = found.people_notified_at is None and not (decision or found.decision)
            if untold and assess(found, self.exposed(found)).people == "inform":
                raise ConfigurationError(
                    f"{breach}: a high risk is likely, and the people were not told: say why with decision= "
                    "(--decision; GDPR Art. 34)"
                )
            return {**given, "closed_at": at}

        return await self._change(breach, "closed", closing)

    async def reopen(self, breach: str, *, note: str) -> Breach:
        """Open a closed breach again: something has become known.

        Raises:
            ConfigurationError: no such breach, or it is open.
        """

        def opening(found: Breach) -> dict[str, Any]:
            if found.closed_at is None:
                raise ConfigurationError(f"{breach} is open")
            return {"note": note, "closed_at": None}

        return await self._change(breach, "reopened", opening, closed=True)

    async def _change(self, breach: str, action: str, of: Any, *, closed: bool = False) -> Breach:
        for _ in range(_ATTEMPTS):
            row = (await self._rows_of(breach))[-1]
            (found,) = await self._opened([row])
            if found.closed_at is not None and not closed:
                raise ConfigurationError(f"{breach} is closed: open it again with reopen")
            changed = replace(found, **{"note": "", **of(found)}, version=found.version + 1)
            check_order(changed)
            written = await self._write(changed, action, before=digest_of(row))
            if written is not None:
                return written
        raise ConfigurationError(f"{breach}: others are changing it at the same time: try again")

    async def _write(self, breach: Breach, action: str, **details: Any) -> Breach | None:
        """Add an entry; None where somebody else has just added one of that number."""
        privacy = self._privacy
        key = await privacy.keys.dataset_key(_DATASET)
        tag, at, actor = new_row_tag(), timestamp(), current_actor()
        text = json.dumps(breach.plain(), ensure_ascii=False, sort_keys=True)
        body = self._sealer.seal_row(key, tag, {"body": text})["body"] or b""
        row = {"id": breach.id, "version": breach.version, "at": at, "actor": actor, "row_tag": tag, "body": body}
        said = {"breach": breach.id, "version": breach.version, "digest": digest_of(row), **details}
        entry = await privacy.audit.entry(f"{WRITTEN}{action}", details=said)
        row["entry"] = entry.id
        ledger = needs(privacy.ledger, "ledger")
        try:
            async with needs(privacy.ledger, "transactions").transaction() as tx:
                await tx.execute(*tables.INSERT.bind(ledger.dialect, **row))
                await privacy.audit.write(entry, transaction=tx)
        except ConstraintViolated:
            return None
        return replace(breach, changed_at=at, changed_by=actor)

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def get(self, breach: str) -> Breach:
        """A breach, as its last entry has it.

        Raises:
            ConfigurationError: there is none of that id; those that are there are named.
            DecryptionFailed: the entry was changed.
        """
        return (await self.history(breach))[-1]

    async def history(self, breach: str) -> Sequence[Breach]:
        """Every entry of a breach, the oldest first. Errors as `get`."""
        return await self._opened(await self._rows_of(breach))

    async def _rows_of(self, breach: str) -> Sequence[Any]:
        await self._prepare()
        rows = await self._rows(tables.OF, breach=breach)
        if not rows:
            known = ", ".join(one.id for one in await self.list()) or "none"
            raise ConfigurationError(f"there is no breach {breach}; there are: {known}")
        return rows

    async def list(self, *, open_only: bool = False) -> Sequence[Breach]:
        """Every breach, as its last entry has it, the oldest first.

        Args:
            open_only: those that are not closed.
        """
        await self._prepare()
        last = {row["id"]: row for row in await self._rows(tables.ALL)}
        found = await self._opened(last.values())
        return [breach for breach in found if not (open_only and breach.closed_at is not None)]

    async def verify(self, *, whole: bool = True) -> Sequence[str]:
        """What of the register is not as it was written, one line each; empty when all is well.

        Every entry is compared with its audit entry. That the log itself was not changed, `Audit.verify` tells. Entries
        whose audit entries went with the end of old ones (`Audit.truncate`) are compared with the next of their breach,
        which names their digest.

        Args:
            whole: read the whole audit log, to find breaches whose last entries were removed.
        """
        await self._prepare()
        return await verify_register(self._privacy.ledger_log, await self._rows(tables.ALL), whole=whole)

    async def _rows(self, statement: Any, **values: Any) -> Sequence[Any]:
        ledger = needs(self._privacy.ledger, "ledger")
        return await needs(self._privacy.ledger, "session").query(*statement.bind(ledger.dialect, **values))

    async def _opened(self, rows: Iterable[Any]) -> Sequence[Breach]:
        found = []
        for row in rows:
            values = dict(row)
            keys = await self._privacy.keys.keys(self._sealer.key_ids(values))
            body = self._sealer.open_row(values["row_tag"], values, keys, None)["body"]
            columns = {
                "id": row["id"], "version": row["version"], "changed_at": row["at"], "changed_by": row["actor"]
            }  # fmt: skip
            found.append(Breach.of(columns, json.loads(body)))
        return found

    async def _prepare(self) -> None:
        """Make the table. Idempotent."""
        async with self._lock:
            if not self._ready:
                await needs(self._privacy.ledger, "ledger").create_tables(tables.breach_tables())
                self._ready = True

    def _checked(self, values: Mapping[str, Any], at: dt.datetime) -> dict[str, Any]:
        for name in values:
            if name not in _CHANGES:
                near = difflib.get_close_matches(name, _CHANGES, n=1)
                hint = f"did you mean {near[0]}?" if near else f"expected: {', '.join(sorted(_CHANGES))}"
                raise ConfigurationError(f"a breach has no {name}; {hint}")
        found = checked_changes(values, at=at)
        known = {store.dataset.name: store for store in self._privacy.datasets}
        for name in found.get("datasets", ()):
            if name not in known:
                there_are = ", ".join(known) or "none"
                raise ConfigurationError(f"datasets: no dataset is named {name}; there are: {there_are}")
        for name in found.get("databases", ()):
            if name not in self._privacy.databases:
                raise ConfigurationError(f"databases: no database is named {name}")
        return found

    # ---- whom it touched --------------------------------------------------------------------------------------------

    async def count(
        self,
        breach: str,
        *,
        where: Mapping[str, Mapping[str, Any]] | None = None,
        windows: Mapping[str, tuple[str, dt.datetime | None, dt.datetime | None]] | None = None,
        subjects: Iterable[object] | None = None,
        reads: Reads | None = None,
    ) -> Affected:
        """Count the people that a breach touched, each once over all its datasets, and write the numbers down.

        Constant memory, whatever the number. A store that cannot be read is told of: the count is a lower bound then.
        Everything of the breach's datasets (those of its databases, where it names none) counts unless it is narrowed:

        Args:
            breach: its id.
            where: dataset → column = value pairs that hold for what was touched; a list means any of these.
            windows: dataset → column that says when, first moment, first moment after it; None: no bound.
            subjects: these people alone, by id.
            reads: people whose data was read alone, as the audit log tells it.

        Raises:
            ConfigurationError: no such breach or dataset, or it is closed.
        """
        found = await self.get(breach)
        stores = self._stores(found)
        names = {store.dataset.name for store in stores}
        for name in {**(where or {}), **(windows or {})}:
            if name not in names:
                raise ConfigurationError(f"{breach}: {name} is none of its datasets: {', '.join(sorted(names))}")
        scope = await self._scope(where, windows, subjects, reads)
        result = await counted(
            stores, self._privacy.keys, scope_for=scope.of, only=scope.only, at=timestamp(), scope=scope.words
        )
        if scope.beside:
            result = replace(result, datasets=(*result.datasets, *scope.beside))
        numbers = {
            "people": result.people, "rows": result.rows, "lower_bound": result.lower_bound,
            "counted_at": result.counted_at, "scope": result.scope,
            "datasets": [
                {"label": c.label, "rows": c.rows, "people": c.people, "nobody": c.nobody, "problem": c.problem}
                for c in result.datasets
            ],
        }  # fmt: skip
        await self._change(breach, "counted", lambda b: {"affected": numbers, "scope": scope.plain, "note": b.note})
        return result

    async def people(
        self, breach: str, path: str | Path, *, subjects: Iterable[object] | None = None
    ) -> tuple[int, int, Sequence[str]]:
        """Write the ids of the people that a breach touched to a new file, one on each line, for those who tell them.

        What was counted last is what is listed. An id with a line break in it stands as JSON text. The file is for its
        owner alone (0600), and that it was made is audited.

        Args:
            breach: its id.
            path: a file that is not there yet.
            subjects: the list, where the last count was one of a list: it is not kept.

        Returns:
            How many ids, how many people more are known by a keyed tag alone, and what could not be read.

        Raises:
            ConfigurationError: no such breach, it was not counted yet, the list is not given, or the file is there.
        """
        found = await self.get(breach)
        if found.affected is None or found.scope is None:
            raise ConfigurationError(f"{breach}: was not counted yet: count it first")
        if found.scope.get("subjects") is not None and subjects is None:
            raise ConfigurationError(f"{breach}: was counted for a list of people, which is not kept: give it again")
        where, windows, reads = scope_again(found.scope)
        scope = await self._scope(where, windows, subjects, reads)
        with Distinct(None) as ids:
            tagged, problems = await ids_of(
                self._stores(found), self._privacy.keys, scope_for=scope.of, only=scope.only, into=ids
            )
            listed = await asyncio.to_thread(write_lines, Path(path), ids)
        details = {"breach": breach, "people": listed, "by_tag_alone": tagged, "unread": len(problems)}
        try:
            await self._privacy.audit.record(f"{WRITTEN}people_listed", details=details)
        except BaseException:
            await asyncio.to_thread(Path(path).unlink, missing_ok=True)  # no list without its entry
            raise
        return listed, tagged, problems

    def _stores(self, breach: Breach) -> Sequence[PersonalStore]:
        every = [store for store in self._privacy.datasets if store.dataset.subject is not None]
        if breach.datasets:
            return [store for store in every if store.dataset.name in breach.datasets]
        return [store for store in every if not breach.databases or store.dataset.database in breach.databases]

    async def _scope(self, where: Any, windows: Any, subjects: Iterable[object] | None, reads: Reads | None) -> Touched:
        who = None if subjects is None else tuple(dict.fromkeys(canonical_subject(one) for one in subjects))
        found = {name: window_of(*given) for name, given in (windows or {}).items()}
        tags: set[bytes] | None = None
        beside: tuple[Counted, ...] = ()
        if reads is not None:
            tags, beside = await read_in(reads, self._privacy.audit.logs, self._privacy.keys)
        return Touched(where, found, who, reads=reads, tags=tags, beside=beside)

    # ---- what it asks for -------------------------------------------------------------------------------------------

    async def assess(self, breach: str) -> Assessment:
        """A recommendation, with its reasons, whether to notify Datatilsynet and the people. It decides nothing."""
        found = await self.get(breach)
        return assess(found, self.exposed(found))

    def exposed(self, breach: Breach) -> Sequence[Exposed]:
        """What of the breach's datasets is there to be read, as the data map has it."""
        return [exposed_in(store) for store in self._stores(breach)]

    async def report(self, breach: str) -> BreachReport:
        """What Datatilsynet is to be told (Art. 33(3)), as far as it is known: the next phase's (Art. 33(4)).

        That it was made is audited. That it was sent is told with ``update(…, sent=…)``.
        """
        from datavern.privacy.breach.report import report  # noqa: PLC0415  (only for reports)

        history = await self.history(breach)
        found = history[-1]
        exposed = self.exposed(found)
        details = {"breach": found.id, "version": found.version, "phase": len(found.sent) + 1}
        await self._privacy.audit.record(f"{WRITTEN}reported", details=details)
        purposes = {store.dataset.label: store.dataset.purposes for store in self._stores(found)}
        return report(found, exposed, assess(found, exposed), purposes, organisation=self._privacy.organisation)
