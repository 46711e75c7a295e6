"""What stands against the use of people's data: restrictions (GDPR Art. 18) and objections (Art. 21).

They are rows of the ledger. Every process remembers those that stand, and asks one number of the ledger, how often they
changed, when what it remembers is older than half a second: so a new one is in effect everywhere by then, whatever a
process is doing, and reads and writes pay for nothing more than a look at the clock.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from datavern.contracts.capabilities import Transaction, needs
from datavern.contracts.errors import ConstraintViolated, DatavernError, ProcessingRestricted, twin_of
from datavern.contracts.uses import current_purpose, current_restricted_use
from datavern.contracts.values import current_actor
from datavern.privacy.consent import tables
from datavern.privacy.consent.checks import REMEMBERED

if TYPE_CHECKING:
    from datavern.audit.log import AuditLog
    from datavern.contracts.capabilities import Provider, Session
    from datavern.crypto.keystore import KeyStore
    from datavern.privacy.consent.consent import Consents
    from datavern.privacy.datamap.dataset import Dataset

__all__ = ["WHOLE", "Mark", "Standing", "not_erased"]

_ROW = 1
WHOLE = ""
"""Stands for the only purpose of a dataset that names none."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One of them.

    Attributes:
        request: the request that it follows from.
        kind: "restriction" or "objection".
        reach: label of a dataset → the purposes that are objected to there; of a restriction: none. Empty: every
            dataset.
        since: since when, RFC 3339.
        lifted_at: since when not any more, or None.
        ground: of a restriction: "accuracy", "unlawful", "legal_claims" or "objection" (Art. 18(1)(a)-(d)), or None.
        handle: the person's, in the audit log.
    """

    request: str
    kind: Literal["restriction", "objection"]
    reach: Mapping[str, tuple[str, ...]]
    since: str
    lifted_at: str | None = None
    ground: str | None = None
    handle: str | None = None

    @classmethod
    def of(cls, row: Any) -> Mark:
        """As a row of the table tells it."""
        reach = {label: tuple(purposes) for label, purposes in json.loads(row["reach"]).items()}
        return cls(row["id"], row["kind"], reach, row["since"], row["lifted_at"], row["ground"], row["handle"])

    def restricts(self, dataset: Dataset) -> bool:
        """Whether it is a restriction that reaches that dataset."""
        return self.kind == "restriction" and (not self.reach or dataset.label in self.reach)


def stopping(marks: Sequence[Mark], dataset: Dataset, purpose: str | None, *, writing: bool) -> Mark | None:
    """Which of a person's marks stands against a use of a dataset; None where none does. A restriction comes first.

    Args:
        marks: what stands.
        dataset: the dataset.
        purpose: what for, where somebody said it.
        writing: whether it is a write.
    """
    against: dict[str, Mark] = {}
    for mark in marks:
        if mark.restricts(dataset):
            return mark
        if mark.kind == "objection":
            against |= dict.fromkeys(mark.reach.get(dataset.label, ()), mark)
    if not against:
        return None
    if purpose is not None and dataset.purposes:
        return against.get(purpose)
    # Nobody said what for: it is stopped where nothing is left that the dataset is for.
    every = dataset.purposes or (WHOLE,)
    if not all(one in against for one in every):
        return None
    return against[every[-1]] if writing or purpose is not None or dataset.require_consent == "read" else None


class Standing:
    """Those that stand now.

    Args:
        provider: the ledger database.
        keys: names subjects by tag.

    Attributes:
        marks: tag → what stands against the use of that person's data.
        until: until when (`time.monotonic`) that counts; `ask` then.
    """

    __slots__ = ("_asking", "_changes", "_era", "_inside", "_keys", "_provider", "marks", "until")

    def __init__(self, provider: Provider, keys: KeyStore) -> None:
        self._provider = provider
        self._keys = keys
        self._changes = -1
        self._inside: tuple[Any, float] = (None, 0.0)  # the last transaction it was asked in, how long that counts
        self._asking: asyncio.Task[None] | None = None
        self._era = 0
        self.marks: Mapping[bytes, tuple[Mark, ...]] = {}
        self.until = 0.0

    async def open(self) -> None:
        """Make the row that counts the changes; the tables are there. Idempotent."""
        session, dialect = needs(self._provider, "session"), needs(self._provider, "ledger").dialect
        if await session.query_value(*tables.STANDING_CHANGES.bind(dialect, row=_ROW)) is None:
            with suppress(ConstraintViolated):  # another process made it just now
                await session.execute(*tables.STANDING_INSERT.bind(dialect, id=_ROW, changes=0))
        await self.ask()

    async def ask(self, transaction: Transaction | None = None) -> None:
        """Ask the ledger what stands; tasks that ask at the same time share the question.

        In an open transaction of the ledger it is asked there, since there may be no other connection, and remembered
        for that transaction alone; beside it the next answer for everybody is fetched when a connection is free.

        Raises:
            ProviderError: the ledger cannot be asked: nothing is used then.
        """
        began = monotonic()
        if transaction is not None and transaction.provider is self._provider:
            inside, until = self._inside
            if inside is not transaction or began >= until:
                self._question().add_done_callback(_heard)
                await self._answer(transaction, own=True)
                self._inside = (transaction, began + REMEMBERED)
            return
        while self.until <= began:
            # A question that is under way counts, if it was sent less than half a second before this use began.
            error: DatavernError
            try:
                await asyncio.shield(self._question())
                continue
            except DatavernError as caught:
                error = caught
            raise twin_of(error)

    def _question(self) -> asyncio.Task[None]:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask())
            self._asking.add_done_callback(_heard)  # those who wait may all be cancelled
        return self._asking

    async def _ask(self) -> None:
        asked, era = monotonic(), self._era
        await self._answer(needs(self._provider, "session"), own=False)
        if era == self._era:  # nothing changed here since
            self.until = asked + REMEMBERED

    async def _answer(self, session: Session, *, own: bool) -> None:
        """Read what stands. `own`: in somebody's transaction, which may see less than is known, or be undone.

        What it sees adds to what is known, until the next answer for everybody.
        """
        dialect = needs(self._provider, "ledger").dialect
        changes: int = await session.query_value(*tables.STANDING_CHANGES.bind(dialect, row=_ROW)) or 0
        if changes == self._changes:
            return
        # Which rows stand is read after the number: what came between is read twice, and nothing is missed.
        found: dict[bytes, tuple[Mark, ...]] = {}
        for row in await session.query(*tables.RESTRICTIONS_STANDING.bind(dialect)):
            tag = bytes(row["subject_tag"])
            found[tag] = (*found.get(tag, ()), Mark.of(row))
        self.marks = {**self.marks, **found} if own else found
        self._changes = -1 if own else changes

    async def close(self) -> None:
        """End what is fetched beside. Idempotent."""
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
            with suppress(asyncio.CancelledError, DatavernError):
                await asking

    def forget(self) -> None:
        """Ask the ledger anew: something changed in this process."""
        self.until = 0.0  # nobody looks at the marks before they are asked for
        self.marks, self._changes = {}, -1
        self._era += 1
        self._inside = (None, 0.0)

    async def changed(self, transaction: Transaction) -> None:
        """Count a change, in the transaction that makes it: every process then hears of it."""
        dialect = needs(self._provider, "ledger").dialect
        await transaction.execute(*tables.STANDING_CHANGED.bind(dialect, row=_ROW))

    async def of(self, subject: str) -> list[Mark]:
        """All that stood or stands against the use of a person's data, the oldest first, as the ledger has it."""
        dialect = needs(self._provider, "ledger").dialect
        tag = self._keys.subject_tag(subject)
        rows = await needs(self._provider, "session").query(*tables.RESTRICTIONS_OF.bind(dialect, tag=tag))
        return [Mark.of(row) for row in rows]

    async def restricted(self, subjects: Iterable[str], session: Session | None = None) -> dict[str, str]:
        """Those of the people whose data is restricted now → the request, as the ledger has it."""
        people = {self._keys.subject_tag(subject): subject for subject in subjects}
        session = session or needs(self._provider, "session")
        found: dict[str, str] = {}
        for statement in tables.RESTRICTIONS_AMONG.bind(needs(self._provider, "ledger").dialect, list(people)):
            for row in await session.query(*statement):
                found.setdefault(people[bytes(row["subject_tag"])], row["id"])
        return found

    async def delete(self, tags: Sequence[bytes], transaction: Transaction) -> int:
        """Delete what stood against the use of erased people's data, in the erasure's own transaction; how many."""
        dialect = needs(self._provider, "ledger").dialect
        number = 0
        for statement in tables.RESTRICTIONS_DELETE.bind(dialect, tags):
            number += await transaction.execute(*statement)
        if number:
            await self.changed(transaction)
        return number

    def against(self, dataset: Dataset, tag: bytes, *, writing: bool) -> Mark | None:
        """What stands against this use now, as far as is remembered, whatever the ground of a restricted use."""
        found = self.marks.get(tag)
        if not found:
            return None
        return stopping(found, dataset, current_purpose(), writing=writing)

    async def admit(
        self,
        dataset: Dataset,
        tags: Iterable[bytes],
        *,
        writing: bool,
        consents: Consents,
        log: AuditLog,
        transaction: Transaction | None = None,
    ) -> None:
        """Let a use of people's data through, or refuse it. What restricted data is used for all the same is audited.

        Raises:
            ProcessingRestricted: something stands against it.
            ConsentRequired: the use rests on a consent that does not hold.
        """
        for tag in dict.fromkeys(tags):
            mark = self.against(dataset, tag, writing=writing)
            if mark is None:
                continue
            use = current_restricted_use()
            if mark.kind != "restriction" or use is None:
                raise refused(dataset, mark)
            objections = [one for one in self.marks.get(tag, ()) if one.kind == "objection"]
            objected = stopping(objections, dataset, current_purpose(), writing=writing)
            if objected is not None:
                raise refused(dataset, objected)
            details: dict[str, Any] = {
                "request": mark.request,
                "ground": use.ground,
                "reason": use.reason,
                "writes": writing,
            }
            if use.consent is not None:
                details["consents"] = await consents.check_tag(tag, use.consent, transaction=transaction)
            entry = {
                "action": "restricted_use",
                "handle": mark.handle,
                "actor": current_actor(),
                "dataset": dataset.label,
                "details": details,
            }
            session: Any = needs(log.provider, "session")
            if transaction is not None and transaction.provider is log.provider:
                session = transaction
            await log.append_many(session, [entry])


def _heard(asking: asyncio.Task[None]) -> None:
    """Take note of how a question ended: whoever needs the answer asks again, and is told."""
    if not asking.cancelled():
        asking.exception()


def refused(dataset: Dataset, mark: Mark) -> ProcessingRestricted:
    """The error that says what stands against a use."""
    if mark.kind == "restriction":
        message = (
            f"{dataset.label}: the person's data is restricted (GDPR Art. 18, request {mark.request}): it is stored, "
            "and not used. db.subject_requests.lift ends that; datavern.restricted_use(…) is the way through on a "
            "ground of Art. 18(2)"
        )
    else:
        purposes = ", ".join(p for p in mark.reach.get(dataset.label, ()) if p) or "it"
        message = (
            f"{dataset.label}: the person objected to {purposes} (GDPR Art. 21, request {mark.request}): the data is "
            "not used for that. db.subject_requests.lift records compelling grounds"
        )
    return ProcessingRestricted(message, request=mark.request, reason=mark.kind)


def not_erased(request: str) -> str:
    """Why a person whose data is restricted is not erased."""
    return (
        f"the person's data is restricted (GDPR Art. 18, request {request}), and may be kept because the person asked "
        f"for that: lift the restriction first (db.subject_requests.lift, `datavern subject lift {request}`)"
    )
