"""Subject requests: what the people whom the data is about may ask for (GDPR Arts. 15-21).

Each is in the journal before work on it begins, and is done once: asked again by its id, it is answered from there.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

from datavern.privacy.erasure.completing import Completions
from datavern.privacy.erasure.erasure import Erasures
from datavern.privacy.erasure.restoring import Replayed, Restores
from datavern.privacy.journal.journal import Journal
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
from datavern.privacy.requests.fulfilment import Fulfilment
from datavern.privacy.requests.register import Register
from datavern.privacy.requests.restriction import Restrictions

if TYPE_CHECKING:
    from datavern.audit.checkpoint import Checkpoint
    from datavern.privacy.certificate.certificate import Certificate
    from datavern.privacy.consent.standing import Mark
    from datavern.privacy.service import Privacy

__all__ = ["Kind", "Receipt", "SubjectRequest", "SubjectRequests", "SubjectResponse"]


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
        self._fulfilment = Fulfilment(privacy, self._journal, self._register, self._erasures, self._restrictions)
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
        return await self._fulfilment.process(request)

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
                yield entry.subject, await self._fulfilment.told(entry, done)

        return answers()

    async def resume(self) -> list[SubjectResponse | Receipt]:
        """Finish what a crash, or a store that was down, left open: for each request its answer, or what still waits.

        Called when the manager opens. Never raises for a store that is still down.
        """
        return [*await self._fulfilment.resume(), *await self.completions.due()]

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
