"""The letter of an access answer: the copy, and what the person is to be told with it (GDPR Art. 15(1) and (2))."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from datavern.privacy.certificate.words import day, moment
from datavern.privacy.datamap.categories import categories_of
from datavern.privacy.datamap.information import NOBODY, NOTHING, PERSON
from datavern.privacy.pages.blocks import Block, Facts, Heading, Language, Listing, Page, Paragraph, Table
from datavern.privacy.requests.letter_words import basis, category, period, safeguard, why_masked, words

if TYPE_CHECKING:
    from datavern.privacy.datamap.dataset import Dataset
    from datavern.privacy.datamap.information import Information
    from datavern.privacy.journal.values import Identity, Masked

__all__ = ["AccessLetter", "Sender"]

_OWN = {"consents": "consents", "restrictions": "restrictions"}
_WIDTHS = (32, 68)
_LONGEST = 4000
"""How many characters of a value a letter has: of a file's content it says the length, and the copy has it whole."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who answers.

    Attributes:
        organisation: the controller.
        contact: how it is reached.
        dpo: its data protection officer.
    """

    organisation: str = ""
    contact: str = ""
    dpo: str = ""


@dataclass(frozen=True, slots=True)
class AccessLetter:
    """An answer as the person gets it, in Norwegian or English, as a page or as PDF.

    Attributes:
        sender: who answers.
        subject: the person, as on record.
        request: the request's id.
        received: when it came.
        completed: when it was answered, in UTC.
        identity: how it was made sure that the person asks.
        data: dataset's label → rows, in values that JSON has.
        information: dataset's label → what the data map says of it.
        datasets: dataset's label → its entry in the data map.
        masked: what was left out because it is about others.
    """

    sender: Sender
    subject: str = field(repr=False)
    request: str
    received: dt.date
    completed: dt.datetime
    identity: Identity | None
    data: Mapping[str, Sequence[Mapping[str, Any]]] = field(repr=False)
    information: Mapping[str, Information]
    datasets: Mapping[str, Dataset] = field(repr=False)
    masked: Sequence[Masked] = ()

    @property
    def abridged(self) -> int:
        """How many values are too long for it, a file's content among them: `data` has them whole, to go beside it."""
        return sum(
            len(_text(value)) > _LONGEST for rows in self.data.values() for row in rows for value in row.values()
        )

    def to_html(self, language: Language = "nb") -> str:
        """A page that stands by itself: nothing is fetched, it can be read aloud, and printed.

        Raises:
            ConfigurationError: no such language.
        """
        from datavern.privacy.pages.html import page  # noqa: PLC0415  (only where one is wanted)

        return page(self._page(language))

    def to_pdf(self, language: Language = "nb") -> bytes:
        """The same as PDF.

        Raises:
            ConfigurationError: the extra ``datavern[pdf]`` is not installed, or no such language.
        """
        from datavern.privacy.pages.pdf import document  # noqa: PLC0415  (as above)

        return document(self._page(language))

    def _page(self, language: Language) -> Page:
        title = words(language)("title")
        return Page(title, self.sender.organisation, language, tuple(self._blocks(language)), self.request)

    def _blocks(self, language: Language) -> Iterator[Block]:
        word = words(language)
        found = {label: rows for label, rows in self.data.items() if rows}
        organisation = self.sender.organisation or word("we")
        yield Paragraph(word("lead" if found else "nothing", organisation=organisation), strong=True)
        yield Facts(list(self._facts(word, language)))
        for label, rows in found.items():
            _, _, name = label.partition(".")
            own = label.startswith("datavern.") and name in _OWN
            yield Heading(word(_OWN[name]) if own else label)
            if label in self.information:
                yield Facts(list(self._told(label, word, language)))
            for number, row in enumerate(rows, 1):
                caption = word("one-row") if len(rows) == 1 else word("row-of", number=number, rows=len(rows))
                cells = [(str(name), _shown(value, word)) for name, value in row.items()]
                yield Table(caption, [word("field"), word("value")], cells, _WIDTHS)
        if self.masked:
            why = why_masked(language)
            yield Heading(word("masked-heading"))
            yield Table(
                word("masked-caption"),
                [word("place"), word("field"), word("times"), word("why")],
                [[one.dataset, one.field, str(one.times), why] for one in self.masked],
                (24, 22, 10, 44),
            )
        yield Heading(word("rights-heading"))
        yield Paragraph(word("rights-lead"))
        decided = any(i.automated_decisions not in (None, NOTHING) for i in self.information.values())
        rights = ["rectification", "erasure", "restriction", "portability", "objection", "consent"]
        rights += [*(["human"] if decided else []), "complaint"]
        yield Listing([(word(f"right-{right}"), language) for right in rights])

    def _facts(self, word: Any, language: Language) -> Iterator[tuple[str, str]]:
        for name in ("organisation", "contact", "dpo"):
            if said := getattr(self.sender, name):
                yield word(name), said
        yield word("subject"), self.subject
        yield word("request"), self.request
        yield word("received"), day(self.received.isoformat(), language)
        yield word("answered"), moment(self.completed.isoformat(), language)
        if self.identity is not None:
            by = f" ({self.identity.verified_by})" if self.identity.verified_by else ""
            yield word("identity"), f"{self.identity.method}{by}, {moment(self.identity.at, language)}"

    def _told(self, label: str, word: Any, language: Language) -> Iterator[tuple[str, str]]:
        """What the person is told of one dataset; what nobody said is left out: `Information.unsaid` names it."""
        dataset, said = self.datasets[label], self.information[label]
        if said.purposes:
            yield (
                word("purposes"),
                "; ".join(
                    f"{purpose}: {basis(dataset, purpose, language)}" if purpose else basis(dataset, None, language)
                    for purpose in said.purposes
                ),
            )
        if said.categories:
            yield word("categories"), "; ".join(category(name, language) for name in categories_of(dataset))
        if said.recipients:
            yield word("recipients"), word("nobody") if said.recipients == (NOBODY,) else ", ".join(said.recipients)
        if said.transfers:
            yield (
                word("transfers"),
                "; ".join(
                    f"{', '.join(filter(None, (one.place, one.country)))}: "
                    f"{safeguard(dataset, language) if one.safeguard else word('no-safeguard')}"
                    for one in said.transfers
                ),
            )
        if said.kept is not None:
            yield word("kept"), period(dataset, language)
        if said.sources:
            yield word("sources"), "; ".join(_source(what, sources, word) for what, sources in said.sources.items())
        if said.automated_decisions is not None:
            none = said.automated_decisions == NOTHING
            yield word("automated"), word("no-automated") if none else said.automated_decisions


def _source(what: str, sources: Sequence[str], word: Any) -> str:
    named = ", ".join(word("you") if one == PERSON else one for one in sources)
    return f"{what}: {named}" if what else named


def _shown(value: Any, word: Any) -> str:
    """A value in a cell."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(word("yes" if value else "no"))
    text = _text(value)
    if len(text) > _LONGEST:
        return str(word("too-long", start=text[:40], length=f"{len(text):,}".replace(",", "\u00a0")))
    return text


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping | list) else str(value)
