"""Making the engine: SQLAlchemy's own, with a dialect whose connections are the provider's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, overload

from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from datavern.background import Background

Dialects: TypeAlias = tuple[type[Any], type[Any]]

__all__ = ["make_engine"]


@overload
def make_engine(provider: Any, dialects: Dialects, options: dict[str, Any], background: None) -> AsyncEngine: ...


@overload
def make_engine(provider: Any, dialects: Dialects, options: dict[str, Any], background: Background[Any]) -> Engine: ...


def make_engine(
    provider: Any, dialects: Dialects, options: dict[str, Any], background: Background[Any] | None
) -> AsyncEngine | Engine:
    """An engine over the provider.

    Args:
        provider: a relational provider; it may be opened later, before the first connection.
        dialects: its dialect for asyncio, and the one that waits for a background's loop. An instance gets the
            attributes ``provider`` and ``background``, and its DB-API too.
        options: as `sqlalchemy.ext.asyncio.create_async_engine` takes them, but those of a pool.
        background: where the provider is open, for an engine without asyncio.

    Raises:
        ConfigurationError: greenlet is not installed, or an option that the provider decides.
    """
    try:
        import greenlet  # noqa: F401, PLC0415  (SQLAlchemy says less about what to do)
        from sqlalchemy import URL, create_engine, event  # noqa: PLC0415
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

    dialect = dialects[background is not None]
    registry.register(f"{dialect.name}.{dialect.driver}", dialect.__module__, dialect.__qualname__)
    url = URL.create(f"{dialect.name}+{dialect.driver}", database=provider.name)
    create: Any = create_async_engine if background is None else create_engine
    engine: Any = create(url, poolclass=NullPool, **{"hide_parameters": True, **options})
    made: Any = engine.dialect
    made.provider = made.dbapi.provider = provider
    made.background = made.dbapi.background = background
    event.listen(
        engine if background is not None else engine.sync_engine, "before_execute", before_execute, retval=True
    )
    return engine  # type: ignore[no-any-return]  # what it was made with
