"""Making the engine: SQLAlchemy's own, with a dialect whose connections are the provider's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["make_engine"]


def make_engine(provider: Any, dialect: type[Any], options: dict[str, Any]) -> AsyncEngine:
    """An async engine over the provider.

    Args:
        provider: a relational provider; it may be opened later, before the first connection.
        dialect: its dialect; an instance gets the attribute ``provider``, and its DB-API too.
        options: as `sqlalchemy.ext.asyncio.create_async_engine` takes them, but those of a pool.

    Raises:
        ConfigurationError: greenlet is not installed, or an option that the provider decides.
    """
    try:
        import greenlet  # noqa: F401, PLC0415  (SQLAlchemy says less about what to do)
        from sqlalchemy import URL, event  # noqa: PLC0415
        from sqlalchemy.dialects import registry  # noqa: PLC0415
        from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415
        from sqlalchemy.pool import NullPool  # noqa: PLC0415

        missing = ""
    except ModuleNotFoundError as error:
        missing = error.name or "greenlet"
    if missing:
        raise ConfigurationError(f"sqlalchemy_engine needs {missing}: pip install 'datavern[sqlalchemy]'")
    ours = sorted(
        name for name in options if name.startswith("pool") or name in {"max_overflow", "connect_args", "creator"}
    )
    if ours:
        raise ConfigurationError(
            f"sqlalchemy_engine: {ours[0]} is the provider's to decide: its pool= and its other settings say so"
        )
    from datavern.engines.alchemy.writing import before_execute  # noqa: PLC0415

    registry.register(f"{dialect.name}.datavern", dialect.__module__, dialect.__qualname__)
    url = URL.create(f"{dialect.name}+datavern", database=provider.name)
    engine = create_async_engine(url, poolclass=NullPool, **{"hide_parameters": True, **options})
    made: Any = engine.dialect
    made.provider = made.dbapi.provider = provider
    event.listen(engine.sync_engine, "before_execute", before_execute, retval=True)
    return engine
