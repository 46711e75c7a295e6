"""Engines, loaded by their names: Datavern's own, registered ones, and those of the entry points."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from datavern.contracts.capabilities import Provider
from datavern.contracts.errors import ConfigurationError

__all__ = ["provider_class", "register"]

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


def register(engine: str, provider: type[Provider]) -> None:
    """Make somebody else's engine known by name. See `DatabaseManager.register`."""
    if not isinstance(engine, str) or not engine or engine != engine.strip():
        raise ConfigurationError("register: expected the engine's name, as it stands in a configuration file")
    if engine in _ENGINES:
        raise ConfigurationError(f"{engine} is one of Datavern's own engines: register yours under another name")
    _registered[engine] = _provider(engine, provider)
