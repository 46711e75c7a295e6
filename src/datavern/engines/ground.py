"""What every engine's provider begins with: checked settings, and what follows from them. Nothing here does I/O."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

from datavern.config import Secret, checked
from datavern.contracts import services
from datavern.contracts.errors import ConfigurationError
from datavern.contracts.regions import locate
from datavern.contracts.values import Location
from datavern.engines.idempotency import KEPT

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Capabilities, Provider, Services
    from datavern.engines.mapped import Mapped

__all__ = ["Ground", "RelationalGround"]


class Ground:
    """The ground of a provider. `_begin_with` is the first thing that its constructor does."""

    engine: str

    secrets: ClassVar[tuple[str, ...]] = ("password",)
    """Settings that are taken as text, too, and kept as a `Secret`."""

    kind: ClassVar[Any]
    """The class of its settings."""

    needed: ClassVar[tuple[str, str] | None] = None
    """The setting that no configuration file can leave out, and what is expected there."""

    settings: Any
    name: str
    region: str | None
    location: Location
    compliance: frozenset[str]
    face: Provider
    _capabilities: Capabilities

    # ---- what an engine fills in ------------------------------------------------------------------------------------

    def _set_up(self, values: dict[str, Any], *, path: str) -> None:
        """Check the settings and make what needs no I/O."""
        raise NotImplementedError

    @staticmethod
    def _parse_url(url: str) -> dict[str, Any]:
        """The settings that a URL of this engine holds. Raises `ConfigurationError`, without the URL."""
        raise NotImplementedError

    def _understand(self, path: str) -> None:
        """What the checked settings mean beyond themselves. Raises `ConfigurationError`: a contradiction."""

    async def connect(self) -> None:
        """Open it. Idempotent."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close it. Idempotent."""
        raise NotImplementedError

    # ---- how it is made ---------------------------------------------------------------------------------------------

    def _begin_with(self, values: dict[str, Any], *, path: str) -> None:
        """What every provider has."""
        for key in self.secrets:
            given = values.get(key)
            if given is not None and not isinstance(given, Secret):
                values[key] = Secret(given, origin=f"{path}.{key}")
        if not isinstance(values.get("compliance", ""), str):
            values["compliance"] = frozenset(values["compliance"])
        settings: Any = checked(self.kind, values, path=path)
        self.settings = settings
        self.name = settings.name
        self.region = settings.region
        self.location = _location(settings, path)
        self.compliance = frozenset(settings.compliance)
        self.face = self  # type: ignore[assignment]  # with what the engine adds it is a provider
        self._understand(path)
        if "nsm" in self.compliance and not self.encrypted:
            raise ConfigurationError(
                f"{path}.tls: compliance nsm refuses an unencrypted or unverified connection beyond this machine "
                "(NSM 2.7.4): use TLS(verify='full')"
            )

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:
        """A provider from a URL, and settings beside it: ``postgresql://…``, ``mssql://…``, ``redis://…``.

        Raises:
            ConfigurationError: as the constructor does; also where both say something different.
        """
        name = settings.pop("name", cls.engine)
        return cls.from_settings(name, {"url": url, **settings}, path=name)

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, Any], *, path: str | None = None) -> Self:
        """A provider as a configuration file describes it, ``url`` among the settings or not.

        Raises:
            ConfigurationError: an unknown key, a wrong type, a contradiction: each with its path.
        """
        path = path or f"databases.{name}"
        values = {key: value for key, value in settings.items() if key not in {"url", "provider"}}
        url = settings.get("url")
        if isinstance(url, Secret):
            url = url.reveal()
        if url is not None:
            values = _merged(cls._parse_url(url), values, path)
        if cls.needed is not None and cls.needed[0] not in values:
            known = {one.name for one in fields(cls.kind)}
            if not known.issuperset(values):
                checked(cls.kind, {"name": name, **values}, path=path)  # says which it does not know, and what is near
            raise ConfigurationError(f"{path}.{cls.needed[0]}: missing; expected {cls.needed[1]}")
        provider = cls.__new__(cls)
        provider._set_up({"name": name, **values}, path=path)  # noqa: SLF001  (the other half of the constructor)
        return provider

    # ---- what it is -------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._capabilities

    @property
    def encrypted(self) -> bool:
        """Whether the connection is encrypted and verified, or cannot leave this machine."""
        return bool(self.settings.local or self.settings.effective_tls.verify == "full")

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class RelationalGround(Ground):
    """The ground of a provider that is a session, and can keep Datavern's own tables."""

    _fusing: Any

    def _begin_with(self, values: dict[str, Any], *, path: str) -> None:
        super()._begin_with(values, path=path)
        self._services: Services | None = None
        self._mapped: Mapped | None = None

    @property
    def provider(self) -> Self:
        """Itself: a provider is a session whose statements are each a transaction of their own."""
        return self

    async def purge_idempotency(self, older_than: dt.timedelta = KEPT) -> int:
        """Forget the idempotency keys of changes that are older; how many. A change could be made again after that.

        Raises:
            ConfigurationError: no length of time.
        """
        return int(await self._fusing.purge(older_than))

    async def store_personal_data(self, data: Mapping[str, Any], consent: Any) -> Any:
        """Seal `data` and keep it in the built-in ``personal_data`` table, with consent and audit.

        Raises:
            ConfigurationError: the provider belongs to no manager and has no keyring.
        """
        if self._services is None:
            alone: Any = self
            self._services = await services.serve_alone(alone, self.settings.keyring, "store_personal_data")
        return await self._services.store_personal_data(self.face, data, consent)


def _merged(found: dict[str, Any], given: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A URL's settings and those beside it, which may not contradict it."""
    for key, value in given.items():
        if key in found and found[key] != value:
            raise ConfigurationError(f"{path}.{key}: contradicts the url, which has one too: leave one of them out")
    return {**found, **given}


def _location(settings: Any, path: str) -> Location:
    """Where the data is: the region is evidence, the label is not."""
    if settings.region is None:
        return settings.location or Location.GLOBAL
    found = locate(settings.region)
    if settings.location is not None and settings.location != found:
        raise ConfigurationError(
            f"{path}.location: contradicts region: it is {settings.location}, and the region {settings.region} is in "
            f"{found}: leave it out"
        )
    return found
