"""The fulfilment of one subject request: what is done for each kind of it, from the journal's entry to the answer."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
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
from datavern.privacy.erasure.erasure import TOGETHER, Done, Erasures
from datavern.privacy.erasure.survey import recipients
from datavern.privacy.journal.journal import Entry, Journal
from datavern.privacy.journal.values import Receipt, SubjectRequest, SubjectResponse
from datavern.privacy.requests.answers import Found, counted, gathered
from datavern.privacy.requests.rectification import plan, rectify
from datavern.privacy.requests.register import Register, asked, entry_of, identity_of, rejected, renewed
from datavern.privacy.requests.restriction import Restrictions

if TYPE_CHECKING:
    from datavern.privacy.requests.letter import AccessLetter
    from datavern.privacy.service import Privacy

__all__ = ["Fulfilment"]

_RESUMED = ("rectification", "restriction", "objection")
"""What is gone on with beside erasures: it changes something by itself. An answer is for somebody to fetch."""


class Fulfilment:
    """What is asked, done: each request once, and answered from the journal when it is asked again.

    Args:
        privacy: the datasets, the ledger.
        journal: where each request stands.
        register: what is said of a request before, and after, it is worked on.
        erasures: carries erasures out.
        restrictions: carries restrictions and objections out.
    """

    def __init__(
        self, privacy: Privacy, journal: Journal, register: Register, erasures: Erasures, restrictions: Restrictions
    ) -> None:
        self._privacy = privacy
        self._journal = journal
        self._register = register
        self._erasures = erasures
        self._restrictions = restrictions

    async def process(self, request: SubjectRequest | str) -> SubjectResponse:
        """As `SubjectRequests.process`."""
        entry = await self._taken(request)
        if entry.outcome == "rejected":
            return rejected(entry, entry.details.get("answer") or {})
        if entry.completed_at is None:
            self._register.identified(entry)
        return await self._work(entry)

    async def resume(self) -> list[SubjectResponse | Receipt]:
        """Go on with what work had begun on and nobody finished: for each its answer, or what still waits.

        Never raises for a store that is still down.
        """
        finished: list[SubjectResponse | Receipt] = []
        entries = [entry for entry in await self._journal.unfinished() if entry.begun_at is not None]
        erasures = [entry for entry in entries if entry.kind == "erasure"]
        for at in range(0, len(erasures), TOGETHER):
            group = erasures[at : at + TOGETHER]
            for entry, done in zip(group, await self._erasures.run(group), strict=True):
                finished.append(await self.told(entry, done))
        for entry in entries:
            if entry.kind not in _RESUMED:
                continue
            try:
                finished.append(await self._work(entry))
            except RequestIncomplete as error:
                finished.append(error.receipt)
            except (SubjectRequestRejected, RestoreForbidden) as error:
                finished.append(Receipt(entry.id, waiting={entry.kind: str(error)}))
        return finished

    async def told(self, entry: Entry, done: Done | Receipt) -> SubjectResponse | Receipt:
        """What an erasure came to, as its answer; one that waits is a receipt, and it is written down for what."""
        return _erased(entry, done) if isinstance(done, Done) else await self._waits(done)

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

            letter = self._letter(entry, found, response)
            response = replace(response, information=found.information, letters=RIGHTS, letter=letter)
        return replace(response, data=found.data, files=files, masked=found.masked)

    def _letter(self, entry: Entry, found: Found, response: SubjectResponse) -> AccessLetter:
        from datavern.privacy.requests.letter import AccessLetter, Sender  # noqa: PLC0415  (only for such requests)

        privacy = self._privacy
        return AccessLetter(
            sender=Sender(privacy.organisation, privacy.contact, privacy.dpo),
            subject=entry.subject,
            request=entry.id,
            received=entry.received,
            completed=response.completed_at,
            identity=response.identity,
            data=found.data,
            information=found.information,
            datasets=found.datasets,
            masked=found.masked,
        )

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
