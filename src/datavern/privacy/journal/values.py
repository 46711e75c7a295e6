"""What people ask for, how it is known who they are, and what they are answered: values (GDPR Arts. 12, 15-21)."""

from __future__ import annotations

import datetime as dt
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from datavern.contracts.errors import SubjectRequestRejected
from datavern.contracts.subjects import canonical_subject
from datavern.contracts.values import current_actor, now, timestamp, today
from datavern.privacy.journal.journal import new_request_id

if TYPE_CHECKING:
    from datavern.privacy.certificate.certificate import Certificate
    from datavern.privacy.datamap.information import Information
    from datavern.privacy.pages.blocks import Letter

__all__ = [
    "Extension",
    "Ground",
    "Identity",
    "Kind",
    "Masked",
    "OpenRequest",
    "Receipt",
    "SubjectRequest",
    "SubjectResponse",
]

Kind = Literal["access", "rectification", "erasure", "restriction", "portability", "objection"]
RestrictionGround = Literal["accuracy", "unlawful", "legal_claims", "objection"]
Ground = Literal["unfounded", "excessive", "unidentified", "exempt"]
_OF_KIND = {"datasets": "restriction", "ground": "restriction", "purposes": "objection", "override": "objection"}
_LONGEST_METHOD = 80
_DOCUMENT = re.compile(r"\d{6}|(?:\d[ .-]?){8}")  # a document's number, or a person's


@dataclass(frozen=True, slots=True)
class Receipt:
    """How far a request has come.

    Attributes:
        request_id: its id in the journal.
        done: dataset → what was done there.
        waiting: dataset → why it waits: the kind of error and its code, never a value.
    """

    request_id: str
    done: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Identity:
    """How it was made sure that a request is the person's own (GDPR Art. 12(2) and (6)).

    It says how, and not with what: no number, and no copy of a document, is kept.

    Attributes:
        method: "bankid", "in-person", "passport seen", …: any short text.
        verified_by: who made sure; who is acting (`datavern.actor`) when left out.
        at: when; now when left out.

    Raises:
        SubjectRequestRejected: no method; one that holds a number of a document or of a person; no moment in time.
    """

    method: str
    verified_by: str | None = None
    at: dt.datetime = field(default_factory=now)

    def __post_init__(self) -> None:
        if not isinstance(self.method, str) or not self.method.strip():
            raise SubjectRequestRejected('identity: say how it was verified: Identity(method="bankid")')
        if len(self.method) > _LONGEST_METHOD:
            raise SubjectRequestRejected(f"identity: say how in {_LONGEST_METHOD} characters at most")
        if _DOCUMENT.search(self.method):
            raise SubjectRequestRejected("identity: say how it was verified, without the number of a document")
        if not isinstance(self.at, dt.datetime) or self.at.tzinfo is None:
            raise SubjectRequestRejected("identity: at is a moment with its time zone")
        if self.at > now() + dt.timedelta(days=1):
            raise SubjectRequestRejected("identity: at lies in the future")
        if self.verified_by is None:
            object.__setattr__(self, "verified_by", current_actor())

    def as_json(self) -> dict[str, Any]:
        """As the journal, the answer and the certificate hold it."""
        return {"method": self.method, "verified_by": self.verified_by, "at": timestamp(self.at)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any] | None) -> Identity | None:
        """What `as_json` wrote; None for None."""
        if found is None:
            return None
        return cls(found["method"], found["verified_by"], dt.datetime.fromisoformat(found["at"]))


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
        datasets: of a restriction: in which datasets; all of them when left out.
        ground: of a restriction: "accuracy" (it is contested), "unlawful" (and the person wants no erasure),
            "legal_claims" (the person's own), "objection" (while one is decided): Art. 18(1)(a)-(d). May be left out.
        purposes: of an objection: to which purposes; all of them when left out.
        override: of an objection: compelling legitimate grounds for going on (Art. 21(1)), as the audit log and the
            answer tell them: a text for all purposes that it may be for, or purpose → text.
        identity: how it was made sure that the person asks; needed where the setting ``require_identity`` is on.
        id: names the request in the journal, the audit log and the certificate; random.

    Raises:
        SubjectRequestRejected: no such kind, or it was received on no date, or in the future.
        ConfigurationError: `subject` cannot name a person.
    """

    kind: Kind
    subject: Any = field(kw_only=True)
    received: dt.date = field(default_factory=today, kw_only=True)
    changes: Mapping[str, Mapping[str, Any]] | None = field(default=None, kw_only=True)
    format: Literal["json", "csv"] = field(default="json", kw_only=True)
    datasets: Sequence[str] | None = field(default=None, kw_only=True)
    ground: RestrictionGround | None = field(default=None, kw_only=True)
    purposes: Sequence[str] | None = field(default=None, kw_only=True)
    override: str | Mapping[str, str] | None = field(default=None, kw_only=True)
    identity: Identity | None = field(default=None, kw_only=True)
    id: str = field(default_factory=new_request_id, kw_only=True)

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            near = difflib.get_close_matches(str(self.kind), get_args(Kind), n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(get_args(Kind))}"
            raise SubjectRequestRejected(f"no such kind of request; {hint}")
        canonical_subject(self.subject)
        if self.format not in ("json", "csv"):
            raise SubjectRequestRejected("format: expected json or csv")
        if self.identity is not None and not isinstance(self.identity, Identity):
            raise SubjectRequestRejected('identity: expected Identity(method="bankid")')
        self._check_asked()
        if not isinstance(self.id, str) or not self.id.strip():
            raise SubjectRequestRejected("id: expected text; leave it out for a random one")
        if not isinstance(self.received, dt.date):
            raise SubjectRequestRejected("received: expected a date, such as date(2026, 11, 23)")
        if isinstance(self.received, dt.datetime):
            object.__setattr__(self, "received", self.received.date())
        if self.received > today() + dt.timedelta(days=1):  # a day ahead is still today somewhere
            raise SubjectRequestRejected("received: the day lies in the future")

    def _check_asked(self) -> None:
        """What a restriction or an objection says beside who asks."""
        for what, kind in _OF_KIND.items():
            if getattr(self, what) is not None and self.kind != kind:
                raise SubjectRequestRejected(f"{what}: is of a request of kind {kind}: leave it out")
        for what in ("datasets", "purposes"):
            names = getattr(self, what)
            if names is not None and (isinstance(names, str) or not names):
                raise SubjectRequestRejected(f"{what}: expected a list of names, or nothing for all of them")
        if self.ground is not None and self.ground not in get_args(RestrictionGround):
            raise SubjectRequestRejected(f"ground: expected one of {', '.join(get_args(RestrictionGround))}")
        if self.override is not None:
            texts = [self.override] if isinstance(self.override, str) else list(self.override.values())
            if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
                raise SubjectRequestRejected("override: say the compelling legitimate grounds (GDPR Art. 21(1))")

    @property
    def deadline(self) -> dt.date:
        """The last day to answer: one calendar month from receipt (Art. 12(3), Regulation 1182/71 Art. 3)."""
        from datavern.privacy.values.deadlines import deadline  # noqa: PLC0415  (only for requests)

        return deadline(self.received)


@dataclass(frozen=True, slots=True)
class Masked:
    """What an answer leaves out because it is about somebody else (GDPR Art. 15(4)).

    Attributes:
        dataset: where: ``database.dataset``.
        field: which column or path.
        of: the column or path that says whose it is.
        times: how often.
        why: for people.
    """

    dataset: str
    field: str
    of: str
    times: int
    why: str = "it is about another person: GDPR Art. 15(4), personopplysningsloven § 16"


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
        identity: how it was made sure that the person asked; None: it was not recorded.
        deadline: by when the answer was due, with an extension counted in.
        information: of an access request: dataset → why the data is there, on what basis, who is given it and for how
            long (Art. 15(1)), as the data map says it; where anything was found.
        masked: what was left out of `data` because it is about other people.
        recipients: of a rectification or an erasure: dataset → who must be told of it, because they were given the
            data (Art. 19), as the data map names them.
        decisions: of an objection: what came of it, for each dataset and purpose: ``dataset``, ``purpose``, ``basis``,
            ``decision`` ("stopped", "overridden", "withdraw", "does_not_apply" or "undecided"), ``why``.
        found: of a restriction: dataset → rows about the person; where a store could not be reached it is missing.
        letters: what to write to the person, by language ("nb" and "en"): of a refusal, why; of an access request, what
            they may ask for.
        letter: of an access request: the copy with all of `information`, as a page or PDF for the person.
    """

    success: bool
    message: str
    completed_at: dt.datetime
    data: dict[str, list[dict[str, Any]]] | None = None
    certificate: Certificate | None = None
    request_id: str = ""
    files: dict[str, bytes] | None = None
    identity: Identity | None = None
    deadline: dt.date | None = None
    information: Mapping[str, Information] = field(default_factory=dict)
    masked: Sequence[Masked] = ()
    recipients: Mapping[str, Sequence[str]] = field(default_factory=dict)
    decisions: Sequence[Mapping[str, Any]] = ()
    found: Mapping[str, int] = field(default_factory=dict)
    letters: Mapping[str, str] = field(default_factory=dict)
    letter: Letter | None = None


@dataclass(frozen=True, slots=True)
class Extension:
    """More time for an answer (GDPR Art. 12(3)).

    Attributes:
        request_id: the request's id.
        deadline: the new last day.
        tell_by: until when the person is to be told: the deadline as it was.
        letters: what to write to the person, by language: "nb" and "en".
    """

    request_id: str
    deadline: dt.date
    tell_by: dt.date
    letters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A request that is not answered yet.

    Attributes:
        id: the request's.
        kind: "access", "erasure", …
        subject: the person's canonical id.
        received: when it came.
        deadline: by when it must be answered.
        extended: whether that is two months more than the law gives at first.
        identity: how it was made sure that the person asks; None: it was not.
        begun: whether work on it has begun.
        waits_for: what it waits for, for people; no values.
        overdue: whether the deadline has passed.
    """

    id: str
    kind: str
    subject: str
    received: dt.date
    deadline: dt.date
    extended: bool
    identity: Identity | None
    begun: bool
    waits_for: tuple[str, ...]
    overdue: bool
