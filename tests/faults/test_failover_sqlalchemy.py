"""SQLAlchemy's sessions over a failover group: the engine follows the primary."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from pairs import Pair
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from datavern.testing.postgresql import PostgreSQLServer
from datavern.testing.replicas import PostgreSQLReplica, kill, promote


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "kept_notes"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str] = mapped_column(sa.Text)


@pytest.fixture(scope="module")
def servers() -> Iterator[Pair]:
    with PostgreSQLServer() as primary, PostgreSQLReplica(primary) as standby:
        yield Pair(primary, standby)


async def test_the_engine_follows_the_primary(servers: Pair) -> None:
    await servers.synchronous(True)
    async with servers.group() as group:
        engine = group.sqlalchemy_engine()
        session = async_sessionmaker(engine, expire_on_commit=False)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with session() as s:
            s.add(Note(id=1, text="before"))
            await s.commit()
            s.add(Note(id=2, text="never"))
            await s.flush()
            await asyncio.to_thread(kill, servers.primary)
            with pytest.raises(DBAPIError) as caught:
                await s.commit()
            assert caught.value.connection_invalidated
        promoted = asyncio.create_task(asyncio.to_thread(promote, servers.standby))
        async with session() as s:  # waits for the new primary
            s.add(Note(id=3, text="after"))
            await s.commit()
            assert (await s.scalars(sa.select(Note.text).order_by(Note.id))).all() == ["before", "after"]
        await promoted
        assert group.leading.name == "bergen"
        assert group.leading.stats().in_use == 0
