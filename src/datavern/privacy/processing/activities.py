"""What is done with the data of one dataset, as its data map says it or as it can be computed, and what nobody said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datavern.privacy.datamap.bases import basis_in_words
from datavern.privacy.datamap.categories import (
    CATEGORIES,
    categories_of,
    exemptions_of,
    explicit_consent,
    without_exemption,
)
from datavern.privacy.processing.values import Activity, Data, Purpose, Sent

if TYPE_CHECKING:
    from datavern.privacy.datamap.dataset import Dataset
    from datavern.privacy.residency.residency import Transfer

__all__ = ["activity_of", "unsaid"]

_ENDS: Mapping[str, str] = {
    "delete": "deleted",
    "soft": "emptied, and marked as erased",
    "anonymize": "anonymised",
    "shred": "made unreadable, by destroying the person's keys",
    "retain": "kept until the period has ended, and then deleted",
}
_UNITS: Mapping[str, str] = {"y": "year", "m": "month", "w": "week", "d": "day"}


def activity_of(dataset: Dataset, provider: Any, sent: Sequence[Transfer], *, audited: bool) -> Activity:
    """The activity of a dataset with personal data. No I/O.

    Args:
        dataset: which.
        provider: its database.
        sent: where data can get outside of the EEA, of all datasets.
        audited: whether writes are in an audit log.
    """
    return Activity(
        dataset=dataset.name,
        database=dataset.database,
        store=dataset.key or dataset.table,
        purposes=[Purpose(name, basis_in_words(dataset.basis_of(name))) for name in dataset.purposes],
        about=dataset.about,
        data=list(_data(dataset)),
        exemptions=[
            *map(str, exemptions_of(dataset.exemption)),
            *(["explicit consent (GDPR Art. 9(2)(a))"] if explicit_consent(dataset) else []),
        ],
        unexempted=[problem.partition(":")[0] for problem in without_exemption(dataset)],
        recipients=dataset.recipients,
        transfers=[Sent(t.place.name, t.country, t.safeguard) for t in sent if t.dataset == dataset.name],
        time_limit=_time_limit(dataset),
        ends=_ENDS[dataset.erasure],
        security=list(_security(dataset, provider, audited=audited)),
        sources=dataset.sources,
        automated_decisions=dataset.automated_decisions,
    )


def _data(dataset: Dataset) -> Iterator[Data]:
    found = categories_of(dataset)
    for name, fields in found.items():
        category = CATEGORIES[name]
        yield Data(name, category.words, category.article, fields)
    said = {one for fields in found.values() for one in fields}
    rest = [name for name in dataset.fields if name not in said]
    if rest:
        yield Data(None, "", None, rest)


def _time_limit(dataset: Dataset) -> str | None:
    if dataset.retention is None:
        return None
    words = []
    number = ""
    for letter in dataset.retention.strip().lower():
        if letter.isdecimal():
            number += letter
            continue
        unit = _UNITS[letter]
        words.append(f"{int(number)} {unit}{'s' if int(number) != 1 else ''}")
        number = ""
    start = f"from {dataset.retention_from}" if dataset.retention_from else "from the erasure"
    if dataset.retention_from_year_end:
        start = f"from the end of the year of {dataset.retention_from or 'the erasure'}"
    return f"{' and '.join(words)} {start}"


def _security(dataset: Dataset, provider: Any, *, audited: bool) -> Iterator[str]:
    sealed = dataset.sealed
    if sealed:
        yield f"{', '.join(sealed)}: sealed under a key of each person (AES-256-GCM), Art. 32(1)(a)"
    elif getattr(provider, "sealing", False):
        yield "values are sealed as wholes under a key of each person (AES-256-GCM), Art. 32(1)(a)"
    clear = [name for name, one in dataset.fields.items() if not one.sealed]
    if clear:
        yield f"in the clear: {', '.join(clear)}"
    safe = "encrypted and verified, or stays on the machine" if provider.encrypted else "not encrypted and verified"
    yield f"the connection to {dataset.database} is {safe}"
    yield f"classified as {dataset.classification}; {dataset.database} is in {provider.location}"
    if audited:
        reads = ", and who reads it" if dataset.audit_reads else ""
        yield f"who writes it{reads} is in an audit log that proves that it was not changed"
    if dataset.subject_via is not None:
        yield f"whose a row is, is told by {dataset.subject_via} alone"


def unsaid(one: Activity) -> Iterator[tuple[str, str, str]]:
    """What Art. 30(1) asks for and nobody said of it: which point, what, and the setting that says it."""
    if not one.purposes:
        yield "b", "what it is used for", "purposes"
    if not one.about:
        yield "c", "whom it is about", "about"
    unsorted = [name for data in one.data if data.category is None for name in data.fields]
    if unsorted:
        yield "c", f"what kind of data is in {', '.join(unsorted)}", "category of the fields"
    if not one.data:
        yield "c", "what kinds of data it holds", "categories"
    if one.unexempted:
        yield "c", f"why {', '.join(one.unexempted)} may be used at all", "exemption"
    if not one.recipients:
        yield "d", 'who is given it ("none" where nobody is)', "recipients"
    yield from (("e", f"on what grounds it can get to {t.place}", "transfer") for t in one.transfers if not t.safeguard)
    if one.time_limit is None:
        yield "f", "how long it is kept", "retention"
