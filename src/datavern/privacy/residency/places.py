"""Everywhere that data, or a key to it, can be: each place with the evidence of where it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from datavern.config import STRICT, checked
from datavern.contracts.errors import ConfigurationError
from datavern.contracts.regions import COUNTRIES, REGIONS, locate
from datavern.contracts.values import Location

__all__ = ["Kind", "Place", "places_from_mapping", "places_of_databases", "places_of_keys", "reachable"]

Kind = Literal[
    "database",
    "failover",
    "replica",
    "ledger",
    "keyring",
    "key copies",
    "checkpoints",
    "backups",
    "transfers",
    "logs",
    "answers",
    "other",
]
SINGLE: frozenset[str] = frozenset({"keyring", "key copies", "checkpoints", "logs", "answers"})
"""Kinds that stand for one thing of a manager's: what is said of them replaces what follows from the settings."""
LOCAL_KEYS = ("file:", "env:")


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere that data can be.

    Attributes:
        name: unique within its kind.
        kind: what it is to the data.
        location: where it is, or None where nobody said; follows from `region` when that is given.
        region: a region identifier, ``azure:norwayeast``.
        evidence: how that is known, for people.
        datasets: names of the datasets that reach it; None: every one.
        of: the database, or the thing, that it belongs to.

    Raises:
        ConfigurationError: the location contradicts the region.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    name: str
    kind: Kind = "other"
    location: Location | None = None
    region: str | None = None
    evidence: str = ""
    datasets: frozenset[str] | None = None
    of: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigurationError(f"no kind of place is called so: expected one of {', '.join(get_args(Kind))}")
        put = object.__setattr__
        if self.location is not None:
            put(self, "location", Location(str(self.location)))
        if self.datasets is not None:
            put(self, "datasets", frozenset(self.datasets))
        if self.region is None:
            put(self, "evidence", self.evidence or ("nobody said" if self.location is None else "configured label"))
            return
        found = locate(self.region)
        if self.location not in (None, found):
            raise ConfigurationError(f"location contradicts region, which lies in {found}: leave location out")
        put(self, "location", found)
        known = self.region.strip().lower() in REGIONS
        country = COUNTRIES.get(self.region.strip().lower())
        ending = "" if known else f", in {country}" if country else ", not known to be in the EEA"
        put(self, "evidence", self.evidence or f"region identifier{ending}")

    def holds(self, dataset: str, database: str) -> bool:
        """Whether data of that dataset, which lies in that database, can get here."""
        if self.kind in ("database", "failover", "replica"):
            return self.of == database
        return self.datasets is None or dataset in self.datasets

    @property
    def country(self) -> str | None:
        """The third country that it is in, where the region tells it."""
        return None if self.region is None else COUNTRIES.get(self.region.strip().lower())

    @property
    def where(self) -> str:
        """Its location, and the region behind it; for people."""
        if self.location is None:
            return "?"
        return self.location.value if self.region is None else f"{self.location.value} ({self.region})"


def places_from_mapping(tables: Mapping[str, Mapping[str, Any]], path: str = "datavern.places") -> list[Place]:
    """Places as a configuration file names them: ``[datavern.places.logs]``.

    Raises:
        ConfigurationError: an unknown key, a wrong type, a contradiction: each with its path.
    """
    found = []
    for name, values in tables.items():
        where = f"{path}.{name}"
        if not isinstance(values, Mapping):
            raise ConfigurationError(f"{where}: expected a table, [{where}]")
        given = dict(values)
        if "name" in given or "of" in given or "evidence" in given:
            raise ConfigurationError(f"{where}: takes kind, region or location, database and datasets")
        database = given.pop("database", "")
        if isinstance(given.get("datasets"), list):
            given["datasets"] = frozenset(given["datasets"])
        kind = given.setdefault("kind", name if name in get_args(Kind) else "other")
        if kind == "replica" and not database:
            raise ConfigurationError(f"{where}.database: missing; whose replica is it?")
        found.append(checked(Place, {**given, "name": name, "of": database}, path=where))
    return found


def places_of_databases(databases: Mapping[str, Any], ledger: str | None) -> Iterator[Place]:
    """The databases, who stands in for them, and the ledger. No I/O.

    Args:
        databases: name → provider, or anything with a location and a region.
        ledger: name of the database with Datavern's own tables.
    """
    for name, provider in databases.items():
        yield from _members(name, provider, "database")
    if ledger is not None and ledger in databases:
        for place in _members(ledger, databases[ledger], "ledger"):
            yield place if place.kind == "ledger" else _renamed(place, "ledger")


def _members(name: str, provider: Any, kind: Kind) -> Iterator[Place]:
    members: Sequence[Any] = getattr(provider, "members", ()) or (provider,)
    for number, member in enumerate(members):
        region = getattr(member, "region", None)
        yield Place(
            name if number == 0 else getattr(member, "name", name),
            kind if number == 0 else "failover",
            None if region else member.location,
            region,
            "" if _said(member) else "nobody said, so it is global",
            of=name,
        )


def _said(provider: Any) -> bool:
    """Whether its place was configured: a provider of which nobody said where it is counts as anywhere."""
    settings = getattr(provider, "settings", None)
    return settings is None or bool(getattr(settings, "region", None) or getattr(settings, "location", None))


def _renamed(place: Place, kind: Kind) -> Place:
    from dataclasses import replace  # noqa: PLC0415  (few ledgers are groups)

    return replace(place, kind=kind)


def reachable(
    given: Sequence[Place],
    *,
    here: tuple[str | None, str | None],
    keyring: str | None,
    key_copies: Any,
    checkpoints: Iterable[Any],
    databases: Mapping[str, Any],
    datasets: Iterable[Any],
) -> list[Place]:
    """Everything but databases that data, or a key to it, can reach. No I/O.

    Args:
        given: places that were named.
        here: location and region of where this program runs.
        keyring, key_copies, checkpoints, databases: as `places_of_keys` takes them.
        datasets: of the data map.

    Raises:
        ConfigurationError: a place names a database or a dataset that is not there, or contradicts itself.
    """
    location, region = here
    this = Place("this program", "other", None if location is None else Location(location), region)
    own = places_of_keys(keyring, this, key_copies=key_copies, checkpoints=checkpoints, databases=databases)
    known = {dataset.name for dataset in datasets}
    for place in given:
        if place.of and place.of not in databases:
            raise ConfigurationError(f"places.{place.name}.database: no database is named {place.of}")
        for name in place.datasets or ():
            if name not in known:
                raise ConfigurationError(f"places.{place.name}.datasets: no dataset is named {name}")
    said = {place.kind for place in given if place.kind in SINGLE}
    return [*(place for place in own if place.kind not in said), *given]


def places_of_keys(
    keyring: str | None,
    here: Place,
    *,
    key_copies: Any = None,
    checkpoints: Iterable[Any] = (),
    databases: Mapping[str, Any],
) -> Iterator[Place]:
    """Where the keys are, their copies, and the audit log's checkpoints. No I/O.

    Args:
        keyring: its URL.
        here: where this program runs: what is in its files is there.
        key_copies: a folder, something with a place of its own, or None.
        checkpoints: as the manager takes them.
        databases: name → provider.
    """
    if keyring is not None:
        scheme = keyring.partition(":")[0]
        if keyring.startswith(LOCAL_KEYS):
            yield _here(here, scheme, "keyring")
            if key_copies is None and scheme == "file":
                yield _here(here, "beside the keys", "key copies")
        else:
            yield Place(scheme, "keyring", evidence="nobody said where the vault is")
    if isinstance(key_copies, str) or hasattr(key_copies, "__fspath__"):
        yield _here(here, "folder", "key copies")
    elif key_copies is not None:
        yield _told(key_copies, type(key_copies).__name__, "key copies")
    for one in checkpoints:
        kind, _, rest = one.partition(":") if isinstance(one, str) else ("", "", "")
        if kind == "database":
            for place in _members(rest, databases[rest], "checkpoints"):
                yield _renamed(place, "checkpoints")
        elif kind == "file":
            yield _here(here, one, "checkpoints")
        else:
            # A publisher to a database knows its provider, which knows where it is.
            yield _told(getattr(one, "provider", one), getattr(one, "name", type(one).__name__), "checkpoints")


def _here(here: Place, name: str, kind: Kind) -> Place:
    said = here.evidence if here.location is not None else "nobody said where this program runs"
    return Place(name, kind, None if here.region else here.location, here.region, f"a file of this program: {said}")


def _told(what: Any, name: str, kind: Kind) -> Place:
    region, location = getattr(what, "region", None), getattr(what, "location", None)
    return Place(name, kind, None if region else location, region)
