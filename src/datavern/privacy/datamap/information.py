"""What a copy of the data comes with: why it is there, on what basis, who gets it, for how long (GDPR Art. 15(1))."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from datavern.privacy.datamap.categories import CATEGORIES, categories_of

if TYPE_CHECKING:
    from datavern.privacy.datamap.dataset import Dataset

__all__ = ["RIGHTS", "Information", "informed"]

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
class Information:
    """What the data map says of one dataset. What it does not say is empty: the organisation has to.

    Attributes:
        purposes: what the data is used for → what that rests on (Art. 15(1)(a); Art. 13(1)(c)).
        categories: what kinds of data it is (b).
        recipients: who is given it (c).
        kept: for how long (d): the period, and what it is counted from; None: the map says none.
    """

    purposes: Mapping[str, str]
    categories: Sequence[str]
    recipients: Sequence[str]
    kept: str | None


def informed(dataset: Dataset) -> Information:
    """What the data map says of a dataset."""
    purposes = {purpose: _basis(dataset, purpose) for purpose in dataset.purposes}
    if not purposes and dataset.legal_basis is not None:
        purposes = {"": _basis(dataset, None)}
    categories = [CATEGORIES[name].words for name in categories_of(dataset)]
    kept = dataset.retention
    if kept is not None:
        start = f" from {dataset.retention_from}" if dataset.retention_from is not None else ""
        kept += f"{start}{', from the end of that year' if dataset.retention_from_year_end else ''}"
    return Information(purposes, tuple(categories), tuple(dataset.recipients), kept)


def _basis(dataset: Dataset, purpose: str | None) -> str:
    basis = dataset.basis_of(purpose)
    return "consent (GDPR Art. 6(1)(a))" if basis is None else str(basis)
