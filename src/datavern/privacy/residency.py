"""Residency: which data may be where (sikkerhetsloven § 5-3; GDPR Arts. 44-49).

OPEN may live anywhere, RESTRICTED in Norway and the EEA, CONFIDENTIAL and SECRET in Norway alone. The rule is checked
before anything is connected, for every place that a dataset can reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from datavern.contracts.errors import ConfigurationError, ResidencyViolation
from datavern.contracts.regions import REGIONS, locate
from datavern.contracts.values import Classification, Location
from datavern.privacy.datamap import DataMap
from datavern.privacy.dataset import Dataset, classification_of

__all__ = ["RULES", "Place", "Residency", "locate"]

RULES: Mapping[Classification, frozenset[Location]] = {
    Classification.OPEN: frozenset({Location.NORWAY, Location.EU, Location.GLOBAL}),
    Classification.RESTRICTED: frozenset({Location.NORWAY, Location.EU}),
    Classification.CONFIDENTIAL: frozenset({Location.NORWAY}),
    Classification.SECRET: frozenset({Location.NORWAY}),
}
"""Where each classification may live."""


class Place(Protocol):
    """Somewhere that data can be: a provider is one."""

    @property
    def location(self) -> Location:
        """Where it is."""
        ...

    @property
    def region(self) -> str | None:
        """The region identifier behind the location, or None."""
        ...


class Residency:
    """The rule, and the check of everything that a data map can reach. It holds no state and does no I/O."""

    __slots__ = ()

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
        graded = classification_of(classification)
        if self.locate(location) not in RULES[graded]:
            raise ResidencyViolation(f"Data classified as {graded.value} cannot be stored in {location!s}")

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

    def problems(self, data_map: DataMap, places: Mapping[str, Place], *, ledger: str | None = None) -> list[str]:
        """Every place that a dataset can reach and may not: one line each, naming the dataset; empty when all is well.

        Args:
            data_map: what lies where.
            places: name → place, of every database that is configured.
            ledger: name of the database with Datavern's own tables: consents, keys and the audit log.

        Raises:
            ConfigurationError: a dataset names a database that is not configured.
        """
        data_map.check_databases(places)
        found = []
        for dataset in data_map:
            for name, why in _reached(dataset, ledger):
                place = places[name]
                try:
                    self.validate(dataset.classification, place.location)
                except ResidencyViolation as error:
                    found.append(f"datasets.{dataset.name}: {error} ({why}{name}{_region(place)})")
        return found

    def check(self, data_map: DataMap, places: Mapping[str, Place], *, ledger: str | None = None) -> None:
        """Check the whole data map, before anything is connected. The arguments are those of `problems`.

        Raises:
            ResidencyViolation: naming every dataset and place that do not fit.
            ConfigurationError: a dataset names a database that is not configured.
        """
        problems = self.problems(data_map, places, ledger=ledger)
        if problems:
            raise ResidencyViolation("\n".join(problems))


def _reached(dataset: Dataset, ledger: str | None) -> Iterable[tuple[str, str]]:
    yield dataset.database, "database "
    if ledger is not None and ledger != dataset.database:
        yield ledger, "its keys, consents and requests are in the ledger, database "


def _region(place: Place) -> str:
    region = getattr(place, "region", None)
    if not region:
        return ""
    known = "" if region.strip().lower() in REGIONS else ", a region that is not known to be in the EEA"
    return f", {region}{known}"
