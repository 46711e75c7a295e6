"""Subject requests: what the people whom the data is about may ask for (GDPR Arts. 15-21).

Each is in the journal before work on it begins, and is done once: asked again by its id, it is answered from there.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import (
    ConfigurationError,
    ErasureIncomplete,
    KeyErased,
    ProviderError,
    RequestIncomplete,
    RestoreForbidden,
    SubjectRequestRejected,
)
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import timestamp
from datavern.privacy.erasure.completing import Completions
from datavern.privacy.erasure.erasure import TOGETHER, Done, Erasures, recipients
from datavern.privacy.erasure.restoring import Replayed, Restores
from datavern.privacy.journal.journal import Entry, Journal
from datavern.privacy.journal.values import (
    Extension,
    Ground,
    Identity,
    Kind,
    OpenRequest,
    Receipt,
    SubjectRequest,
    SubjectResponse,
)
from datavern.privacy.requests.answers import counted, gathered
from datavern.privacy.requests.rectification import plan, rectify
from datavern.privacy.requests.register import Register, asked, entry_of, identity_of, rejected, renewed
from datavern.privacy.requests.restriction import Restrictions

if TYPE_CHECKING:
    from datavern.audit.checkpoint import Checkpoint
    from datavern.privacy.certificate.certificate import Certificate
    from datavern.privacy.consent.standing import Mark
    from datavern.privacy.service import Privacy

__all__ = ["Kind", "Receipt", "SubjectRequest", "SubjectRequests", "SubjectResponse"]

_RESUMED = ("rectification", "restriction", "objection")
"""What is gone on with beside erasures: it changes something by itself. An answer is for somebody to fetch."""


class SubjectRequests:
    """Requests, answered in every dataset of every database.

    Args:
        privacy: what they need: the datasets, the keys, the journal's database, the signature.
    """

    def __init__(self, privacy: Privacy) -> None:
        self._privacy = privacy
        self._journal = Journal(privacy.ledger, privacy.keys)
        self._erasures = Erasures(privacy, self._journal)
        self._register = Register(privacy, self._journal)
        self.completions = Completions(privacy)
        self._restrictions = Restrictions(privacy)
        self._restores = Restores(privacy, self._journal, self._erasures)

    async def receive(self, request: SubjectRequest) -> OpenRequest:
        """Write a request down on the day it comes; `process` takes its id when the time has come. Idempotent.

        Raises:
            SubjectRequestRejected: a request of that id is closed, or another one.
        """
        return await self._register.receive(request)

    async def process(self, request: SubjectRequest | str) -> SubjectResponse:
        """Do what is asked.

        Idempotent by the request's id: what is done is not done again, and the answer is the same; the data of an
        access request is read anew. An erasure is safe to ask for under a new id, too: an open one is gone on with.

        Args:
            request: the request, or the id of one that was received.

        Raises:
            SubjectRequestRejected: nobody has made sure who asks where that is needed; a rectification cannot be made
                as it stands; the person to be erased is restricted; an objection to a purpose that there is not.
            RequestIncomplete: a store could not be reached (of an erasure: `ErasureIncomplete`). What could be done is
                done; the request stays open. Erasures and rectifications are finished by `resume` (so does opening the
                manager again), the others by asking again. `receipt` says which store waits.
            ConfigurationError: the live schema lacks what the data map says. Nothing was changed.
        """
        entry = await self._taken(request)
        if entry.outcome == "rejected":
            return rejected(entry, entry.details.get("answer") or {})
        if entry.completed_at is None:
            self._register.identified(entry)
        return await self._work(entry)

    def erase_many(
        self,
        subjects: Iterable[Any],
        *,
        received: dt.date | None = None,
        identity: Identity | None = None,
        batch: str = "",
    ) -> AsyncIterator[tuple[str, SubjectResponse | Receipt]]:
        """Erase many people, some hundred at a time: ``async for subject, answer in …erase_many(ids)``.

        Each has a request, a journal entry and a certificate of their own, and each is finished after a crash like any
        other erasure. One that waits (a `Receipt`) stops nobody else.

        Args:
            subjects: who; one who is named twice is erased once.
            received: the day on which the requests came; today when left out.
            identity: how it was made sure who asks, the same for all of them.
            batch: a name for all of them: given again with the same people, those that are done are told as they were
                done, and not erased again. So a batch that was cut off goes on.

        Raises:
            ConfigurationError: one of them can name nobody (the message says which, by its number: nobody was erased);
                or the live schema lacks what the data map says, and nobody else was erased.
            SubjectRequestRejected: the settings ask for an identity, and there is none. Nobody was erased.
        """
        from datavern.privacy.requests.batches import Batch  # noqa: PLC0415  (few erase people by the hundred)

        parts = (self._erasures, self._journal, self._register, self._privacy.keys)
        found = Batch(*parts, subjects, name=batch, received=received, identity=identity).run()

        async def answers() -> AsyncIterator[tuple[str, SubjectResponse | Receipt]]:
            async for entry, done in found:
                yield entry.subject, await self._waits(done) if isinstance(done, Receipt) else _erased(entry, done)

        return answers()

    async def resume(self) -> list[SubjectResponse | Receipt]:
        """Finish what a crash, or a store that was down, left open: for each request its answer, or what still waits.

        Called when the manager opens. Never raises for a store that is still down.
        """
        finished: list[SubjectResponse | Receipt] = []
        entries = [entry for entry in await self._journal.unfinished() if entry.begun_at is not None]
        erasures = [entry for entry in entries if entry.kind == "erasure"]
        for at in range(0, len(erasures), TOGETHER):
            group = erasures[at : at + TOGETHER]
            for entry, done in zip(group, await self._erasures.run(group), strict=True):
                finished.append(_erased(entry, done) if isinstance(done, Done) else await self._waits(done))
        for entry in entries:
            if entry.kind not in _RESUMED:
                continue
            try:
                finished.append(await self._work(entry))
            except RequestIncomplete as error:
                finished.append(error.receipt)
            except (SubjectRequestRejected, RestoreForbidden) as error:
                finished.append(Receipt(entry.id, waiting={entry.kind: str(error)}))
        finished += await self.completions.due()
        return finished

    async def restoring(self, database: str, *, since: dt.datetime) -> None:
        """Say that a database is about to be set back to a backup: its personal data is shut until `replay`.

        What a restore calls first. A relational database that was restored without this is found out when a manager
        opens; documents, files, keys and values are not.

        Args:
            database: its name.
            since: when the backup was made, or before.

        Raises:
            ConfigurationError: no such database with personal data, or no moment in the past with a time zone.
        """
        await self._restores.begin(database, since=since)

    async def replay(self, database: str, *, since: dt.datetime | None = None) -> Replayed:
        """Do every erasure again of which a restored database has not heard; then its personal data opens. Idempotent.

        What a restore calls last. Rows of people who came back after their erasure, and are in the backup, stay.

        Args:
            database: its name.
            since: when the backup was made, or before. Needed for stores without tables, where `restoring` did not say
                it: they cannot tell by themselves which erasures they know of.

        Raises:
            ErasureIncomplete: a row cannot go as it stands; `receipt` says what waits. The database stays shut.
            ConfigurationError: no such database with personal data, or `since` is missing.
        """
        return await self._restores.replay(database, since=since)

    async def check_restored(self) -> None:
        """Find the databases that were set back, and replay into them. Called when the manager opens, before `resume`.

        Never raises for a store that is still down: what cannot be told, or done, leaves personal data shut.
        """
        await self._restores.look()

    async def open(self) -> list[OpenRequest]:
        """Every request that is not answered yet, with its deadline and what it waits for; the most urgent first."""
        return await self._register.open()

    async def identify(self, request: str, identity: Identity) -> OpenRequest:
        """Record how it was made sure that a received request is the person's own (GDPR Art. 12(2) and (6)).

        Raises:
            SubjectRequestRejected: no such request, or it is answered already.
        """
        return await self._register.identify(request, identity)

    async def doubt(self, request: str, *, reason: str) -> OpenRequest:
        """Record reasonable doubts about who asks (GDPR Art. 12(6)): nothing is done until `identify`.

        The deadline stays: whether the time that the person takes to answer counts is for a lawyer to say.

        Args:
            request: its id.
            reason: what the person was asked for, and why.

        Raises:
            SubjectRequestRejected: no reason, no such request, or it is answered already.
        """
        return await self._register.doubt(request, reason)

    async def extend(self, request: str, *, reason: str) -> Extension:
        """Take two further months, because the request is complex or there are many (GDPR Art. 12(3)).

        The person is to be told, with the reason, within the first month: `Extension.letters` says it.

        Raises:
            SubjectRequestRejected: no reason, no such open request, it was extended before, or the first month is over.
        """
        return await self._register.extend(request, reason)

    async def reject(
        self, request: SubjectRequest | str, reason: str, *, ground: Ground = "unfounded"
    ) -> SubjectResponse:
        """Refuse a request, and say why (GDPR Art. 12(4) and (5)). To show that it is so is for the organisation.

        Args:
            request: the request, or its id.
            reason: for the person.
            ground: "unfounded" (manifestly), "excessive", "unidentified", or "exempt" (say which law).

        Raises:
            SubjectRequestRejected: no reason, no such open request, or work on it has begun.
        """
        return await self._register.reject(request, reason, ground)

    async def standing(self, subject: object) -> list[Mark]:
        """What stands against the use of a person's data now: restrictions and objections, the oldest first."""
        return await self._restrictions.standing(subject)

    async def lift(
        self, request: str, *, informed: dt.date | None = None, reason: str = "", by_person: bool = False
    ) -> SubjectResponse:
        """Lift a restriction, or end an objection. In effect in every process within a second.

        Args:
            request: the id of the request that it follows from; `standing` tells it.
            informed: of a restriction: the day on which the person was told that it will be lifted (Art. 18(3)).
            reason: of an objection: the compelling legitimate grounds that override it (Art. 21(1)). It is written to
                the audit log.
            by_person: of an objection: the person takes it back.

        Raises:
            SubjectRequestRejected: nothing of that id stands; nobody was told of it; no grounds were given, or it is an
                objection to direct marketing, which nothing overrides.
        """
        mark, at = await self._restrictions.lift(request, informed=informed, reason=reason, by_person=by_person)
        message = f"Lifted: the {mark.kind} of {mark.since[:10]}."
        return SubjectResponse(True, message, dt.datetime.fromisoformat(at), request_id=request)

    async def certificate(self, request_id: str, *, within: Checkpoint | str | None = None) -> Certificate | None:
        """The certificate of an erasure that is done, or None; with the proofs of its entries, once the log is sealed.

        One that had to leave rows has two: the second, once these ended too, is that of ``<request id>-completed``.

        Args:
            request_id: the erasure's.
            within: a checkpoint that whoever is to be convinced has kept; the first that covered an entry when None.

        Raises:
            LogTampered: the log does not hold the entries of the erasure as they were sealed.
        """
        found = await self._erasures.certificate(request_id) or await self.completions.certificate(request_id)
        if found is None:
            return None
        from datavern.privacy.certificate.proofs import proven  # noqa: PLC0415  (only for certificates)

        return await proven(self._privacy, found, within)

    async def shredded(self, subject: object) -> Certificate:
        """The second signed statement: from when on not even old backups can bring a person's sealed data back.

        Its conditions: the erasure is done; a rotation of the keys that began after it has ended; the old epoch key is
        beyond what its vault keeps for a while; and nobody holds recovery shares that could bring it back.

        Args:
            subject: whose.

        Raises:
            SubjectRequestRejected: nobody of that id was erased.
            ErasureIncomplete: a condition does not hold yet; the message says which, and what to do.
            KeyUnavailable: the vault cannot be asked.
        """
        from datavern.privacy.erasure.shredded import shredded  # noqa: PLC0415  (asked for once a month at the most)

        return await shredded(self._privacy, subject)

    # ---- one request ------------------------------------------------------------------------------------------------

    async def _taken(self, request: SubjectRequest | str) -> Entry:
        """The request as the journal has it, or a new entry that is not written down yet."""
        if isinstance(request, str):
            return await self._register.by_id(request)
        if not isinstance(request, SubjectRequest):
            raise SubjectRequestRejected("expected SubjectRequest(…), or the id of a request that was received")
        entry = await self._register.known(request)
        if entry is None and request.kind == "erasure":
            subject = canonical_subject(request.subject)
            entry = (await self._journal.open_of((subject,), "erasure")).get(subject)
        if entry is None:
            return entry_of(request)
        if entry.completed_at is not None:
            return replace(entry, subject=canonical_subject(request.subject))
        if request.identity is not None and identity_of(entry) is None:
            await self._register.identify(entry.id, request.identity)
        return renewed(entry, request)

    async def _work(self, entry: Entry) -> SubjectResponse:
        works = {
            "access": self._access,
            "portability": self._access,
            "rectification": self._rectify,
            "erasure": self._erase,
            "restriction": self._restrict,
            "objection": self._restrict,
        }
        try:
            return await works[entry.kind](entry)
        except RequestIncomplete as error:
            await self._waits(error.receipt)
            raise

    async def _waits(self, receipt: Receipt) -> Receipt:
        """Write down what a request waits for, if the ledger can be asked."""
        with suppress(ProviderError):
            await self._journal.waits(receipt.request_id, receipt.waiting)
        return receipt

    async def _erase(self, entry: Entry) -> SubjectResponse:
        if entry.completed_at is not None:
            done = await self._erasures.done(entry.id) or Receipt(entry.id)
        elif entry.begun_at is not None:
            (done,) = await self._erasures.run([entry])
        else:
            (done,) = await self._erasures.erase([entry])
        if isinstance(done, Receipt):
            raise ErasureIncomplete(
                f"the erasure {entry.id} waits for {', '.join(done.waiting)}; it is open, and goes on when the manager "
                "opens",
                done,
            )
        return _erased(entry, done)

    async def _rectify(self, entry: Entry) -> SubjectResponse:
        privacy = self._privacy
        if entry.completed_at is not None:
            return _answered(entry)
        planned = await plan(privacy, entry.id, entry.subject, asked(entry).get("changes"))
        entry = await self._begun(entry)
        try:
            changed = await rectify(privacy, entry.id, entry.subject, planned)
        except SubjectRequestRejected as error:
            await self._stuck(entry, error)
            raise
        if planned.waiting:
            waits = ", ".join(planned.waiting)
            done = {label: {"changed": number} for label, number in changed.items()}
            raise RequestIncomplete(
                f"the rectification {entry.id} waits for {waits}; it is open, and goes on when the manager opens"
                f"{'; changed already: ' + ', '.join(done) if done else ''}",
                Receipt(entry.id, done, planned.waiting),
            )
        told = recipients(await privacy.stores(), found={label: {"found": n} for label, n in changed.items()})
        answer = {"message": f"Changed: {', '.join(changed)}.", "changed": changed, "recipients": told}
        return await self._completed(entry, answer, changed=changed)

    async def _restrict(self, entry: Entry) -> SubjectResponse:
        if entry.completed_at is not None:
            return _answered(entry)
        entry = await self._begun(entry)
        works = {"restriction": self._restrictions.restrict, "objection": self._restrictions.object_to}
        try:
            answer = await works[entry.kind](entry)
        except (SubjectRequestRejected, ConfigurationError, KeyErased):
            await self._journal.unbegin(entry.id)
            raise
        return await self._completed(entry, answer)

    async def _stuck(self, entry: Entry, error: SubjectRequestRejected) -> None:
        """A rectification that cannot be made as it stands is open, and waits for right values, or for a refusal."""
        await self._journal.waits(entry.id, {"rectification": str(error)})
        sites = {self._privacy.personal(name).dataset.database for name in asked(entry).get("changes") or ()}
        if not any([await self._privacy.site(name).steps.done(entry.id) for name in sites]):
            await self._journal.unbegin(entry.id)

    async def _access(self, entry: Entry) -> SubjectResponse:
        if not entry.subject:
            raise SubjectRequestRejected("the request is answered, and whose it was is not kept: give it whole again")
        entry = entry if entry.completed_at is not None else await self._begun(entry)
        found = await gathered(self._privacy, entry.subject, derived=entry.kind == "access")
        if found.waiting:
            raise RequestIncomplete(
                f"the request {entry.id} waits for {', '.join(found.waiting)}; it is open: ask again",
                Receipt(entry.id, waiting=found.waiting),
            )
        numbers = {label: len(rows) for label, rows in found.data.items()}
        answer = {"message": counted(numbers), "found": numbers}
        response = await self._completed(entry, answer, found=numbers, masked=sum(m.times for m in found.masked))
        files = None
        if entry.kind == "portability":
            from datavern.privacy.requests.portability import portable  # noqa: PLC0415  (only for such requests)

            files = portable(found.data, asked(entry).get("format") or "json", found.masked)
        elif entry.kind == "access":
            from datavern.privacy.datamap.information import RIGHTS  # noqa: PLC0415  (only for such requests)

            response = replace(response, information=found.information, letters=RIGHTS)
        return replace(response, data=found.data, files=files, masked=found.masked)

    async def _begun(self, entry: Entry) -> Entry:
        if entry.begun_at is not None:
            return entry
        key = await self._journal.key()
        async with needs(self._privacy.ledger, "transactions").transaction() as tx:
            held = await self._journal.held(entry.id, tx) if entry.known else None
            if held is not None:  # what was said of it since it was read stands
                new = {name: entry.details[name] for name in ("identity", "asked") if entry.details.get(name)}
                if held.details.get("doubt") and held.details.get("identity") is None:
                    new.pop("identity", None)
                entry = replace(held, details={**held.details, **new})
                self._register.identified(entry)
                if held.completed_at is None:
                    entry = await self._journal.note(entry, tx, key=key)
            (begun,) = await self._journal.begin([entry], tx, key=key)
        return begun

    async def _completed(self, entry: Entry, answer: Mapping[str, Any], **told: Any) -> SubjectResponse:
        """Close a request with its audit entry, and answer; a request that is closed is answered as it was."""
        if entry.completed_at is None:
            answer = {**answer, "completed": timestamp()}
            key = await self._journal.key()
            if entry.details.get("identity"):
                told = {**told, "identity": entry.details["identity"]}
            async with needs(self._privacy.ledger, "transactions").transaction() as tx:
                held = await self._journal.held(entry.id, tx)
                if held is not None and await self._journal.complete(held, tx, key=key, answer=answer):
                    await self._register.audit(tx, f"{entry.kind}_request", entry, **told)
                    return _answered(held, answer)
            entry = await self._register.by_id(entry.id)  # another process has completed it
            if entry.outcome == "rejected":
                raise SubjectRequestRejected("the request was refused meanwhile")
        elif entry.kind in ("access", "portability"):
            async with needs(self._privacy.ledger, "transactions").transaction() as tx:
                await self._register.audit(tx, f"{entry.kind}_repeated", entry, **told)
        return _answered(entry)


def _erased(entry: Entry, done: Done) -> SubjectResponse:
    return SubjectResponse(
        success=True,
        message=done.message,
        completed_at=dt.datetime.fromisoformat(done.completed_at),
        certificate=done.certificate,
        request_id=str(done.certificate.body["request"]),
        identity=identity_of(entry),
        deadline=entry.deadline,
        recipients=done.certificate.body.get("recipients") or {},
    )


def _answered(entry: Entry, answer: Mapping[str, Any] | None = None) -> SubjectResponse:
    said = answer if answer is not None else entry.details.get("answer") or {}
    return SubjectResponse(
        success=said.get("success", True),
        message=said.get("message", ""),
        completed_at=dt.datetime.fromisoformat(said.get("completed") or entry.completed_at or timestamp()),
        request_id=entry.id,
        identity=identity_of(entry),
        deadline=entry.deadline,
        recipients=said.get("recipients") or {},
        decisions=said.get("decisions") or (),
        found=(said.get("found") or {}) if entry.kind == "restriction" else {},
    )
