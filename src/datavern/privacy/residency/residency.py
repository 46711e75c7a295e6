"""Residency: which data may be where (sikkerhetsloven § 5-3; GDPR Arts. 44-49).

OPEN may live anywhere, RESTRICTED in Norway and the EEA, CONFIDENTIAL and SECRET in Norway alone; graded information
leaves Norway with an approval alone (virksomhetsikkerhetsforskriften § 51). The rule is checked before anything is
connected, for every place that a dataset can reach, and again at each move of data.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from datavern.contracts.errors import ConfigurationError, ResidencyViolation
from datavern.contracts.regions import REGIONS, locate
from datavern.contracts.values import Classification, Location, today
from datavern.privacy.datamap.datamap import DataMap
from datavern.privacy.datamap.dataset import Dataset, classification_of
from datavern.privacy.residency.places import Place, places_of_databases

__all__ = ["RULES", "Located", "Place", "Residency", "Transfer", "Verdict", "locate"]

RULES: Mapping[Classification, frozenset[Location]] = {
    Classification.OPEN: frozenset({Location.NORWAY, Location.EU, Location.GLOBAL}),
    Classification.RESTRICTED: frozenset({Location.NORWAY, Location.EU}),
    Classification.CONFIDENTIAL: frozenset({Location.NORWAY}),
    Classification.SECRET: frozenset({Location.NORWAY}),
}
"""Where each classification may live."""

_GRADED = "virksomhetsikkerhetsforskriften § 51"


class Located(Protocol):
    """Something that is somewhere: a provider is."""

    @property
    def location(self) -> Location:
        """Where it is."""
        ...

    @property
    def region(self) -> str | None:
        """The region identifier behind the location, or None."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a dataset may be in a place that it can reach, and why.

    Attributes:
        dataset: its name.
        classification: how far it may travel.
        graded: whether it is graded information.
        place: the place.
        allowed: whether it may; None where nobody said where the place is, and it matters.
        why: the rule, for people.
    """

    dataset: str
    classification: Classification
    graded: bool
    place: Place
    allowed: bool | None
    why: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """Personal data that may get outside of the EEA (GDPR Arts. 44-49; Art. 30(1)(e)).

    Attributes:
        dataset: its name.
        place: where to.
        country: the third country, where it is known.
        safeguard: on what grounds, in words; None where nobody said.
    """

    dataset: str
    place: Place
    country: str | None
    safeguard: str | None


class Residency:
    """The rule, and the check of everything that a data map can reach. It does no I/O.

    Args:
        data_map: what lies where; None: there is only the rule.
        places: everywhere that its data can get.
    """

    __slots__ = ("_data_map", "_places")

    def __init__(self, data_map: DataMap | None = None, places: Iterable[Place] = ()) -> None:
        self._data_map = data_map
        self._places = tuple(places)

    @property
    def places(self) -> tuple[Place, ...]:
        """Everywhere that data can get, as far as it is known here."""
        return self._places

    def validate(self, classification: Classification | str, location: Location | str) -> None:
        """Return when data of that classification may be there.

        Args:
            classification: "OPEN", "RESTRICTED", "CONFIDENTIAL" or "SECRET".
            location: "norway", "eu" (the EEA), "global", or a region identifier such as ``azure:norwayeast``; a region
                that is not known counts as global.

        Raises:
            ResidencyViolation: it may not.
            ConfigurationError: no such classification, or neither a location nor a region identifier.
        """
        grade = classification_of(classification)
        if self.locate(location) not in RULES[grade]:
            raise ResidencyViolation(_cannot(grade, location))

    def move(self, dataset: str | Dataset, to: Location | str | Place, *, on: dt.date | None = None) -> None:
        """Return when the data of a dataset may be brought there: asked again at each move of data.

        Args:
            dataset: the dataset, or its name.
            to: a place, or a location or region identifier as `validate` takes it.
            on: the day that approvals are to hold on; today when None.

        Raises:
            ResidencyViolation: it may not: by its classification, or because it is graded and nobody approved it, or
                the approval has ended.
            ConfigurationError: no such dataset, or neither a location nor a region identifier.
        """
        found = self._dataset(dataset)
        place = to if isinstance(to, Place) else Place("", "transfers", self.locate(to))
        allowed, why = _judged(found, place, on or today())
        if not allowed:
            said = place.where if isinstance(to, Place) else str(to)
            raise ResidencyViolation(f"datasets.{found.name}: {_cannot(found.classification, said)}: {why}")

    @staticmethod
    def locate(location: Location | str) -> Location:
        """The location that a location's name or a region identifier stands for.

        Raises:
            ConfigurationError: it is neither (a region identifier has a cloud and a colon: ``azure:norwayeast``).
        """
        text = str(location).strip().lower()
        try:
            return Location(text)
        except ValueError:
            pass
        if ":" not in text:
            known = ", ".join(place.value for place in Location)
            raise ConfigurationError(
                f"no location is called {text}: expected {known}, or a region identifier such as azure:norwayeast"
            )
        return locate(text)

    # ---- the whole picture ------------------------------------------------------------------------------------------

    def picture(self, *, on: dt.date | None = None) -> list[Verdict]:
        """Every dataset at every place that it can reach, whether it may be there, and why.

        Args:
            on: the day that approvals are to hold on; today when None.
        """
        day = on or today()
        return [
            Verdict(d.name, classification_of(d.classification), d.graded, place, *_judged(d, place, day))
            for d in self._data_map or ()
            for place in self._places
            if place.holds(d.name, d.database)
        ]

    def transfers(self) -> list[Transfer]:
        """Where data about people may get outside of the EEA, and on what grounds."""
        return [
            Transfer(d.name, p, _country(d) or p.country, None if d.transfer is None else str(d.transfer))
            for d in self._data_map or ()
            if d.personal
            for p in self._places
            if p.location is Location.GLOBAL and p.holds(d.name, d.database) and not _empty_of(p, d)
        ]

    def problems(
        self, data_map: DataMap, places: Mapping[str, Located], *, ledger: str | None = None, more: Iterable[Place] = ()
    ) -> list[str]:
        """What `refused` says of a data map over these places.

        Args:
            data_map: what lies where.
            places: name → place, of every database that is configured.
            ledger: name of the database with Datavern's own tables: consents, keys and the audit log.
            more: what can be reached beside: key rings, copies, log sinks.

        Raises:
            ConfigurationError: a dataset names a database that is not configured.
        """
        data_map.check_databases(places)
        return Residency(data_map, [*places_of_databases(places, ledger), *more]).refused()

    def refused(self, *, on: dt.date | None = None) -> list[str]:
        """Every place that a dataset can reach and may not: one line each, naming the dataset; empty when all is well.

        What nobody located is no problem here, but for databases: they are global until somebody says otherwise.

        Args:
            on: the day that approvals are to hold on; today when None.
        """
        found = []
        for verdict in self.picture(on=on):
            place = verdict.place
            if verdict.allowed is not False:
                continue
            if place.kind == "ledger" and self._data_map and place.of == self._data_map[verdict.dataset].database:
                continue  # its database is told of already
            why = "" if not verdict.graded else f"; {verdict.why}"
            found.append(
                f"datasets.{verdict.dataset}: {_cannot(verdict.classification, str(place.location))} "
                f"({_role(place)}{_region(place)}{why})"
            )
        return found

    def check(
        self, data_map: DataMap, places: Mapping[str, Located], *, ledger: str | None = None, more: Iterable[Place] = ()
    ) -> None:
        """Check the whole data map, before anything is connected. The arguments are those of `problems`.

        Raises:
            ResidencyViolation: naming every dataset and place that do not fit.
            ConfigurationError: a dataset names a database that is not configured.
        """
        problems = self.problems(data_map, places, ledger=ledger, more=more)
        if problems:
            raise ResidencyViolation("\n".join(problems))

    def _dataset(self, dataset: str | Dataset) -> Dataset:
        if isinstance(dataset, Dataset):
            return dataset
        if self._data_map is None:
            raise ConfigurationError(f"no dataset is named {dataset}: there is no data map")
        return self._data_map[dataset]


def _cannot(grade: Any, location: object) -> str:
    return f"Data classified as {classification_of(grade).value} cannot be stored in {location!s}"


def _judged(dataset: Dataset, place: Place, day: dt.date) -> tuple[bool | None, str]:
    """Whether it may be there, and the rule."""
    grade = classification_of(dataset.classification)
    if _empty_of(place, dataset):
        return True, "a checkpoint holds the head of a tree and a signature, and no data"
    may = RULES[grade]
    if dataset.graded and grade is Classification.RESTRICTED:
        return _graded(dataset, place, day)
    rule = f"{grade.value} may be in {', '.join(where.value for where in Location if where in may)}"
    if dataset.graded:
        rule += f", and no approval changes that ({_GRADED})"
    if place.location is None:
        return (True, f"{rule}: anywhere") if len(may) == len(Location) else (None, f"{rule}; where is this?")
    return place.location in may, rule


def _graded(dataset: Dataset, place: Place, day: dt.date) -> tuple[bool | None, str]:
    approval: Any = dataset.approval
    if place.location is Location.NORWAY:
        return True, "graded, and in Norway"
    if place.location is Location.GLOBAL:
        return False, "RESTRICTED may be in norway, eu, whoever approved what"
    if approval is None:
        return (None if place.location is None else False), f"graded: leaves Norway with an approval alone ({_GRADED})"
    if not approval.holds(day):
        return (None if place.location is None else False), f"the approval {approval} has ended"
    return (None if place.location is None else True), f"approved: {approval} ({_GRADED})"


def _empty_of(place: Place, dataset: Dataset) -> bool:
    """Whether nothing of a dataset is there. Of graded information even that it is kept stays where it may be."""
    return place.kind == "checkpoints" and not dataset.graded


def _country(dataset: Dataset) -> str | None:
    return getattr(dataset.transfer, "country", "") or None


_ROLES: Mapping[str, str] = {
    "database": "database ",
    "ledger": "its keys, consents and requests are in the ledger, database ",
    "keyring": "the key ring, ",
    "key copies": "copies of the key store, ",
    "logs": "the log sink ",
    "answers": "the answers' files, ",
    "backups": "the backup store ",
    "checkpoints": "the audit log's checkpoints, ",
}


def _role(place: Place) -> str:
    if place.kind == "failover":
        return f"{place.name}, which stands in for {place.of}"
    if place.kind == "replica":
        return f"{place.name}, a replica of {place.of}"
    return f"{_ROLES.get(place.kind, f'{place.kind} ')}{place.name}"


def _region(place: Place) -> str:
    if not place.region:
        return ""
    known = "" if place.region.strip().lower() in REGIONS else ", a region that is not known to be in the EEA"
    return f", {place.region}{known}"
