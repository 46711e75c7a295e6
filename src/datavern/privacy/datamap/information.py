"""What a copy of the data comes with: why it is there, on what basis, who gets it, for how long (GDPR Art. 15(1))."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from datavern.privacy.datamap.bases import basis_in_words
from datavern.privacy.datamap.categories import CATEGORIES, categories_of

if TYPE_CHECKING:
    from datavern.privacy.datamap.dataset import Dataset

__all__ = ["NOBODY", "NOTHING", "PERSON", "RIGHTS", "Information", "Transferred", "informed", "unsaid"]

NOBODY: Final = "none"
"""The recipient that is none."""
NOTHING: Final = "none"
"""What is decided automatically where nothing is."""
PERSON: Final = "person"
"""The source that is the person."""

RIGHTS: Final[Mapping[str, str]] = {
    "nb": "Du kan kreve retting, sletting eller begrensning av opplysningene, protestere mot bruken av dem og ta dem "
    "med deg (GDPR art. 16–21), og trekke et samtykke tilbake (art. 7 nr. 3). Du kan klage til Datatilsynet "
    "(datatilsynet.no; art. 77).",
    "en": "You may ask for the data to be put right, erased, restricted or handed over, object to its use (GDPR Arts. "
    "16-21), and withdraw a consent (Art. 7(3)). You may complain to the Norwegian Data Protection Authority, "
    "Datatilsynet (datatilsynet.no; Art. 77).",
}
"""What the person may ask for: Art. 15(1)(e) and (f)."""


@dataclass(frozen=True, slots=True)
class Transferred:
    """Where the data can get outside of the EEA (Art. 15(2)).

    Attributes:
        place: where to.
        country: which third country, or international organisation, where it is known.
        safeguard: on what grounds (Arts. 44-49); None: the map says none.
    """

    place: str
    country: str | None
    safeguard: str | None


@dataclass(frozen=True, slots=True)
class Information:
    """What the data map says of one dataset. What it does not say is empty: the organisation has to.

    Attributes:
        purposes: what the data is used for → what that rests on (Art. 15(1)(a); Art. 13(1)(c)).
        categories: what kinds of data it is (b).
        recipients: who is given it (c).
        kept: for how long (d): the period, and what it is counted from; None: the map says none.
        sources: field → where it comes from (g); "" stands for the fields that have no source of their own, and
            "person" for the person.
        automated_decisions: what is decided without anybody taking part, by what logic, with what consequences (h);
            "none": nothing; None: the map does not say.
        transfers: where it can get outside of the EEA, and on what grounds (Art. 15(2)).
        unsaid: the settings of the data map that are missing, for the organisation: the person is to be told.
    """

    purposes: Mapping[str, str]
    categories: Sequence[str]
    recipients: Sequence[str]
    kept: str | None
    sources: Mapping[str, Sequence[str]] = field(default_factory=dict)
    automated_decisions: str | None = None
    transfers: Sequence[Transferred] = ()
    unsaid: Sequence[str] = ()


def informed(dataset: Dataset, transfers: Sequence[Transferred] = ()) -> Information:
    """What the data map says of a dataset.

    Args:
        dataset: which.
        transfers: where its data can get outside of the EEA.
    """
    purposes = {purpose: basis_in_words(dataset.basis_of(purpose)) for purpose in dataset.purposes}
    if not purposes and dataset.legal_basis is not None:
        purposes = {"": basis_in_words(dataset.basis_of(None))}
    categories = [CATEGORIES[name].words for name in categories_of(dataset)]
    kept = dataset.retention
    if kept is not None:
        start = f" from {dataset.retention_from}" if dataset.retention_from is not None else ""
        kept += f"{start}{', from the end of that year' if dataset.retention_from_year_end else ''}"
    return Information(
        purposes,
        tuple(categories),
        tuple(dataset.recipients),
        kept,
        dataset.sources,
        dataset.automated_decisions,
        tuple(transfers),
        tuple(unsaid(dataset, transfers)),
    )


def unsaid(dataset: Dataset, transfers: Sequence[Transferred] = ()) -> Iterator[str]:
    """The settings that are missing of what a person who asks is to be told (Art. 15(1) and (2))."""
    if not dataset.purposes and dataset.legal_basis is None:
        yield "purposes"
    if not categories_of(dataset):
        yield "categories"
    if not dataset.recipients:
        yield "recipients"
    if dataset.retention is None:
        yield "retention"
    sources = dataset.sources
    if not sources or ("" not in sources and len(sources) < len(dataset.fields)):
        yield "source"
    if dataset.automated_decisions is None:
        yield "automated_decisions"
    if any(one.safeguard is None for one in transfers):
        yield "transfer"
