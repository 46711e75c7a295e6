"""The one place where the parts are wired together, and the only one that loads an engine, by its name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from datavern.connectors.short_form import ShortForm
from datavern.contracts.capabilities import Provider
from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import Health

if TYPE_CHECKING:
    import os

    from datavern.audit.publishing import Publisher
    from datavern.audit.service import Audit
    from datavern.connectors.failover import FailoverGroup
    from datavern.crypto.keystore import KeyStore
    from datavern.privacy.breach.register import Breaches
    from datavern.privacy.consent.consent import Consents
    from datavern.privacy.datamap.datamap import DataMap
    from datavern.privacy.datamap.dataset import Dataset
    from datavern.privacy.erasure.derived import Derived
    from datavern.privacy.holds.holds import Holds
    from datavern.privacy.personal.store import PersonalStore
    from datavern.privacy.requests.requests import SubjectRequests
    from datavern.privacy.residency.places import Place
    from datavern.privacy.residency.residency import Residency
    from datavern.privacy.retention.run import Retention
    from datavern.privacy.service import Privacy

__all__ = ["DatabaseManager"]

# engine → module, class, and the extra that brings its driver.
_ENGINES: dict[str, tuple[str, str, str | None]] = {
    "azuresql": ("datavern.engines.azuresql.provider", "AzureSQLProvider", "azuresql"),
    "mongodb": ("datavern.engines.mongodb.provider", "MongoDBProvider", "mongodb"),
    "postgresql": ("datavern.engines.postgresql.provider", "PostgreSQLProvider", "postgresql"),
    "redis": ("datavern.engines.redis.provider", "RedisProvider", "redis"),
    "sqlite": ("datavern.engines.sqlite.provider", "SQLiteProvider", None),
}
_registered: dict[str, type[Provider]] = {}


def provider_class(engine: str) -> type[Provider]:
    """The provider class of an engine: Datavern's own, a registered one, or one of the entry points.

    Raises:
        ConfigurationError: no such engine; its driver is not installed (says which extra brings it); an entry point
            that does not load, or two of one name.
    """
    if engine in _registered:
        return _registered[engine]
    if engine in _ENGINES:
        module, name, extra = _ENGINES[engine]
        missing = ""
        try:
            return getattr(import_module(module), name)  # type: ignore[no-any-return]  # it is that class
        except ModuleNotFoundError as error:
            if extra is None or (error.name or "").startswith("datavern"):
                raise
            missing = error.name or ""
        raise ConfigurationError(f"the {engine} engine needs the driver {missing}: pip install 'datavern[{extra}]'")
    from importlib.metadata import entry_points  # noqa: PLC0415  (only for an engine that is not ours)

    points = list(entry_points(group="datavern.providers", name=engine))
    if len(points) > 1:
        names = " and ".join(sorted(point.dist.name if point.dist else point.value for point in points))
        raise ConfigurationError(
            f"the engine {engine} is brought by {names}: uninstall one, or register the one you want"
        )
    if points:
        try:
            found = points[0].load()
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(f"the engine {engine} does not load from {points[0].value}: {error}") from error
        return _provider(engine, found)
    known = sorted({*_ENGINES, *_registered, *(p.name for p in entry_points(group="datavern.providers"))})
    raise ConfigurationError(f"no engine is named {engine}; there are: {', '.join(known)}")


def _provider(engine: str, found: Any) -> type[Provider]:
    """What was registered, if it can be made from a configuration file."""
    if not isinstance(found, type) or not callable(getattr(found, "from_settings", None)):
        raise ConfigurationError(
            f"the engine {engine}: expected a provider class with from_settings(name, settings), not {found!r}"
        )
    return found


class DatabaseManager(ShortForm):
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
        self._key_copies = key_copies
        self._ledger = ledger
        self._privacy: Privacy | None = None
        self._breaches: tuple[Privacy, Breaches] | None = None
        self._open = False
        if not self._databases:
            raise ConfigurationError("a manager needs at least one database: DatabaseManager({'main': provider})")
        if ledger is not None and ledger not in self._databases:
            raise ConfigurationError(f"ledger: no database is named {ledger}; there are: {', '.join(self._databases)}")
        if keyring is not None and ledger is None:
            if len(self._databases) > 1:
                raise ConfigurationError(
                    f"ledger: say which database holds Datavern's own tables: {', '.join(self._databases)}"
                )
            self._ledger = next(iter(self._databases))
        _check_checkpoints(self._checkpoints, self._databases, self._ledger, keyring)
        if data_map is not None:
            data_map.check_databases(self._databases)
            if keyring is None and any(d.needs_keys for d in data_map):
                raise ConfigurationError(
                    "keyring: the data map has sealed fields, and they need keys: keyring='file:keys'"
                )
        if location is not None or region is not None or self._more_places:
            self._places()  # says what is wrong with them

    @classmethod
    def from_config(cls, path: str | os.PathLike[str] = "datavern.toml") -> Self:
        """A manager as a configuration file describes it (USAGE.md §2). Reads the file; connects to nothing.

        Raises:
            ConfigurationError: what is wrong in it, by its key.
        """
        from datavern.config import load  # noqa: PLC0415  (loads TOML)

        config = load(path)
        databases: dict[str, Provider] = {}
        for name, values in config.databases.items():
            settings = {k: v for k, v in values.items() if k not in ("provider", "failover", *_GROUP_SETTINGS)}
            kind: Any = provider_class(values["provider"])
            databases[name] = kind.from_settings(name, settings)
        for name, values in config.databases.items():
            options = {k: values[k] for k in _GROUP_SETTINGS if k in values}
            if values.get("failover"):
                databases[name] = _group(name, values["failover"], databases, options)
            elif options:
                raise ConfigurationError(
                    f"databases.{name}.{next(iter(options))}: is for a failover group, and stands without failover = "
                    "[…]"
                )
        data_map = None
        if config.datasets is not None:
            from datavern.privacy.datamap.datamap import DataMap  # noqa: PLC0415  (only when there is one)

            data_map = DataMap.from_mapping(config.datasets)
        general = config.general
        places: Sequence[Place] = ()
        if general.places:
            from datavern.privacy.residency.places import places_from_mapping  # noqa: PLC0415  (few files name any)

            places = places_from_mapping(general.places)
        manager = cls(
            databases,
            data_map=data_map,
            keyring=general.keyring,
            ledger=general.ledger,
            organisation=general.organisation,
            key_copies=general.key_copies,
            consent_age=general.consent_age,
            checkpoints=general.checkpoints,
            location=general.location,
            region=general.region,
            places=places,
            essential_service=general.essential_service,
            require_identity=general.require_identity,
        )
        if config.derived:
            from datavern.privacy.erasure.derived import from_names  # noqa: PLC0415  (few files name any)

            for one in from_names(config.derived):
                manager.derived(one.name, erase=one.erase, access=one.access)
        return manager

    @classmethod
    def register(cls, engine: str, provider: type[Provider]) -> None:
        """Make somebody else's engine known by name, for configuration files (``provider = "new-database"``).

        Raises:
            ConfigurationError: the name is one of Datavern's own engines, or it is no provider class.
        """
        if engine in _ENGINES:
            raise ConfigurationError(f"{engine} is one of Datavern's own engines: register yours under another name")
        _registered[engine] = _provider(engine, provider)

    @classmethod
    async def around(cls, provider: Provider, keyring: str) -> Privacy:
        """The services of a provider that is open already and belongs to no manager.

        One that cannot hold Datavern's own tables gets a key store beside its key ring, in a SQLite file.

        Raises:
            ConfigurationError: the key ring lies in no folder, so there is no place beside it.
        """
        if provider.capabilities.ledger is not None:
            manager = cls({provider.name: provider}, keyring=keyring)
            await manager._open_services()
            return manager.services
        beside = _key_store_beside(keyring, provider)
        name = beside.name
        manager = cls({provider.name: provider, name: beside}, keyring=keyring, ledger=name)
        from datavern.crypto.keyring import Keyring  # noqa: PLC0415  (loads cryptography)

        ring = Keyring.from_url(keyring)
        await ring.open()  # no file is made beside a ring that is not there
        await ring.close()
        try:
            await beside.connect()
            await manager._open_services()
        except BaseException:
            await beside.close()
            raise
        manager.services.beside = beside
        return manager.services

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
        from datavern.privacy.service import Privacy  # noqa: PLC0415  (loads cryptography)

        assert self._keyring is not None  # noqa: S101  (for the type checker: the callers saw to it)
        assert self._ledger is not None  # noqa: S101  (a keyring without a ledger is refused by the constructor)
        privacy = Privacy(
            self._served(),
            data_map=self._data_map,
            keyring=self._keyring,
            ledger=self._ledger,
            organisation=self._organisation,
            key_copies=self._key_copies,
            consent_age=self._consent_age,
            publishers=[_publisher(one, self._databases) for one in self._checkpoints],
            require_identity=self._require_identity,
            derived=self._derived,
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
        problems: list[str] = []
        for name, provider in self._databases.items():
            where = f"databases.{name}: compliance"
            if "nsm" in provider.compliance:
                problems += [f"{where} nsm {problem}" for problem in self._nsm_problems(name, provider)]
            if "gdpr" in provider.compliance and self._data_map is None:
                problems.append(
                    f"{where} gdpr asks for a data map: say which personal data lies where (data_map=, or [datasets] "
                    "in the configuration file), or that there is none (data_map=DataMap(), or an empty [datasets])"
                )
            elif "gdpr" in provider.compliance and self._data_map is not None:
                problems += self._data_map.without_basis(name)
        return problems

    def _nsm_problems(self, name: str, provider: Provider) -> Iterator[str]:
        if not provider.encrypted:
            yield (
                "refuses an unencrypted or unverified connection beyond this machine (NSM 2.7.4): use tls verify full"
            )
        if self._keyring is not None and self._keyring.startswith("env:"):
            yield "refuses keys in the environment (NSM 2.7.1): use file:"
        if self._keyring is None and self._data_map is not None and self._data_map.of_database(name):
            yield (
                "refuses writes to personal data that leave no audit entry (NSM 3.2.4), and without a keyring there is "
                "no audit log: give the manager keyring='file:keys'"
            )

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

    # ---- what spans them --------------------------------------------------------------------------------------------

    @property
    def services(self) -> Privacy:
        """Keys, audit, consents and personal data, wired together.

        Raises:
            ConfigurationError: the manager has no keyring, or is not open.
        """
        if self._privacy is None:
            what = "open it first: async with manager" if self._keyring else "give it keyring='file:keys'"
            raise ConfigurationError(f"the manager has no keys: {what}")
        return self._privacy

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

    @property
    def consents(self) -> Consents:
        """Consent: grant, withdraw, list."""
        return self.services.consents

    @property
    def holds(self) -> Holds:
        """Legal holds: place, release, list."""
        return self.services.holds

    @property
    def retention(self) -> Retention:
        """Retention runs: what is past its time ends, as the data map says."""
        return self.services.retention

    @property
    def audit(self) -> Audit:
        """The audit log: record, seal, verify, prove."""
        return self.services.audit

    @property
    def keys(self) -> KeyStore:
        """The key store."""
        return self.services.keys

    @property
    def subject_requests(self) -> SubjectRequests:
        """Requests of the people that the data is about."""
        return self.services.requests

    @property
    def breaches(self) -> Breaches:
        """The register of personal data breaches: what happened, whom it touched, what was done, and by when."""
        services = self.services
        if self._breaches is None or self._breaches[0] is not services:
            from datavern.privacy.breach.register import Breaches  # noqa: PLC0415  (with luck, never)

            self._breaches = services, Breaches(services, essential=self._essential_service)
        return self._breaches[1]

    def personal(self, dataset: str) -> PersonalStore:
        """The rows of a dataset, sealed and opened.

        Raises:
            ResidencyViolation: it is graded, and the approval to have it where it is has ended.
        """
        found = self.services.personal(dataset)
        if found.dataset.approval is not None:
            self._still_approved(found.dataset)
        return found

    def _still_approved(self, dataset: Dataset) -> None:
        """Refuse a dataset whose approval ended since the manager was opened."""
        residency = self.residency
        for place in residency.places:
            if place.location is not None and place.holds(dataset.name, dataset.database):
                residency.move(dataset, place)

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

    async def seal(self, column: str, **options: Any) -> Any:
        """Seal a plain column in place, while it is used: ``await db.seal("users.personal_number")``; again to go on.

        Args:
            column: ``dataset.field``; the data map calls it sealed.
            options: ``rewrite`` ("full", "plain" or None), ``batch_size``, ``step``: as `InPlace` takes them.
        """
        rewrite = options.pop("rewrite", "full")
        return await self.services.in_place(column, **options).seal(rewrite=rewrite)

    async def unseal(self, column: str, **options: Any) -> Any:
        """The way back: values in the clear, of the type ``kind`` ("text"). The data map is to say so afterwards."""
        rewrite, kind = options.pop("rewrite", "full"), options.pop("kind", "text")
        return await self.services.in_place(column, **options).unseal(kind=kind, rewrite=rewrite)

    async def prepare(self, dataset: str) -> Any:
        """Make the dataset's store fit the data map, and say what was run (prints as DDL). Idempotent."""
        return await self.services.prepare(dataset)


def _check_checkpoints(
    checkpoints: Sequence[str | Publisher], databases: Mapping[str, Provider], ledger: str | None, keyring: str | None
) -> None:
    """See that checkpoints can be published where they are to be.

    Raises:
        ConfigurationError: not there, or not without keys.
    """
    if checkpoints and keyring is None:
        raise ConfigurationError("checkpoints: without a keyring there is no audit log: keyring='file:keys'")
    for one in checkpoints:
        if not isinstance(one, str):
            continue
        kind, _, rest = one.partition(":")
        if kind not in {"file", "database"} or not rest:
            raise ConfigurationError(f"checkpoints: {one}: expected file:folder or database:name")
        if kind == "database" and rest not in databases:
            raise ConfigurationError(f"checkpoints: no database is named {rest}; there are: {', '.join(databases)}")
        if kind == "database" and rest == ledger:
            raise ConfigurationError(
                f"checkpoints: {rest} is the ledger: whoever can set its log back can set them back too; take another"
            )


def _publisher(one: str | Publisher, databases: Mapping[str, Provider]) -> Publisher:
    if not isinstance(one, str):
        return one
    from datavern.audit.publishing import DatabasePublisher, FilePublisher  # noqa: PLC0415  (few managers have one)

    kind, _, rest = one.partition(":")
    return FilePublisher(rest) if kind == "file" else DatabasePublisher(databases[rest])


_GROUP_SETTINGS = ("replicas_read", "max_lag", "patroni")


def _key_store_beside(keyring: str, provider: Provider) -> Provider:
    """The database for the keys of a provider that is used alone and cannot hold them. Nothing is opened."""
    scheme, _, where = keyring.partition(":")
    if scheme != "file":
        raise ConfigurationError(
            f"{provider.name}: keyring={scheme}: has no folder, and the keys of people and data need a key store: put "
            "the provider in a DatabaseManager with a relational database, which is its ledger"
        )
    from pathlib import Path  # noqa: PLC0415  (only for such a provider)

    ring = Path(where).absolute()
    settings = {"path": str(ring.with_name(f"{ring.name}-store.db")), "location": provider.location}
    kind: Any = provider_class("sqlite")
    return kind.from_settings(f"{provider.name}-keys", settings)  # type: ignore[no-any-return]  # a provider


def _group(name: str, secondaries: Any, databases: Mapping[str, Provider], options: Mapping[str, Any]) -> FailoverGroup:
    """The failover group that a configuration file's ``failover = [...]`` describes."""
    from datavern.connectors.failover import FailoverGroup  # noqa: PLC0415  (few managers have one)

    where = f"databases.{name}.failover"
    if not isinstance(secondaries, list) or not all(isinstance(other, str) for other in secondaries):
        raise ConfigurationError(f'{where}: expected a list of databases, such as ["standby"]')
    for other in secondaries:
        if other == name or other not in databases:
            others = ", ".join(sorted(set(databases) - {name})) or "none"
            raise ConfigurationError(f"{where}: {other} is no other database; there are: {others}")
        if isinstance(databases[other], FailoverGroup):
            raise ConfigurationError(
                f"{where}: {other} has a failover of its own: a group does not stand in for another"
            )
    return FailoverGroup(
        name, primary=databases[name], secondaries=[databases[other] for other in secondaries], **options
    )
