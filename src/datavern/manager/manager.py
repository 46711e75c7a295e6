"""The databases of one application, with everything that spans them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from datavern.connectors.short_form import ShortForm
from datavern.contracts.capabilities import Provider
from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import Health
from datavern.manager.loading import register
from datavern.manager.spanning import Spanning

if TYPE_CHECKING:
    import os

    from datavern.audit.publishing import Publisher
    from datavern.privacy.datamap.datamap import DataMap
    from datavern.privacy.erasure.derived import Derived
    from datavern.privacy.residency.places import Place
    from datavern.privacy.residency.residency import Residency

__all__ = ["DatabaseManager"]


class DatabaseManager(ShortForm, Spanning):
    """The databases of one application, with everything that spans them.

    Args:
        databases: name → provider.
        primary: the short form for one failover group, named ``main``: `secondary` stands in, READ ONLY, while it
            cannot be reached; the manager then answers `query*`, `execute*`, `stream` and `transaction` itself.
        secondary: holds the same data, kept so by the engine's own replication.
        data_map: which personal data lies where.
        keyring: where the keys are (``file:keys``); needed for sealed fields, consent, audit and subject requests.
        ledger: name of the database that holds Datavern's own tables; may be left out when there is only one.
        organisation: who is responsible for the data, as it stands on certificates.
        contact: how the organisation is reached about personal data, as it stands on letters to people.
        dpo: its data protection officer, and how to reach them, as it stands on letters to people.
        key_copies: where a rotation of the keys puts its copy of the key store: a folder, not on the disk of the data,
            or a `datavern.privacy.sealing.rotation.Saved`; with keys in files, a folder beside them when left out.
        checkpoints: where the audit log's checkpoints are published: ``file:folder``, ``database:name``, or a
            `datavern.audit.publishing.Publisher` of your own.
        location: where this program runs: its files are there, key rings among them.
        region: the region identifier of that place instead (``azure:norwayeast``).
        places: where else data gets, as `datavern.privacy.places.Place`: log sinks, backup stores, replicas.
        essential_service: whether digitalsikkerhetsloven asks for notice of serious incidents within 24 hours.
        require_identity: refuse subject requests until it is recorded how it was made sure who asks (`Identity`).
        consent_age: from which age people consent themselves, in years (personopplysningsloven § 5).

    Raises:
        ConfigurationError: a setting contradicts another.
        ResidencyViolation: a dataset would lie, or its keys would, where its classification forbids. Raised on
            entering, before anything is connected.
    """

    def __init__(
        self,
        databases: Mapping[str, Provider] | None = None,
        *,
        primary: Provider | None = None,
        secondary: Provider | None = None,
        data_map: DataMap | None = None,
        keyring: str | None = None,
        ledger: str | None = None,
        organisation: str = "",
        contact: str = "",
        dpo: str = "",
        key_copies: Any = None,
        checkpoints: Sequence[str | Publisher] = (),
        location: str | None = None,
        region: str | None = None,
        places: Sequence[Place] = (),
        essential_service: bool = False,
        require_identity: bool = False,
        consent_age: int = 13,
    ) -> None:
        self._require_identity = require_identity
        self._derived: dict[str, Derived] = {}
        self._consent_age = consent_age
        self._checkpoints = tuple(checkpoints)
        self._here = (location, region)
        self._more_places = tuple(places)
        self._essential_service = essential_service
        self._databases = dict(databases or {})
        if primary is not None or secondary is not None:
            if databases or primary is None or secondary is None:
                raise ConfigurationError("the short form takes primary= and secondary=, both, and no other databases")
            from datavern.connectors.failover import FailoverGroup  # noqa: PLC0415  (few managers have one)

            self._short = FailoverGroup("main", primary=primary, secondaries=[secondary])
            self._databases = {"main": self._short}
        self._data_map = data_map
        self._keyring = keyring
        self._organisation = organisation
        self._reached = {"contact": contact, "dpo": dpo}
        self._key_copies = key_copies
        self._ledger = ledger
        self._privacy = None
        self._open = False
        self._check()

    def _check(self) -> None:
        """Refuse settings that contradict one another, and say which database is the ledger."""
        keyring, data_map = self._keyring, self._data_map
        if not self._databases:
            raise ConfigurationError(
                "a manager needs at least one database: [databases.main], or DatabaseManager({'main': provider})"
            )
        if self._ledger is not None and self._ledger not in self._databases:
            known = ", ".join(self._databases)
            raise ConfigurationError(f"ledger: no database is named {self._ledger}; there are: {known}")
        if keyring is not None and self._ledger is None:
            if len(self._databases) > 1:
                raise ConfigurationError(
                    f"ledger: say which database holds Datavern's own tables: {', '.join(self._databases)}"
                )
            self._ledger = next(iter(self._databases))
        if self._checkpoints:
            from datavern.manager.checkpoints import check_checkpoints  # noqa: PLC0415  (where any are published)

            check_checkpoints(self._checkpoints, self._databases, self._ledger, keyring)
        if data_map is not None:
            data_map.check_databases(self._databases)
            if keyring is None and any(d.needs_keys for d in data_map):
                raise ConfigurationError(
                    "keyring: the data map has sealed fields, and they need keys: keyring='file:keys'"
                )
        if self._here != (None, None) or self._more_places:
            self._places()  # says what is wrong with them

    @classmethod
    def from_config(cls, path: str | os.PathLike[str] = "datavern.toml") -> Self:
        """A manager as a configuration file describes it (USAGE.md §2). Reads the file; connects to nothing.

        Raises:
            ConfigurationError: what is wrong in it, by its key.
        """
        from datavern.manager.configured import read  # noqa: PLC0415  (loads TOML)

        settings, derived = read(path)
        manager = cls(**settings)
        for one in derived:
            manager.derived(one.name, erase=one.erase, access=one.access)
        return manager

    @classmethod
    def register(cls, engine: str, provider: type[Provider]) -> None:
        """Make somebody else's engine known by name, for configuration files (``provider = "new-database"``).

        Raises:
            ConfigurationError: the name is one of Datavern's own engines, or it is no provider class.
        """
        register(engine, provider)

    # ---- opening and closing ----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Check residency, then connect everything and make Datavern's own tables. Idempotent.

        When one part fails, what was opened is closed again.
        """
        if self._open:
            return
        problems = self.compliance_problems()
        if problems:
            raise ConfigurationError("\n".join(problems))
        if self._data_map is not None:
            from datavern.privacy.residency.residency import Residency  # noqa: PLC0415  (only with a data map)

            Residency().check(self._data_map, self._served(), ledger=self._ledger, more=self._places())
        try:
            await self._connect_all()
            if self._keyring is not None:
                await self._open_services()
        except BaseException:
            await self.close()
            raise
        self._open = True

    async def _connect_all(self) -> None:
        results = await asyncio.gather(*(p.connect() for p in self._served().values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _open_services(self) -> None:
        from datavern.manager.checkpoints import publisher  # noqa: PLC0415  (once, when it opens)
        from datavern.privacy.service import Privacy  # noqa: PLC0415  (loads cryptography)

        assert self._keyring is not None  # noqa: S101  (for the type checker: the callers saw to it)
        assert self._ledger is not None  # noqa: S101  (a keyring without a ledger is refused by the constructor)
        privacy = Privacy(
            self._served(),
            data_map=self._data_map,
            keyring=self._keyring,
            ledger=self._ledger,
            organisation=self._organisation,
            **self._reached,
            key_copies=self._key_copies,
            consent_age=self._consent_age,
            publishers=[publisher(one, self._databases) for one in self._checkpoints],
            require_identity=self._require_identity,
            derived=self._derived,
            transfers=lambda: self.residency.transfers(),  # noqa: PLW0108  (as it is when somebody asks, not now)
        )
        await privacy.open()
        self._privacy = privacy
        for provider in self._served().values():
            provider.attach(privacy)
        await privacy.requests.check_restored()
        await privacy.requests.resume()

    def _served(self) -> dict[str, Provider]:
        """The databases, without those that only stand in for another: their group opens them, and writes to none."""
        from datavern.connectors.failover import FailoverGroup  # noqa: PLC0415  (few managers have one)

        groups = [p for p in self._databases.values() if isinstance(p, FailoverGroup)]
        standing_in = {id(member) for group in groups for member in group.secondaries}
        return {name: p for name, p in self._databases.items() if id(p) not in standing_in}

    async def close(self) -> None:
        """Close everything. Idempotent."""
        self._open = False
        privacy, self._privacy = self._privacy, None
        if privacy is not None:
            await privacy.close()
        results = await asyncio.gather(*(p.close() for p in self._databases.values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def compliance_problems(self) -> list[str]:
        """What contradicts the rule sets that the databases are to follow, before anything is connected.

        ``gdpr`` asks for a data map, with purposes or a legal basis for every dataset with sealed fields (GDPR Arts. 6
        and 30). ``nsm`` refuses connections beyond this machine that are not encrypted and verified, keys in the
        environment, and writes to personal data that leave no audit entry (NSM's basic principles 2.7.4, 2.7.1, 3.2.4).

        Returns:
            One line for each problem, with the path of the setting and what to do; empty when all is well.
        """
        from datavern.manager.compliance import problems  # noqa: PLC0415  (once, when it opens)

        return problems(self._databases, data_map=self._data_map, keyring=self._keyring)

    # ---- what it holds ----------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Any:
        """The provider of that name."""
        try:
            return self._databases[name]
        except KeyError:
            raise ConfigurationError(f"no database is named {name}; there are: {', '.join(self._databases)}") from None

    def __iter__(self) -> Iterator[str]:
        """The databases' names."""
        return iter(self._databases)

    def __len__(self) -> int:
        return len(self._databases)

    @property
    def databases(self) -> Mapping[str, Provider]:
        """Name → provider."""
        return dict(self._databases)

    @property
    def data_map(self) -> DataMap | None:
        """Which personal data lies where, or None when nobody said."""
        return self._data_map

    @property
    def organisation(self) -> str:
        """Who is responsible for the data."""
        return self._organisation

    async def health(self) -> dict[str, Health]:
        """Ask every database how it is, all at once."""
        names = list(self._databases)
        found = await asyncio.gather(*(self._databases[n].health() for n in names))
        return dict(zip(names, found, strict=True))

    # ---- where data gets, and what is made of it ---------------------------------------------------------------------

    @property
    def residency(self) -> Residency:
        """Where data may be, and everywhere that it can get."""
        from datavern.privacy.residency.places import places_of_databases  # noqa: PLC0415  (only where it is asked)
        from datavern.privacy.residency.residency import Residency  # noqa: PLC0415  (needs no keys and no databases)

        if self._data_map is None:
            return Residency()
        ledger = self._ledger or (next(iter(self._databases)) if len(self._databases) == 1 else None)
        return Residency(self._data_map, [*places_of_databases(self._served(), ledger), *self._places()])

    def _places(self) -> list[Place]:
        """Everything but databases that data, or a key to it, can reach. No I/O.

        Raises:
            ConfigurationError: a place names a database or a dataset that is not there, or contradicts itself.
        """
        from datavern.privacy.residency.places import reachable  # noqa: PLC0415  (only with a data map)

        return reachable(
            self._more_places,
            here=self._here,
            keyring=self._keyring,
            key_copies=self._key_copies,
            checkpoints=self._checkpoints,
            databases=self._databases,
            datasets=self._data_map or (),
        )

    def derived(self, name: str, *, erase: Any, access: Any = None) -> None:
        """Say that something the application made elsewhere holds personal data: a search index, an export, a cache.

        Every erasure calls `erase`, last of all and again until it is done, and names it on the certificate. Say it
        before the manager opens, so that what a crash left open can go on at once.

        Args:
            name: what it is called on certificates.
            erase: ``async def erase(subject) -> int | None`` takes a person (the canonical id) out of it, and says how
                much that was. It may be called again for the same person, and finds nothing then.
            access: ``async def access(subject) -> list of mappings``: what is there about a person; None: an access
                request says nothing of it.

        Raises:
            ConfigurationError: the name is taken, or none; no function; or the manager has no keyring, and so no
                subject requests.
        """
        from datavern.privacy.erasure.derived import Derived  # noqa: PLC0415  (few managers have one)

        if self._keyring is None:
            raise ConfigurationError(f"derived.{name}: without a keyring there are no subject requests: keyring=")
        if name in self._derived:
            raise ConfigurationError(f"derived.{name}: there is one of that name")
        self._derived[name] = Derived(name, erase, access)
