"""SQLAlchemy's own code over a provider: its pool, its errors, and columns that are sealed."""

import asyncio
import dataclasses
import json
import traceback

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError, StatementError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column
from sqlmodel import Field as ModelField
from sqlmodel import SQLModel
from tests.waiting import settled

from datavern import (
    ConfigurationError,
    ConnectionFailed,
    ConsentRequired,
    Dataset,
    DecryptionFailed,
    Field,
    KeyErased,
    PrivacyError,
    ProcessingRestricted,
    SubjectRequest,
    actor,
)
from datavern.sqlalchemy import CONSENT, Sealed, include_name

NUMBER = "13097248022"


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[str | None] = mapped_column("personal_number", Sealed(unique=True))
    name: Mapped[str | None] = mapped_column(Sealed(prefixes=[3]))
    city: Mapped[str | None] = mapped_column(sa.Text)
    more: Mapped[dict | None] = mapped_column(sa.JSON)


class Secret(Base):
    __tablename__ = "secrets"
    id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    value: Mapped[dict] = mapped_column(Sealed())


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(sa.Integer, primary_key=True)
    text: Mapped[str] = mapped_column(sa.Text, unique=True)


class Person(SQLModel, table=True):
    __tablename__ = "users"
    metadata = sa.MetaData()
    id: str = ModelField(primary_key=True)
    personal_number: str | None = ModelField(default=None, sa_type=Sealed(unique=True))
    name: str | None = ModelField(default=None, sa_type=Sealed(prefixes=[3]))
    city: str | None = None


USERS = Dataset(
    "users",
    database="main",
    subject="id",
    erasure="anonymize",
    legal_basis="kommuneloven § 1",
    fields={
        "personal_number": Field(sealed=True, lookup=True, unique=True, kind="fodselsnummer"),
        "name": Field(sealed=True, prefixes=[3]),
        "city": Field(),
    },
)
SECRETS = Dataset("secrets", database="main", personal=False, fields={"value": Field(sealed=True)})


@pytest.fixture
async def engine_(managed):
    async with managed(USERS, SECRETS) as db:
        engine = db["main"].sqlalchemy_engine()
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        for dataset in ("users", "secrets"):
            assert await db.prepare(dataset) == []  # the model and the data map say the same
        yield db, engine
        await engine.dispose()


@pytest.fixture
def session(engine_):
    return async_sessionmaker(engine_[1], expire_on_commit=False)


@pytest.fixture
async def people(session):
    async with session() as s:
        s.add_all(
            [
                User(id="a", number=NUMBER, name="Åse Bø", city="Bodø", more={"a": [1, None, "æ"]}),
                User(id="b", number="10915596784", name="Per", city=None, more=sa.JSON.NULL),
                User(id="c"),
            ]
        )
        await s.commit()


async def stored(db, table="users"):
    return [dict(row) for row in await db["main"].query(f"SELECT * FROM {table} ORDER BY id")]


async def actions(db):
    return [row[0] for row in await db["main"].query("SELECT action FROM datavern_audit ORDER BY entry_id")]


async def test_what_goes_in_comes_out_and_lies_sealed(engine_, session, people):
    db, _ = engine_
    async with session() as s:
        found = (await s.scalars(sa.select(User).order_by(User.id))).all()
        assert [(u.id, u.number, u.name, u.city, u.more) for u in found] == [
            ("a", NUMBER, "Åse Bø", "Bodø", {"a": [1, None, "æ"]}),
            ("b", "10915596784", "Per", None, None),
            ("c", None, None, None, None),
        ]
    rows = await stored(db)
    assert not any(word in str(rows) for word in (NUMBER, "Åse", "Per"))
    assert [row["name_prefix3"] is None for row in rows] == [False, False, True]
    assert (await db.personal("users").get("a"))["name"] == "Åse Bø"  # one and the same
    assert (await actions(db)).count("inserted") == 3


async def test_a_lookup_compares_what_the_kind_makes_alike(session, people):
    other = aliased(User)
    async with session() as s:
        for criterion in (User.number == "130972 48022", User.number.in_(["130972-48022", "x1"])):
            assert [u.id for u in await s.scalars(sa.select(User).where(criterion))] == ["a"]
        assert [u.id for u in await s.scalars(sa.select(other).where(other.number == NUMBER))] == ["a"]
        assert [u.id for u in await s.scalars(sa.select(User).where(User.number != NUMBER))] == ["b"]
        assert [u.id for u in await s.scalars(sa.select(User).where(User.number.is_(None)))] == ["c"]
        assert [u.id for u in await s.scalars(sa.select(User).filter_by(number=NUMBER))] == ["a"]
        assert await s.scalar(sa.select(sa.func.count()).where(User.number == NUMBER)) == 1
        joined = sa.select(User, other).join(other, other.number == User.number, isouter=True).order_by(User.id)
        pairs = [(a.name, b and b.name) for a, b in await s.execute(joined)]
        assert pairs == [("Åse Bø", "Åse Bø"), ("Per", "Per"), (None, None)]
    with pytest.raises(ConfigurationError, match="looked up"):
        User.number == User.id  # noqa: B015
    for wrong in (lambda: User.number.like("13%"), lambda: User.number < "2", lambda: User.number + "x"):
        with pytest.raises(ConfigurationError, match="== and in_ only"):
            wrong()
    with pytest.raises(ConfigurationError, match="without lookup"):
        User.name == "Per"  # noqa: B015


async def test_changes_are_sealed_for_their_row(engine_, session, people):
    db, _ = engine_
    before = await stored(db)
    async with session() as s:
        user = await s.get(User, "a")
        user.name, user.city = "Åse Ny", "Oslo"
        await s.commit()
        await s.refresh(user)
        assert (user.name, user.city, user.number) == ("Åse Ny", "Oslo", NUMBER)
        user.number = None
        await s.commit()
        await s.delete(await s.get(User, "b"))
        await s.commit()
    rows = await stored(db)
    assert [row["id"] for row in rows] == ["a", "c"]
    assert rows[0]["datavern_row"] == before[0]["datavern_row"]
    assert rows[0]["name"] != before[0]["name"]
    assert rows[0]["personal_number"] is rows[0]["personal_number_lookup"] is None
    assert sorted(await actions(db)) == ["deleted", "inserted", "inserted", "inserted", "updated", "updated"]


async def test_core_statements_of_single_rows(engine_, people):
    db, engine = engine_
    users = User.__table__
    async with engine.begin() as c:
        await c.execute(sa.insert(users).values(id="d", name="Dag", city="Vadsø"))
        await c.execute(sa.insert(users), [{"id": "e", "name": "Eli"}, {"id": "f", "name": None}])
        changed = await c.execute(sa.update(users).where(users.c.id == "d").values(name="Dagny"))
        assert changed.rowcount == 1
        assert (await c.execute(sa.update(users).where(users.c.id == "none").values(name="X"))).rowcount == 0
        assert (await c.execute(sa.update(users).where(users.c.city.is_(None)).values(city="?"))).rowcount == 4
        rows = (await c.execute(sa.select(users).where(users.c.id > "c").order_by(users.c.id))).mappings().all()
        assert [(row["name"], row["city"]) for row in rows] == [("Dagny", "Vadsø"), ("Eli", "?"), (None, "?")]
        within = sa.select(users).subquery()
        assert [row.name for row in await c.execute(sa.select(within).where(within.c.id == "e"))] == ["Eli"]
        await c.execute(sa.delete(users).where(users.c.id.in_(["d", "e"])))
    assert (await actions(db)).count("deleted") == 2


async def test_an_update_of_many_rows_leaves_their_tags_alone(engine_, session, people):
    db, engine = engine_
    await db["main"].execute("INSERT INTO users (id) VALUES ('plain')")  # no tag yet
    before = {row["id"]: row["datavern_row"] for row in await stored(db)}
    async with engine.begin() as c:
        assert (await c.execute(sa.update(User.__table__).values(city="Alta"))).rowcount == 4
    assert {row["id"]: row["datavern_row"] for row in await stored(db)} == before
    async with session() as s:
        (await s.get(User, "plain")).name = "Nå"
        await s.commit()
    async with session() as s:
        assert [(u.name, u.city) for u in await s.scalars(sa.select(User).where(User.id > "b"))] == [
            (None, "Alta"),
            ("Nå", "Alta"),
        ]


async def test_a_stream_is_opened_as_it_comes(engine_, session):
    async with session() as s:
        s.add_all([User(id=f"u{n:03}", name=f"Name {n}") for n in range(120)])
        await s.commit()
        streamed = await s.stream_scalars(sa.select(User).order_by(User.id).execution_options(yield_per=50))
        assert [u.name async for u in streamed] == [f"Name {n}" for n in range(120)]
    async with engine_[1].connect() as c, c.stream(sa.select(User.__table__).order_by(User.id)) as rows:
        assert (await rows.fetchone()).name == "Name 0"
        assert len(await rows.fetchmany(3)) == 3


async def test_data_about_nobody_is_sealed_under_the_dataset_s_key(engine_, session):
    db, _ = engine_
    async with session() as s:
        s.add(Secret(id=1, value={"token": ["hemmelig"]}))
        await s.commit()
    async with session() as s:
        assert (await s.get(Secret, 1)).value == {"token": ["hemmelig"]}
    (row,) = await stored(db, "secrets")
    assert row["value"][0] == 2
    assert b"hemmelig" not in row["value"]


async def test_what_was_moved_or_changed_does_not_open(engine_, session, people):
    db, _ = engine_
    await db["main"].execute("UPDATE users SET name = (SELECT name FROM users WHERE id = 'a') WHERE id = 'b'")
    async with session() as s:
        assert (await s.get(User, "a")).name == "Åse Bø"
        with pytest.raises(DecryptionFailed):
            await s.get(User, "b")
    await db["main"].execute("UPDATE users SET id = 'somebody else' WHERE id = 'a'")
    async with session() as s:
        with pytest.raises(DecryptionFailed):
            await s.get(User, "somebody else")


async def test_rows_open_wherever_their_columns_stand_and_whether_or_not_their_keys_are_at_hand(engine_, people):
    db, engine = engine_
    users = User.__table__.c
    other = aliased(User)
    theirs = other.id, other.number, other.name, other.datavern_row
    statement = (
        sa.select(users.datavern_row, users.name, users.city, users.id, users.personal_number, *theirs)
        .join(other, other.id == users.id)
        .order_by(users.id)
    )
    for one in "ab":
        await db.personal("users").get(one)  # its key is at hand now
    known = db.services.keys._known
    for forget in (dict, known.by_id.popitem, known.by_id.clear, known.forget):
        forget()
        async with engine.connect() as c:
            rows = (await c.execute(statement)).all()
        assert [row[1:5] for row in rows] == [
            ("Åse Bø", "Bodø", "a", NUMBER),
            ("Per", None, "b", "10915596784"),
            (None, None, "c", None),
        ]
        assert [row[5:8] for row in rows] == [
            ("a", NUMBER, "Åse Bø"),
            ("b", "10915596784", "Per"),
            ("c", None, None),
        ]


async def test_a_column_opens_under_another_name(engine_, people):
    _, engine = engine_
    other, tag = aliased(User), User.datavern_row.label("tag")
    inner = sa.select(User.name.label("called"), tag, User.id.label("who")).subquery()
    both = sa.select(
        User.name.label("one"), other.name.label("two"), User.id, User.datavern_row, other.id, other.datavern_row
    ).select_from(User)
    async with engine.connect() as c:
        for selected in (sa.select(User.name.label("x"), User.id.label("y"), tag), sa.select(inner)):
            rows = (await c.execute(selected.order_by(sa.text("3" if "called" in str(selected) else "2")))).all()
            assert [row[0] for row in rows] == ["Åse Bø", "Per", None]
        assert (await c.execute(sa.select(User.number.label("x"), User.name, tag, User.id))).mappings().first()["x"]
        joined = both.join(other, User.id != other.id).where(User.id == "a", other.id == "b")
        assert (await c.execute(joined)).one()[:2] == ("Åse Bø", "Per")


async def test_reads_are_counted_where_the_data_map_asks_for_it(managed):
    async with managed(dataclasses.replace(USERS, audit_reads=True), SECRETS) as db:
        engine = db["main"].sqlalchemy_engine()
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        for dataset in ("users", "secrets"):
            await db.prepare(dataset)
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        async with sessions() as s:
            s.add_all([User(id=n, number=None, name=f"N {n}") for n in "ab"])
            await s.commit()
        with actor("case-worker-7"):
            async with sessions() as s:
                assert len((await s.scalars(sa.select(User))).all()) == 2
                assert (await s.scalars(sa.select(User.city))).all() == [None, None]  # nothing sealed is read
            async with engine.connect() as c:
                rows = await c.stream(sa.select(User.__table__).where(User.id == "a"))
                assert len([row async for row in rows]) == 1
        (reads,) = db.services._reads.values()
        await reads.end()
        found = await db["main"].query("SELECT actor, handle, details FROM datavern_audit WHERE action = 'read'")
        told = {row[1]: (row[0], json.loads(row[2])["rows"]) for row in found}
        handles = [await db.keys.handle(n, create=False) for n in "ab"]
        assert told == {handles[0]: ("case-worker-7", 2), handles[1]: ("case-worker-7", 1)}
        await engine.dispose()


REFUSED = [
    (sa.update(User.__table__).values(name="X"), "one row"),
    (sa.update(User.__table__).where(User.id == "a").values(name=sa.func.lower("X")), "cannot be sealed"),
    (sa.insert(User.__table__).values([{"id": "x", "name": "X"}, {"id": "y"}]), "second argument"),
    (sa.insert(User.__table__).from_select(["id", "name"], sa.select(sa.literal("x"), sa.literal("X"))), "SELECT"),
    (postgresql.insert(User.__table__).values(id="a", name="X").on_conflict_do_nothing(), "ON CONFLICT"),
    (sqlite.insert(User.__table__).values(id="a", name="X").on_conflict_do_nothing(), "ON CONFLICT"),
    (sa.insert(User.__table__).values(name="X"), "users.id"),
    (sa.insert(User.__table__).values(id="x", datavern_row=bytes(16)), "own column"),
    (sa.update(User.__table__).where(User.id == "a").values(name_prefix3=b"x"), "own column"),
    (sa.select(User.name), "datavern_row"),
    (sa.select(User.name, User.datavern_row), "select id too"),
    (sa.select(sa.func.max(User.__table__.c.name)), "read as a column|past what opens it"),
    (
        sa.select(sa.case((User.id == "a", User.name)).label("x"), User.id, User.datavern_row),
        "read as a column|past what opens it",
    ),
    (sa.select(sa.label("x", User.city, type_=Sealed()), User.id, User.datavern_row), "read as a column"),
    (sa.select(User.name.label("x")), "datavern_row"),
    (sa.select(User.name.label("x"), User.datavern_row, (User.id + "").label("id")), "select id too"),
]


async def test_what_cannot_be_sealed_or_opened_is_refused(engine_, people):
    db, engine = engine_
    before = await stored(db)
    for statement, message in REFUSED:
        async with engine.connect() as c:
            with pytest.raises((ConfigurationError, StatementError), match=message):
                (await c.execute(statement)).all()
    assert await stored(db) == before


async def test_it_takes_a_transaction_and_a_data_map(engine_, managed, database):
    _, engine = engine_
    async with engine.connect() as c:
        await c.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
            await c.execute(sa.insert(User.__table__), {"id": "x", "name": "X"})
    async with managed(SECRETS) as db:
        other = db["main"].sqlalchemy_engine()
        async with other.connect() as c:
            with pytest.raises(StatementError, match="takes a value with its row"):
                await c.execute(sa.insert(User.__table__), {"id": "x", "name": "13097248022"})
            with pytest.raises(ConfigurationError, match="users: a table with sealed columns is a dataset"):
                await c.execute(sa.select(User.__table__))
    plain = sa.create_engine("sqlite://")
    with plain.connect() as c:
        c.execute(sa.text("CREATE TABLE users (id, personal_number, name, city, more, datavern_row, name_prefix3)"))
        with pytest.raises(StatementError, match="sqlalchemy_engine"):
            c.execute(sa.insert(User.__table__), {"id": "x", "name": "X"})
    plain.dispose()


@pytest.mark.parametrize("option", ["pool_size", "poolclass", "max_overflow", "connect_args"])
async def test_the_pool_is_the_provider_s(database, option):
    provider = database.provider("main")
    with pytest.raises(ConfigurationError, match=option):
        provider.sqlalchemy_engine(**{option: None})
    engine = provider.sqlalchemy_engine()
    with pytest.raises(DBAPIError, match="is not open"):
        async with engine.connect():
            pass


async def test_a_rollback_leaves_nothing_of_it(engine_, session, people):
    db, _ = engine_
    before = await stored(db), await actions(db)
    async with session() as s:
        s.add(User(id="x", name="X"))
        (await s.get(User, "a")).name = "Y"
        await s.flush()
        await s.rollback()
    async with session() as s, s.begin():
        try:
            async with s.begin_nested():
                s.add(User(id="y", name="Y"))
                await s.flush()
                raise KeyError
        except KeyError:
            pass
        assert await s.get(User, "y") is None
    assert (await stored(db), await actions(db)) == before


async def test_errors_quote_no_value_and_keep_their_codes(engine_, session, people, engine):
    async with session() as s:
        s.add(User(id="again", number="130972 48022", name="Hemmelig Person"))
        with pytest.raises(IntegrityError) as caught:
            await s.commit()
    said = "".join(traceback.format_exception(caught.value)) + repr(caught.value.orig.__dict__)
    assert not any(word in said for word in ("13097248022", "130972 48022", "Hemmelig", "again"))
    codes = {"postgresql": "23505", "sqlite": "SQLITE_CONSTRAINT_UNIQUE", "azuresql": "2601"}
    assert caught.value.orig.sqlstate == codes[engine]
    values = {"text": "planted value"}
    async with engine_[1].begin() as c:
        await c.execute(sa.insert(Note), values)
    async with engine_[1].connect() as c:
        with pytest.raises(IntegrityError) as caught:
            await c.execute(sa.insert(Note), values)
        assert "planted" not in "".join(traceback.format_exception(caught.value))
        await c.rollback()
        with pytest.raises(ProgrammingError):
            await c.exec_driver_sql("SELECT * FROM nowhere")


async def test_consent_is_asked_for_and_a_person_who_was_erased_is_not_written_to(managed):
    asked = Dataset("users", database="main", subject="id", purposes=["customer-account"], fields=dict(USERS.fields))
    async with managed(asked) as db:
        engine = db["main"].sqlalchemy_engine()
        async with engine.begin() as c:
            await c.run_sync(User.__table__.create)
        await db.prepare("users")
        make = async_sessionmaker(engine)
        async with make() as s:
            s.add(User(id="a", name="A"))
            with pytest.raises(ConsentRequired):
                await s.commit()
        consent = await db.consents.grant(subject="a", purpose="customer-account")
        async with make(bind=engine.execution_options(**{CONSENT: {"a": consent}})) as s:
            s.add(User(id="a", name="A"))
            await s.commit()
            (await s.get(User, "a")).name = "B"
            with actor("case-worker-7"):
                await s.commit()
        async with make(bind=engine.execution_options(**{CONSENT: {"a": consent}})) as s:
            s.add(User(id="b", name="B"))
            with pytest.raises(ConsentRequired):
                await s.commit()
        assert "case-worker-7" in [r[0] for r in await db["main"].query("SELECT actor FROM datavern_audit")]
        await db.keys.start_erasure("a")
        async with make(bind=engine.execution_options(**{CONSENT: consent})) as s:
            (await s.get(User, "a")).name = "C"
            with pytest.raises(KeyErased):
                await s.commit()
        assert (await db.personal("users").get("a"))["name"] == "B"


@pytest.mark.parametrize("at_hand", [True, False])
async def test_a_person_whose_data_is_restricted_is_read_by_nobody(engine_, session, people, at_hand):
    db, engine = engine_
    await db.subject_requests.process(SubjectRequest("restriction", subject="a"))
    if not at_hand:
        db.keys.close()
    table = User.__table__
    sealed = sa.select(table.c.id, table.c.datavern_row, table.c.name)
    for refused in (sa.select(table), sealed, sealed.where(table.c.id == "a"), sealed.order_by(table.c.id.desc())):
        async with engine.connect() as c:
            with pytest.raises(ProcessingRestricted):
                await c.execute(refused)
        async with engine.connect() as c:
            with pytest.raises(ProcessingRestricted):
                async for _ in await c.stream(refused):
                    pass
    async with session() as s:
        with pytest.raises(ProcessingRestricted):
            await s.get(User, "a")
    async with session() as s:
        assert (await s.get(User, "b")).name == "Per"
        found = await s.scalars(sa.select(User).where(User.id != "a").order_by(User.id))
        assert [user.name for user in found] == ["Per", None]


async def test_reads_that_need_a_consent_have_one(managed):
    asked = dataclasses.replace(USERS, legal_basis=None, purposes=["customer-account"], require_consent="read")
    async with managed(asked) as db:
        engine = db["main"].sqlalchemy_engine()
        async with engine.begin() as c:
            await c.run_sync(User.__table__.create)
        await db.prepare("users")
        consents = {n: await db.consents.grant(subject=n, purpose="customer-account") for n in "ab"}
        async with async_sessionmaker(engine.execution_options(**{CONSENT: consents}))() as s:
            s.add_all([User(id=n, name=f"N {n}") for n in "ab"])
            await s.commit()
        await db.consents.withdraw(consents["a"])
        async with async_sessionmaker(engine)() as s:
            with pytest.raises(ConsentRequired):
                await s.scalars(sa.select(User))
        async with async_sessionmaker(engine)() as s:
            assert (await s.get(User, "b")).name == "N b"
        await engine.dispose()


async def test_a_row_that_an_erasure_emptied_is_read_as_it_is(engine_, session, people):
    db, _ = engine_
    await db.subject_requests.process(SubjectRequest("erasure", subject="a"))
    async with session() as s:
        found = (await s.scalars(sa.select(User))).all()
        assert sorted(str(u.name) for u in found) == ["None", "None", "Per"]


async def test_compliance_nsm_is_served(managed, database):
    provider = database.provider("main", location="norway", compliance=["nsm"])
    async with managed(USERS, databases={"main": provider}) as db:
        engine = provider.sqlalchemy_engine()
        async with engine.begin() as c:
            await c.run_sync(User.__table__.create)
        await db.prepare("users")
        async with async_sessionmaker(engine)() as s:
            s.add(User(id="a", name="A"))
            await s.commit()
        assert await actions(db) == ["inserted"]
        async with engine.connect() as c:
            with pytest.raises(PrivacyError, match="audit entry"):
                await c.exec_driver_sql("DELETE FROM users")


async def test_connections_come_from_the_pool_and_go_back_as_they_were(engine_, session, people):
    db, engine = engine_
    provider = db["main"]
    await settled(provider)  # what made the tables touched its session, and that is made as new in the background
    before = provider.stats()
    for _ in range(5):
        async with session() as s:
            await s.get(User, "a")
            (await s.get(User, "b")).city = "X"
            await s.commit()
    after = provider.stats()
    assert after.in_use == 0
    assert (after.reset, after.discarded) == (before.reset, before.discarded)
    async with engine.connect() as c:
        wrote = asyncio.Event()
        task = asyncio.create_task(_wait_inside(c, wrote))
        await wrote.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await settled(provider)
    async with engine.connect() as c:
        assert await c.scalar(sa.select(sa.literal(1))) == 1


async def _wait_inside(connection, wrote):
    await connection.execute(sa.insert(Note), {"text": "never committed"})
    wrote.set()
    await asyncio.Event().wait()


@pytest.mark.parametrize("engine", ["postgresql"], indirect=True)
async def test_a_connection_that_breaks_is_told_and_replaced(engine_, session, people):
    db, alchemy = engine_
    async with alchemy.connect() as c:
        pid = await c.scalar(sa.text("SELECT pg_backend_pid()"))
        await db["main"].query("SELECT pg_terminate_backend($1)", [pid])
        with pytest.raises(DBAPIError) as caught:
            await c.execute(sa.select(User.__table__))
        assert caught.value.connection_invalidated
        assert isinstance(caught.value.orig.__cause__, ConnectionFailed)
    async with session() as s:
        assert (await s.get(User, "a")).name == "Åse Bø"
    await settled(db["main"])


async def test_alembic_makes_the_tables_and_sees_no_difference(managed, tmp_path, monkeypatch):
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    (tmp_path / "migrations" / "env.py").write_text(
        "from alembic import context\n"
        "context.configure(connection=context.config.attributes['connection'])\n"
        "with context.begin_transaction():\n    context.run_migrations()\n"
    )
    (tmp_path / "migrations" / "script.py.mako").write_text("")
    (tmp_path / "migrations" / "versions" / "0001_users.py").write_text(MIGRATION)
    config = Config()
    config.set_main_option("script_location", str(tmp_path / "migrations"))

    def run(connection, what, *arguments):
        config.attributes["connection"] = connection
        what(config, *arguments)

    def differences(connection):
        return compare_metadata(MigrationContext.configure(connection, opts={"include_name": include_name}), only_users)

    only_users = sa.MetaData()
    User.__table__.to_metadata(only_users)
    async with managed(USERS) as db:
        engine = db["main"].sqlalchemy_engine()
        async with engine.begin() as c:
            await c.run_sync(run, command.upgrade, "head")
        assert await db.prepare("users") == []
        async with async_sessionmaker(engine)() as s:
            s.add(User(id="a", name="Åse", number=NUMBER))
            await s.commit()
        async with engine.connect() as c:
            found = await c.run_sync(differences)
            ours = [
                d for d in found if not (d[0] == "remove_table" and d[1].name.startswith(("datavern_", "alembic_")))
            ]
            ours = [d for d in ours if not (d[0] == "remove_index" and d[1].table.name.startswith("datavern_"))]
            assert ours == []
        async with engine.begin() as c:
            await c.run_sync(lambda sync: Operations(MigrationContext.configure(sync)).execute("DELETE FROM users"))
            await c.run_sync(run, command.downgrade, "base")


MIGRATION = """
import sqlalchemy as sa
from alembic import op
from datavern.sqlalchemy import Sealed

revision, down_revision, branch_labels, depends_on = "0001", None, None, None

def upgrade():
    op.create_table(
        "users",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("personal_number", Sealed(unique=True)),
        sa.Column("name", Sealed(prefixes=[3])),
        sa.Column("city", sa.Text),
        sa.Column("more", sa.JSON),
    )

def downgrade():
    op.drop_table("users")
"""


async def test_sqlmodel_s_models(managed):
    async with managed(USERS) as db:
        engine = db["main"].sqlalchemy_engine()
        async with engine.begin() as c:
            await c.run_sync(Person.metadata.create_all)
        await db.prepare("users")
        async with async_sessionmaker(engine, expire_on_commit=False)() as s:
            s.add(Person(id="a", personal_number=NUMBER, name="Åse"))
            await s.commit()
        async with async_sessionmaker(engine)() as s:
            (found,) = (await s.scalars(sa.select(Person).where(Person.personal_number == NUMBER))).all()
            assert found.name == "Åse"
