"""Subject requests: what the people whom the data is about may ask for (GDPR Arts. 15-21)."""

from __future__ import annotations

import base64
import datetime as dt
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ErasureIncomplete, SubjectRequestRejected
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import now, timestamp
from datavern.privacy.dataset import OWN_DATASETS
from datavern.privacy.erasure import CONSENTS, TOGETHER, Done, Erasures, Receipt
from datavern.privacy.journal import Entry, Journal, new_request_id
from datavern.privacy.rectification import rectify

if TYPE_CHECKING:
    from datavern.privacy.certificate import Certificate
    from datavern.privacy.service import Privacy

__all__ = ["Kind", "Receipt", "SubjectRequest", "SubjectRequests", "SubjectResponse"]

Kind = Literal["access", "rectification", "erasure", "restriction", "portability", "objection"]
_OFFERED = ("access", "rectification", "erasure", "portability")
_ARTICLES = {"restriction": 18, "objection": 21}


def _today() -> dt.date:
    return dt.datetime.now().astimezone().date()


@dataclass(frozen=True, slots=True)
class SubjectRequest:
    """What somebody asks for.

    Attributes:
        kind: "access" (Art. 15), "rectification" (16), "erasure" (17), "restriction" (18), "portability" (20),
            "objection" (21).
        subject: who: the id that the data map calls the subject, in any type that it may have.
        received: the day on which the request came; today when left out. The deadline is counted from it.
        changes: of a rectification: dataset → field → right value.
        format: of a portability request: "json" or "csv".
        id: names the request in the journal, the audit log and the certificate; random.

    Raises:
        SubjectRequestRejected: no such kind, or it was received on no date, or in the future.
        ConfigurationError: `subject` cannot name a person.
    """

    kind: Kind
    subject: Any = field(kw_only=True)
    received: dt.date = field(default_factory=_today, kw_only=True)
    changes: Mapping[str, Mapping[str, Any]] | None = field(default=None, kw_only=True)
    format: Literal["json", "csv"] = field(default="json", kw_only=True)
    id: str = field(default_factory=new_request_id, kw_only=True)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            near = difflib.get_close_matches(str(self.kind), get_args(Kind), n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(get_args(Kind))}"
            raise SubjectRequestRejected(f"no such kind of request; {hint}")
        canonical_subject(self.subject)
        if self.format not in ("json", "csv"):
            raise SubjectRequestRejected("format: expected json or csv")
        if not isinstance(self.received, dt.date):
            raise SubjectRequestRejected("received: expected a date, such as date(2026, 11, 23)")
        if isinstance(self.received, dt.datetime):
            object.__setattr__(self, "received", self.received.date())
        if self.received > _today() + dt.timedelta(days=1):  # a day ahead is still today somewhere
            raise SubjectRequestRejected("received: the day lies in the future")

    @property
    def deadline(self) -> dt.date:
        """The last day to answer: one calendar month from receipt (Art. 12(3), Regulation 1182/71 Art. 3)."""
        from datavern.privacy.deadlines import deadline  # noqa: PLC0415  (only for requests)

        return deadline(self.received)


@dataclass(frozen=True, slots=True)
class SubjectResponse:
    """The answer.

    Attributes:
        success: whether what was asked for is done.
        message: what happened, for people. It does not name the subject.
        completed_at: when, in UTC.
        data: of an access or portability request: ``database.dataset`` → rows, opened, in values that JSON has.
        files: of a portability request: file name → content, in the form that was asked for, with its schema.
        certificate: of an erasure: signed, what was erased where, what is kept, why and until when.
        request_id: the request's id.
    """

    success: bool
    message: str
    completed_at: dt.datetime
    data: dict[str, list[dict[str, Any]]] | None = None
    certificate: Certificate | None = None
    request_id: str = ""
    files: dict[str, bytes] | None = None


class SubjectRequests:
    """Requests, answered in every dataset of every database.

    Args:
        privacy: what they need: the datasets, the keys, the journal's database, the signature.
    """

    def __init__(self, privacy: Privacy) -> None:
        self._privacy = privacy
        self._journal = Journal(privacy.ledger, privacy.keys)
        self._erasures = Erasures(privacy, self._journal)

    async def process(self, request: SubjectRequest) -> SubjectResponse:
        """Do what is asked. An erasure is safe to ask for again: an open one is gone on with, a done one answered.

        Raises:
            SubjectRequestRejected: this kind is not offered yet, or a rectification cannot be made as it stands.
            ErasureIncomplete: a store could not be reached. What could be done is done; the request stays open, and
                `resume` finishes it (so does opening the manager again). `receipt` says which store waits.
            ConfigurationError: the live schema lacks what the data map says. Nothing was changed.
        """
        if request.kind not in _OFFERED:
            raise SubjectRequestRejected(
                f"{request.kind} (GDPR Art. {_ARTICLES[request.kind]}) is not offered yet: "
                f"answer it by hand, by {request.deadline.isoformat()}"
            )
        subject = canonical_subject(request.subject)
        if request.kind in ("access", "portability"):
            return await self._access(request, subject)
        if request.kind == "rectification":
            return await self._rectify(request, subject)
        known = await self._journal.open_of((subject,), "erasure")
        if known:
            (done,) = await self._erasures.run([known[subject]])
        else:
            (done,) = await self._erasures.erase([_entry(request, subject)])
        if isinstance(done, Receipt):
            stores = ", ".join(done.waiting)
            raise ErasureIncomplete(
                f"the erasure {done.request_id} waits for {stores}; it is open, and goes on when the manager opens",
                done,
            )
        return _response(done)

    async def resume(self) -> list[SubjectResponse | Receipt]:
        """Finish what a crash, or a store that was down, left open: for each request its answer, or what still waits.

        Called when the manager opens. Never raises for a store that is still down.
        """
        finished: list[SubjectResponse | Receipt] = []
        entries = await self._journal.unfinished()
        for at in range(0, len(entries), TOGETHER):
            done = await self._erasures.run(entries[at : at + TOGETHER])
            finished += [one if isinstance(one, Receipt) else _response(one) for one in done]
        return finished

    async def certificate(self, request_id: str) -> Certificate | None:
        """The certificate of an erasure that is done, or None."""
        return await self._erasures.certificate(request_id)

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
        from datavern.privacy.shredded import shredded  # noqa: PLC0415  (asked for once a month at the most)

        return await shredded(self._privacy, subject)

    async def _rectify(self, request: SubjectRequest, subject: str) -> SubjectResponse:
        privacy = self._privacy
        changed = await rectify(privacy, request.id, subject, request.changes)
        handle = await privacy.keys.handle(subject, create=False)
        completed = now()
        async with needs(privacy.ledger, "transactions").transaction() as tx:
            await self._journal.begin([_entry(request, subject)], tx, key=None)
            details = {"request": request.id, "changed": changed}
            await privacy.ledger_log.append(tx, action="rectification_request", handle=handle, details=details)
        message = f"Changed: {', '.join(changed)}."
        return SubjectResponse(True, message, completed, request_id=request.id)

    async def _access(self, request: SubjectRequest, subject: str) -> SubjectResponse:
        privacy = self._privacy
        data: dict[str, list[dict[str, Any]]] = {}
        for store in await privacy.stores():
            found = store.of(subject) if await store.exists() else None
            rows = [] if found is None else [readable(row) async for row in found]
            if rows or not store.dataset.name.startswith(OWN_DATASETS):
                data[store.dataset.label] = rows
        consents = [readable(_plain(consent)) for consent in await privacy.consents.list(subject)]
        if consents:
            data[CONSENTS] = consents
        handle = await privacy.keys.handle(subject, create=False)
        number = sum(map(len, data.values()))
        completed = now()
        details = {"request": request.id, "found": {label: len(rows) for label, rows in data.items()}}
        async with needs(privacy.ledger, "transactions").transaction() as tx:
            await self._journal.begin([_entry(request, subject)], tx, key=None)
            await privacy.ledger_log.append(tx, action=f"{request.kind}_request", handle=handle, details=details)
        message = "Nothing was found about this subject." if not number else f"{_count(number)} in {_stores(data)}."
        files = None
        if request.kind == "portability":
            from datavern.privacy.portability import portable  # noqa: PLC0415  (only for such requests)

            files = portable(data, request.format)
        return SubjectResponse(True, message, completed, data=data, request_id=request.id, files=files)


def _response(done: Done) -> SubjectResponse:
    return SubjectResponse(
        success=True,
        message=done.message,
        completed_at=dt.datetime.fromisoformat(done.completed_at),
        certificate=done.certificate,
        request_id=str(done.certificate.body["request"]),
    )


def _entry(request: SubjectRequest, subject: str) -> Entry:
    return Entry(request.id, request.kind, subject, request.received, request.deadline, timestamp())


def readable(value: Any) -> Any:  # noqa: PLR0911  (one return for each kind of value)
    """A value as JSON has it: dates and numbers that JSON lacks as their text, bytes as base64."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else str(value)  # noqa: PLR0124  (NaN alone differs)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, Mapping):
        return {str(key): readable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [readable(inner) for inner in value]
    return str(value)


def _plain(consent: Any) -> dict[str, Any]:
    names = ("id", "purpose", "granted_at", "expires_at", "withdrawn_at", "version")
    return {name: getattr(consent, name) for name in names}


def _count(number: int) -> str:
    return "1 row" if number == 1 else f"{number} rows"


def _stores(data: Mapping[str, list[Any]]) -> str:
    number = sum(1 for rows in data.values() if rows)
    return "1 dataset" if number == 1 else f"{number} datasets"
