"""SQLAlchemy over Azure SQL: reads, transactions, streams and errors on a real connection; its writes as T-SQL."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
import sqlglot
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import CreateTable
from tests.waiting import until

from datavern import ConfigurationError
from datavern.background import Background
from datavern.engines.azuresql.alchemy import Dialect
from datavern.engines.azuresql.statements import Effect, effect, places
from datavern.sqlalchemy import Sealed


class Base(DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.Unicode(50))


class Case(Base):
    __tablename__ = "cases"
    id: Mapped[int] = mapped_column(primary_key=True)
    who: Mapped[str] = mapped_column(sa.Unicode(50))
    name: Mapped[str | None] = mapped_column(Sealed(unique=True))


@pytest.fixture
async def engine(azuresql):
    engine = azuresql.sqlalchemy_engine()
    yield engine
    await engine.dispose()


async def test_rows_come_as_objects_and_as_rows(engine, azuresql):
    async with async_sessionmaker(engine)() as session:
        people = (await session.scalars(sa.select(Person).where(Person.id < 3).order_by(Person.id))).all()
        assert [(p.id, p.name) for p in people] == [(1, "Åse"), (2, "Øystein")]
        assert (await session.get(Person, 5)).name == "O'Neil"
    async with engine.connect() as connection:
        found = await connection.execute(sa.text("SELECT id, name FROM people WHERE name = :name"), {"name": "O'Neil"})
        assert [dict(row) for row in found.mappings()] == [{"id": 5, "name": "O'Neil"}]
        assert await connection.scalar(sa.select(sa.func.count()).select_from(Person)) == 7
        assert (await connection.execute(sa.select(Person).limit(2).order_by(Person.id))).all() == [
            (1, "Åse"), (2, "Øystein"),
        ]  # fmt: skip
    assert azuresql.stats().in_use == 0


async def test_rows_of_a_stream_come_as_they_are_fetched(engine, azuresql):
    async with engine.connect() as connection:
        rows = await connection.stream(sa.select(Person.id).order_by(Person.id))
        assert [row.id async for row in rows] == [1, 2, 3, 4, 5, 6, 7]
        rows = await connection.stream(sa.select(Person.id).order_by(Person.id))
        async for row in rows:
            assert row.id == 1
            break
        await rows.close()
        assert await connection.scalar(sa.text("SELECT 1")) == 1
    assert azuresql.stats().in_use == 0


async def test_a_transaction_is_one_and_its_savepoints_are_the_servers(engine, azuresql):
    async with engine.connect() as connection:
        assert await connection.scalar(sa.text("SELECT @@TRANCOUNT")) == 1
        assert azuresql.stats().in_use == 1
        async with connection.begin_nested():
            assert await connection.scalar(sa.text("SELECT 2")) == 2
        with pytest.raises(ZeroDivisionError):
            async with connection.begin_nested():
                raise ZeroDivisionError
        assert await connection.scalar(sa.text("SELECT 3")) == 3
        await connection.commit()
        assert azuresql.stats().in_use == 0
    async with engine.connect() as connection:
        own = await connection.execution_options(isolation_level="AUTOCOMMIT")
        assert await own.scalar(sa.text("SELECT @@TRANCOUNT")) == 0
        assert azuresql.stats().in_use == 0


async def test_levels_of_isolation(engine):
    async with engine.connect() as connection:
        assert await connection.get_isolation_level() == "READ COMMITTED"
        strict = await connection.execution_options(isolation_level="SERIALIZABLE")
        assert await strict.get_isolation_level() == "SERIALIZABLE"
        assert await strict.scalar(sa.text("SELECT 1")) == 1


async def test_errors_are_a_db_apis_and_quote_no_value(engine, azuresql):
    async with engine.connect() as connection:
        with pytest.raises(ProgrammingError, match="no such table") as caught:
            await connection.execute(sa.text("SELECT * FROM nothing_here WHERE a = :a"), {"a": "13097248022"})
        assert caught.value.orig.sqlstate == "208"
        assert "13097248022" not in str(caught.value)
        await connection.rollback()
        with pytest.raises(ProgrammingError, match="use transaction"):
            await connection.execute(sa.text("COMMIT"))
    assert azuresql.stats().in_use == 0


async def test_a_server_that_goes_away_is_told_and_forgotten(make, engine, azuresql):
    async with engine.connect() as connection:
        assert await connection.scalar(sa.text("SELECT 1")) == 1
        adapter = (await connection.get_raw_connection()).dbapi_connection
        adapter.session()._slot.connection.wire.abort()
        with pytest.raises(DBAPIError) as caught:
            await connection.scalar(sa.text("SELECT 1"))
        assert caught.value.connection_invalidated
    async with engine.connect() as connection:
        assert await connection.scalar(sa.text("SELECT 1")) == 1


async def test_cancelled_it_gives_its_connection_back(engine, azuresql):
    async def work():
        async with engine.connect() as connection:
            await connection.scalar(sa.text("SELECT 1"))
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await until(lambda: azuresql.stats().in_use)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not azuresql.stats().in_use)


async def test_options_that_are_the_providers(azuresql):
    with pytest.raises(ConfigurationError, match="pool_size is the provider's to decide"):
        azuresql.sqlalchemy_engine(pool_size=5)


async def test_without_asyncio(server):
    from datavern import DatabaseManager
    from datavern.engines.azuresql.provider import AzureSQLProvider

    def work():
        provider = AzureSQLProvider.from_settings("main", {**server.settings, "location": "norway"})
        with Background(DatabaseManager({"main": provider})) as background:
            engine = background.opened["main"].sqlalchemy_engine(background=background)
            with engine.connect() as connection:
                found = connection.execute(sa.select(Person.name).where(Person.id == 1)).all()
            engine.dispose()
            return found

    assert await asyncio.to_thread(work) == [("Åse",)]


def speaking() -> Dialect:
    """The dialect, as it is once it has asked a server."""
    dialect = Dialect(paramstyle="numeric_dollar")
    dialect.server_version_info = (16, 0)
    dialect._setup_version_attributes()
    return dialect


def test_texts_of_models_hold_every_letter_and_stand_in_keys():
    table = sa.Table(
        "t", sa.MetaData(), sa.Column("id", sa.String, primary_key=True), sa.Column("code", sa.String(20), unique=True),
        sa.Column("note", sa.Text), sa.Column("other", sa.Unicode), sa.Column("plain", sa.VARCHAR(10)),
        sa.Column("lookup", sa.LargeBinary, index=True), sa.Column("data", sa.LargeBinary), sa.Column("doc", sa.JSON),
        sa.Column("who", sa.Uuid), sa.Column("at", sa.DateTime(timezone=True)), sa.Column("yes", sa.Boolean),
    )  # fmt: skip
    text = " ".join(str(CreateTable(table).compile(dialect=speaking())).split())
    assert "id nvarchar(450) COLLATE Latin1_General_100_BIN2 NOT NULL" in text
    for said in (
        "code NVARCHAR(20) NULL", "note NVARCHAR(max)", "other NVARCHAR(max)", "plain VARCHAR(10)",
        "lookup varbinary(255)", "data VARBINARY(max)", "doc NVARCHAR(max)", "who UNIQUEIDENTIFIER",
        "at DATETIMEOFFSET", "yes BIT",
    ):  # fmt: skip
        assert said in text


def test_many_rows_have_no_tag_and_no_index():
    text = " ".join(str(CreateTable(Case.__table__).compile(dialect=speaking())).split())
    assert "INDEX cases_datavern_row UNIQUE (datavern_row) WHERE datavern_row IS NOT NULL" in text
    assert "INDEX cases_name_lookup UNIQUE (name_lookup) WHERE name_lookup IS NOT NULL" in text
    assert "UNIQUE (code)" in str(
        CreateTable(sa.Table("t", sa.MetaData(), sa.Column("code", sa.String(9), unique=True))).compile(
            dialect=speaking()
        )
    )


# ---- what only a database that can be written to runs ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "does"),
    [
        (sa.insert(Person).values(name="x"), Effect.WRITES),
        (sa.insert(Person).values(id=1, name="x").returning(Person.id), Effect.WRITES),
        (sa.update(Person).where(Person.id == 1).values(name="x"), Effect.WRITES),
        (sa.delete(Person).where(Person.id.in_([1, 2, 3])), Effect.WRITES),
        (sa.select(Person).where(Person.id == 1).with_for_update(), Effect.READS),
        (sa.select(Person).limit(3), Effect.READS),
        (sa.select(Person).order_by(Person.name).offset(5).limit(3), Effect.READS),
        (sa.select(sa.exists().where(Person.id == 1)), Effect.READS),
        (CreateTable(Person.__table__), Effect.TOUCHES),
    ],
)
def test_what_it_writes_is_t_sql(statement, does):
    dialect = speaking()
    text = str(statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True}))
    assert sqlglot.parse_one(text, dialect="tsql")
    assert effect(text) is does
    found = places(text)
    assert found is not None
    assert not found.missing
    assert "$" not in text
