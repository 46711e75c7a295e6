"""What is found about a person, as an answer holds it: in values that JSON has, without what is other people's."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import DatavernError, ProviderError, RestoreForbidden
from datavern.privacy.datamap.dataset import OWN_DATASETS
from datavern.privacy.datamap.information import Information, Transferred, informed
from datavern.privacy.erasure.erasure import CONSENTS
from datavern.privacy.journal.values import Masked
from datavern.privacy.requests.masking import Masking

if TYPE_CHECKING:
    from datavern.privacy.consent.standing import Mark
    from datavern.privacy.datamap.dataset import Dataset
    from datavern.privacy.service import Privacy

__all__ = ["Found", "counted", "gathered", "readable"]

RESTRICTIONS = "datavern.restrictions"


@dataclass(slots=True)
class Found:
    """What is known about a person.

    Attributes:
        data: dataset's label → rows.
        information: dataset's label → what the data map says of it, where anything was found.
        masked: what was left out because it is about others.
        waiting: dataset's label → why it could not be looked into.
        datasets: dataset's label → its entry in the data map, where anything was found.
    """

    data: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    information: dict[str, Information] = field(default_factory=dict)
    masked: list[Masked] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    datasets: dict[str, Dataset] = field(default_factory=dict)


async def gathered(privacy: Privacy, subject: str, *, derived: bool) -> Found:
    """Everything about a person, in every dataset. A database that cannot be reached is said to be waited for.

    Args:
        privacy: the datasets.
        subject: the canonical id.
        derived: also what the application made of it elsewhere: an access request asks for that, and portability,
            which is for what the person gave (Art. 20), does not.
    """
    found = Found()
    sent = list(privacy.transfers())
    stores = await privacy.stores()
    for store in stores:
        datasets = [other.dataset for other in stores]
        rows: list[dict[str, Any]] = []
        try:
            numbers = () if store.link is None else await store.link.values(subject)
            masking = Masking(store.dataset, datasets, subject, link=store.link, numbers=numbers)
            if await store.exists():
                rows = [masking.masked(readable(row)) async for row in store.all_of(subject)]
        except (ProviderError, RestoreForbidden) as error:
            found.waiting[store.dataset.label] = f"{type(error).__name__}: {error}"
            continue
        if rows or not store.dataset.name.startswith(OWN_DATASETS):
            found.data[store.dataset.label] = rows
        if rows and not store.dataset.name.startswith(OWN_DATASETS):
            where = [t for t in sent if t.dataset == store.dataset.name]
            transfers = [Transferred(t.place.name, t.country, t.safeguard) for t in where]
            found.information[store.dataset.label] = informed(store.dataset, transfers)
            found.datasets[store.dataset.label] = store.dataset
        found.masked += masking.report()
    found.data |= await _own(privacy, subject, whole=derived)
    for made in privacy.derived.values() if derived else ():
        try:
            derived_rows = [readable(row) for row in await made.found(subject)]
        except DatavernError as error:
            found.waiting[made.label] = f"{type(error).__name__}: {error}"
            continue
        if derived_rows or made.access is not None:
            found.data[made.label] = derived_rows
    return found


async def _own(privacy: Privacy, subject: str, *, whole: bool) -> dict[str, list[dict[str, Any]]]:
    """What Datavern itself keeps about a person: consents, and of an access request what was decided besides."""
    consents = [_plain(consent) for consent in await privacy.consents.list(subject)]
    told: dict[str, list[dict[str, Any]]] = {CONSENTS: consents}
    if whole:
        for given in await privacy.consents.given_for_others(subject):
            consents.append({**_plain(given), "given_as": "guardian of somebody else"})  # noqa: PERF401  (two lists)
        told[RESTRICTIONS] = [_mark(mark) for mark in await privacy.standing.of(subject)]
    return {label: [readable(row) for row in rows] for label, rows in told.items() if rows}


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


def counted(numbers: Mapping[str, int]) -> str:
    """How much was found where, for people."""
    number, stores = sum(numbers.values()), sum(1 for rows in numbers.values() if rows)
    if not number:
        return "Nothing was found about this subject."
    return f"{'1 row' if number == 1 else f'{number} rows'} in {'1 dataset' if stores == 1 else f'{stores} datasets'}."


def _plain(consent: Any) -> dict[str, Any]:
    names = ("id", "purpose", "granted_at", "expires_at", "withdrawn_at", "version")
    further = ("language", "source", "explicit", "by_guardian", "of_age_on")
    told = {name: getattr(consent, name) for name in names}
    return told | {name: value for name in further if (value := getattr(consent, name))}


def _mark(mark: Mark) -> dict[str, Any]:
    told = {"request": mark.request, "kind": mark.kind, "since": mark.since, "lifted_at": mark.lifted_at}
    return {**told, "ground": mark.ground, "where": {label: list(what) for label, what in mark.reach.items()}}
