"""The register of requests: received, identified, put off, refused; and which are open, until when (GDPR Art. 12).

What is said about a request (how the person was identified, why an answer is late or refused) is kept sealed, and goes
with the person. The audit log says that it happened, who did it, and no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, get_args

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConstraintViolated, SubjectRequestRejected
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import current_actor, now, timestamp, today
from datavern.privacy.consent.standing import not_erased
from datavern.privacy.journal.journal import Entry
from datavern.privacy.journal.values import (
    Extension,
    Ground,
    Identity,
    OpenRequest,
    SubjectRequest,
    SubjectResponse,
)
from datavern.privacy.requests.rectification import packed, unpacked
from datavern.privacy.values.deadlines import extended_deadline

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Transaction
    from datavern.privacy.journal.journal import Journal
    from datavern.privacy.service import Privacy

__all__ = ["Register", "asked", "entry_of", "identity_of"]

_GROUNDS: Final = {
    "unfounded": ("it is manifestly unfounded (GDPR Art. 12(5))", "den er åpenbart grunnløs (GDPR art. 12 nr. 5)"),
    "excessive": ("it is excessive (GDPR Art. 12(5))", "den er overdreven (GDPR art. 12 nr. 5)"),
    "unidentified": (
        "we could not make sure that it is your own (GDPR Arts. 11(2) and 12(2))",
        "vi kunne ikke fastslå at den er din egen (GDPR art. 11 nr. 2 og art. 12 nr. 2)",
    ),
    "exempt": ("the law makes an exception", "loven gjør et unntak"),
}
_RIGHTS: Final = {
    "en": "You may complain to the Norwegian Data Protection Authority, Datatilsynet (datatilsynet.no; GDPR Art. 77), "
    "and you may take the matter to court (Art. 79).",
    "nb": "Du kan klage til Datatilsynet (datatilsynet.no; GDPR art. 77), og du kan bringe saken inn for domstolene "
    "(art. 79).",
}
_LONGEST_REASON = 2000


class Register:
    """The requests, before and beside the work on them.

    Args:
        privacy: the ledger, the keys, the audit log.
        journal: where they are written down.
    """

    def __init__(self, privacy: Privacy, journal: Journal) -> None:
        self._privacy = privacy
        self._journal = journal

    async def receive(self, request: SubjectRequest) -> OpenRequest:
        """See `SubjectRequests.receive`."""
        entry = entry_of(request)
        key = await self._journal.key()
        try:
            async with self._transaction() as tx:
                await self._journal.receive([entry], tx, key=key)
                await self.audit(tx, "request_received", entry, identity=entry.details.get("identity"))
        except ConstraintViolated:
            known = await self.known(request)
            if known is None or known.completed_at is not None:
                raise SubjectRequestRejected("a request of that id is closed: make a new one") from None
            entry = known
        return self._shown(entry)

    async def known(self, request: SubjectRequest) -> Entry | None:
        """The journal's entry of that request, or None where its id is new.

        Raises:
            SubjectRequestRejected: the id is that of another kind of request, or of another person's.
        """
        entry = await self._journal.read(request.id)
        if entry is None:
            return None
        theirs = entry.subject_tag == self._privacy.keys.subject_tag(canonical_subject(request.subject))
        if not theirs and entry.kind == "erasure" and entry.completed_at is not None:
            theirs = await self._certified(request)
        if entry.kind != request.kind or not theirs:
            raise SubjectRequestRejected("a request of that id is there, and is another one, or its person was erased")
        return entry

    async def _certified(self, request: SubjectRequest) -> bool:
        """Whether an erasure that is done was that person's: its certificate alone says so by now."""
        from datavern.privacy.certificate.certificate import Certificate  # noqa: PLC0415  (few requests come twice)

        text = await self._journal.certificate(request.id)
        body = {} if text is None else Certificate.from_json(text).body
        return bool(body.get("subject") == canonical_subject(request.subject))

    async def by_id(self, request: str) -> Entry:
        """The open or closed request of that id.

        Raises:
            SubjectRequestRejected: there is none.
        """
        entry = await self._journal.read(request)
        if entry is None:
            raise SubjectRequestRejected("no request of that id was received")
        return entry

    async def identify(self, request: str, identity: Identity) -> OpenRequest:
        """See `SubjectRequests.identify`."""
        if not isinstance(identity, Identity):
            raise SubjectRequestRejected('identity: expected Identity(method="bankid")')
        found = identity.as_json()
        return self._shown(await self._noted(request, "request_identified", {"identity": found}, identity=found))

    async def doubt(self, request: str, reason: str) -> OpenRequest:
        """See `SubjectRequests.doubt`."""
        said = {"reason": _reason(reason), "at": timestamp(), "by": current_actor()}
        return self._shown(await self._noted(request, "request_doubted", {"identity": None, "doubt": said}))

    async def _noted(self, request: str, action: str, details: Mapping[str, Any], **told: Any) -> Entry:
        key = await self._journal.key()
        async with self._transaction() as tx:
            entry = await self._held(request, tx)
            noted = await self._journal.note(entry, tx, key=key, **details)
            await self.audit(tx, action, entry, **told)
        return noted

    async def extend(self, request: str, reason: str) -> Extension:
        """See `SubjectRequests.extend`."""
        why = _reason(reason)
        key = await self._journal.key()
        async with self._transaction() as tx:
            entry = await self._held(request, tx)
            if entry.extended_at is not None:
                raise SubjectRequestRejected("the deadline was extended before, and can be once (GDPR Art. 12(3))")
            if today() > entry.deadline:
                raise SubjectRequestRejected(
                    f"too late: the person had to be told of the extension by {entry.deadline.isoformat()}, within one "
                    "month of the request (GDPR Art. 12(3)): answer as soon as you can"
                )
            until = extended_deadline(entry.received)
            said = {"reason": why, "at": timestamp(), "by": current_actor()}
            if not await self._journal.extend(entry, until, tx, key=key, extension=said):
                raise SubjectRequestRejected("the deadline was extended before, and can be once (GDPR Art. 12(3))")
            await self.audit(tx, "request_extended", entry, deadline=until.isoformat())
        letters = {
            "en": f"Your request of {entry.received.isoformat()} takes longer: {why} You will have our answer by "
            f"{until.isoformat()} (GDPR Art. 12(3)). {_RIGHTS['en']}",
            "nb": f"Henvendelsen din av {entry.received:%d.%m.%Y} tar lengre tid: {why} Du får svar innen "
            f"{until:%d.%m.%Y} (GDPR art. 12 nr. 3). {_RIGHTS['nb']}",
        }
        return Extension(entry.id, until, entry.deadline, letters)

    async def reject(self, request: SubjectRequest | str, reason: str, ground: Ground) -> SubjectResponse:
        """See `SubjectRequests.reject`."""
        why = _reason(reason)
        if ground not in get_args(Ground):
            raise SubjectRequestRejected(f"ground: expected one of {', '.join(get_args(Ground))}")
        entry = await self.by_id(request) if isinstance(request, str) else await self.known(request)
        key = await self._journal.key()
        answer = {"ground": ground, "reason": why, "by": current_actor(), "completed": timestamp()}
        async with self._transaction() as tx:
            if entry is None:
                entry = entry_of(request)  # type: ignore[arg-type]  # `by_id` has raised for an id
                await self._journal.receive([entry], tx, key=key)
            else:
                entry = await self._held(entry.id, tx)
            if entry.begun_at is not None and entry.kind not in ("access", "portability"):
                raise SubjectRequestRejected("work on the request has begun: it cannot be refused any more")
            await self._journal.complete(entry, tx, key=key, answer=answer, outcome="rejected")
            await self.audit(tx, "request_rejected", entry, ground=ground)
        return rejected(entry, answer)

    async def open(self) -> list[OpenRequest]:
        """See `SubjectRequests.open`."""
        found = [self._shown(entry) for entry in await self._journal.unfinished()]
        return sorted(found, key=lambda one: (one.deadline, one.id))

    def identified(self, entry: Entry) -> None:
        """Refuse to work on a request of somebody who may not be the person.

        Raises:
            SubjectRequestRejected: the settings ask for an identity, or somebody had doubts, and none is recorded.
        """
        if entry.begun_at is not None or identity_of(entry) is not None:
            return
        if self._privacy.require_identity or entry.details.get("doubt"):
            raise SubjectRequestRejected(
                "identity: make sure that the person asks, and say how: identity=Identity(method='bankid'), or "
                "`datavern subject … --identity bankid` (GDPR Art. 12(2) and (6))"
            )

    async def restricted(self, subjects: Sequence[str]) -> dict[str, str]:
        """Those of the people who cannot be erased now → why."""
        found = await self._privacy.standing.restricted(subjects)
        return {subject: not_erased(request) for subject, request in found.items()}

    async def audit(self, tx: Transaction, action: str, entry: Entry, **details: Any) -> str:
        """An audit entry about a request, under the person's handle; an erasure's names no handle (see `erasure`)."""
        handle = None
        if entry.kind != "erasure" and entry.subject:
            handle = await self._privacy.keys.handle(entry.subject, create=False, session=tx)
        said = {"request": entry.id, "kind": entry.kind, **details}
        return await self._privacy.ledger_log.append(tx, action=action, handle=handle, details=said)

    async def _held(self, request: str, tx: Transaction) -> Entry:
        entry = await self._journal.held(request, tx)
        if entry is None:
            raise SubjectRequestRejected("no request of that id was received")
        if entry.completed_at is not None:
            raise SubjectRequestRejected("the request is answered already")
        return entry

    def _transaction(self) -> Any:
        return needs(self._privacy.ledger, "transactions").transaction()

    def _shown(self, entry: Entry) -> OpenRequest:
        identity = identity_of(entry)
        waits: list[str] = []
        if identity is None and entry.begun_at is None:
            if entry.details.get("doubt"):
                waits.append("proof of who the person is was asked for: `identify` when it has come")
            elif self._privacy.require_identity:
                waits.append("it is to be made sure that the person asks: `identify`")
        waits += [f"{label}: {why}" for label, why in entry.waiting.items()]
        if not waits:
            waits.append("work on it has not begun" if entry.begun_at is None else "it is worked on, or was broken off")
        return OpenRequest(
            entry.id,
            entry.kind,
            entry.subject,
            entry.received,
            entry.deadline,
            entry.extended_at is not None,
            identity,
            entry.begun_at is not None,
            tuple(waits),
            today() > entry.deadline,
        )


def entry_of(request: SubjectRequest) -> Entry:
    """A request, as the journal takes it down."""
    details: dict[str, Any] = {}
    if request.identity is not None:
        details["identity"] = request.identity.as_json()
    if request.kind == "portability":
        details["asked"] = {"format": request.format}
    if request.kind == "restriction":
        details["asked"] = {"datasets": request.datasets and list(request.datasets), "ground": request.ground}
    if request.kind == "objection":
        override = request.override if isinstance(request.override, str | None) else dict(request.override)
        details["asked"] = {"purposes": request.purposes and list(request.purposes), "override": override}
    if request.kind == "rectification" and request.changes:
        details["asked"] = {"changes": packed(request.changes)}
    return Entry(
        request.id,
        request.kind,
        canonical_subject(request.subject),
        request.received,
        request.deadline,
        timestamp(),
        details=details,
    )


def renewed(entry: Entry, request: SubjectRequest) -> Entry:
    """An entry with what its request says anew: who vouches for the person, and other values while none is written."""
    details = dict(entry.details)
    given = entry_of(request).details
    if given.get("identity"):
        details["identity"] = given["identity"]
    if given.get("asked") and entry.begun_at is None:
        details["asked"] = given["asked"]
    return replace(entry, details=details)


def asked(entry: Entry) -> dict[str, Any]:
    """What a request asks for: ``changes`` or ``format``."""
    found = dict(entry.details.get("asked") or {})
    if "changes" in found:
        found["changes"] = unpacked(found["changes"])
    return found


def identity_of(entry: Entry) -> Identity | None:
    """How it was made sure that the person asks."""
    return Identity.from_json(entry.details.get("identity"))


def rejected(entry: Entry, answer: Mapping[str, Any]) -> SubjectResponse:
    """The answer to a request that is refused."""
    english, norwegian = _GROUNDS[answer["ground"]]
    letters = {
        "en": f"We do not do what you ask for in your request of {entry.received.isoformat()}, because {english}: "
        f"{answer['reason']} {_RIGHTS['en']}",
        "nb": f"Vi etterkommer ikke henvendelsen din av {entry.received:%d.%m.%Y}, fordi {norwegian}: "
        f"{answer['reason']} {_RIGHTS['nb']}",
    }
    return SubjectResponse(
        success=False,
        message=letters["en"],
        completed_at=now().fromisoformat(answer["completed"]),
        request_id=entry.id,
        identity=identity_of(entry),
        deadline=entry.deadline,
        letters=letters,
    )


def _reason(text: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise SubjectRequestRejected("reason: missing; the person is told it (GDPR Art. 12(3) to (5))")
    if len(text) > _LONGEST_REASON:
        raise SubjectRequestRejected(f"reason: {_LONGEST_REASON} characters at most")
    reason = text.strip()
    return reason if reason[-1] in ".!?" else f"{reason}."
