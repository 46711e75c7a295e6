"""What the record of processing activities consists of: the points of GDPR Art. 30(1), as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Activity", "Controller", "Data", "Missing", "Purpose", "Sent"]


@dataclass(frozen=True, slots=True)
class Controller:
    """Who is responsible (Art. 30(1)(a)).

    Attributes:
        name: the organisation.
        contact: how it is reached.
        representative: its representative in the EEA (Art. 27).
        dpo: the data protection officer (Art. 37).
        joint_controllers: who decides with it (Art. 26).
    """

    name: str = ""
    contact: str = ""
    representative: str = ""
    dpo: str = ""
    joint_controllers: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Purpose:
    """What the data is used for (Art. 30(1)(b)), and what that rests on."""

    name: str
    basis: str | None


@dataclass(frozen=True, slots=True)
class Data:
    """A category of personal data (Art. 30(1)(c)).

    Attributes:
        category: its name in the data map; None: nobody said which.
        words: what it is.
        article: 9 for a special category, 10 for crimes.
        fields: the fields that are of it.
    """

    category: str | None
    words: str
    article: int | None
    fields: Sequence[str]


@dataclass(frozen=True, slots=True)
class Sent:
    """A transfer to a third country (Art. 30(1)(e)).

    Attributes:
        place: where to.
        country: which country, where it is known.
        safeguard: on what grounds (Arts. 44-49); None: nobody said.
    """

    place: str
    country: str | None
    safeguard: str | None


@dataclass(frozen=True, slots=True)
class Activity:
    """What is done with the data of one dataset.

    Attributes:
        dataset: its name.
        database: where it lies.
        store: the table, collection or pattern of keys there.
        purposes: (b).
        about: (c), whom it is about.
        data: (c), what kinds of data.
        exemptions: why special categories of it may be used (Arts. 9(2) and 10).
        unexempted: special categories, and crimes, that nothing lets be used.
        recipients: (d).
        transfers: (e).
        time_limit: (f), how long it is kept; None: nobody said.
        ends: (f), what an erasure does.
        security: (g).
        sources: field → where it comes from ("" for those that have no source of their own; "person" is the person).
            Not of Art. 30: people are told it (Arts. 14(2)(f) and 15(1)(g)).
        automated_decisions: what is decided automatically (Arts. 13(2)(f), 15(1)(h) and 22); None: nobody said.
    """

    dataset: str
    database: str
    store: str
    purposes: Sequence[Purpose]
    about: Sequence[str]
    data: Sequence[Data]
    exemptions: Sequence[str]
    unexempted: Sequence[str]
    recipients: Sequence[str]
    transfers: Sequence[Sent]
    time_limit: str | None
    ends: str
    security: Sequence[str]
    sources: Mapping[str, Sequence[str]] = field(default_factory=dict)
    automated_decisions: str | None = None


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that Art. 30(1) asks for and nobody said.

    Attributes:
        point: which: "a" to "g".
        part: where it belongs: ``datasets.users``, or ``datavern``.
        what: what is not said.
        setting: the setting that says it.
    """

    point: str
    part: str
    what: str
    setting: str
