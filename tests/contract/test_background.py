"""Code that is not asynchronous: a manager on a loop in the background, and SQLAlchemy's own `Session` over it."""

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from datavern import Background, ConfigurationError, ConsentRequired, Dataset, Field, SubjectRequest, actor
from datavern.sqlalchemy import CONSENT, Sealed, include_name

NUMBER = "13097248022"


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[str | None] = mapped_column("personal_number", Sealed(unique=True))
    name: Mapped[str | None] = mapped_column(Sealed())
    notes: Mapped[list["Note"]] = relationship(back_populates="user", order_by="Note.id")


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(sa.Integer, primary_key=True)
    user_id: Mapped[str] = mapped_column(sa.ForeignKey("users.id"))
    text: Mapped[str] = mapped_column(sa.Text, unique=True)
    user: Mapped[User] = relationship(back_populates="notes")


def users(**changes):
    fields = {"personal_number": Field(sealed=True, lookup=True, unique=True, kind="fodselsnummer")}
    fields["name"] = Field(sealed=True)
    settings = {"legal_basis": "kommuneloven § 1", **changes}
    return Dataset("users", database="main", subject="id", erasure="anonymize", fields=fields, **settings)


@pytest.fixture
async def opened(managed):
    """Opens a manager in the background, with an engine, in a thread that the test leaves its loop for."""
    with ThreadPoolExecutor(1) as pool:

        async def run(work, *datasets):
            def there():
                with Background(managed(*datasets)) as background:
                    db = background.opened
                    engine = db["main"].sqlalchemy_engine(background=background)
                    Base.metadata.create_all(engine)
                    for dataset in datasets:
                        assert background.call(db.prepare(dataset.name)) == []
                    work(background, db, engine)

            await asyncio.get_running_loop().run_in_executor(pool, there)

        yield run


async def test_a_session_seals_finds_and_loads_lazily(opened):
    def work(background, db, engine):
        with Session(engine) as s, actor("case-worker-7"):
            s.add(User(id="a", number=NUMBER, name="Åse Bø", notes=[Note(id=1, text="one"), Note(id=2, text="two")]))
            s.add(User(id="b", name="Per"))
            s.commit()
        with Session(engine) as s:
            user = s.scalars(sa.select(User).where(User.number == "130972 48022")).one()
            assert (user.id, user.name, [n.text for n in user.notes]) == ("a", "Åse Bø", ["one", "two"])
            user.name = "Åse Berg"
            s.commit()
            assert user.name == "Åse Berg"  # expired by the commit, and loaded again
        assert background.call(db.personal("users").get("a"))["name"] == "Åse Berg"
        raw = background.call(db["main"].query("SELECT * FROM users"))
        assert "Åse" not in str([dict(row) for row in raw])
        who = "SELECT actor FROM datavern_audit WHERE action = 'inserted'"
        assert {row[0] for row in background.call(db["main"].query(who))} == {"case-worker-7"}
        with Session(engine) as s:
            ids = [u.id for u in s.scalars(sa.select(User).order_by(User.id).execution_options(yield_per=1))]
            assert ids == ["a", "b"]
            assert [row["name"] for row in background.iterate(db.personal("users").of("b"))] == ["Per"]

    await opened(work, users())


async def test_it_rolls_back_and_its_errors_are_sqlalchemys(opened):
    def work(background, db, engine):
        with Session(engine) as s:
            s.add(User(id="a", name="Planted", notes=[Note(id=1, text="planted")]))
            s.commit()
            s.add(Note(id=2, user_id="a", text="planted"))
            with pytest.raises(IntegrityError) as caught:
                s.flush()
            assert "planted" not in str(caught.value)
            s.rollback()
            s.add(User(id="c"))
            s.flush()
        with engine.connect() as connection:
            assert connection.scalar(sa.select(sa.func.count()).select_from(User)) == 1
            with pytest.raises((ProgrammingError, OperationalError)):
                connection.execute(sa.text("SELECT nothing FROM nowhere"))
        with engine.connect() as connection:
            options = {"include_name": include_name}
            assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []
        assert sa.inspect(engine).has_table("notes")

    await opened(work, users())


async def test_many_threads_share_one_pool(opened):
    def work(background, db, engine):
        def write(number):
            with Session(engine) as s, actor(f"thread-{number}"):
                for n in range(5):
                    s.add(User(id=f"{number}-{n}", name=f"name {number}-{n}"))
                    s.commit()
            with Session(engine) as s:
                found = s.scalars(sa.select(User).where(User.id.like(f"{number}-%")).order_by(User.id)).all()
                return [u.name for u in found]

        with ThreadPoolExecutor(8) as pool:
            for number, names in enumerate(pool.map(write, range(8))):
                assert names == [f"name {number}-{n}" for n in range(5)]
        who = "SELECT DISTINCT actor FROM datavern_audit WHERE action = 'inserted'"
        assert len(background.call(db["main"].query(who))) == 8
        assert background.call(db.health())["main"].status == "healthy"

    await opened(work, users())


async def test_consent_and_erasure_hold_here_too(opened):
    def work(background, db, engine):
        consent = background.call(db.consents.grant(subject="a", purpose="newsletter"))
        with Session(engine) as s:
            s.add(User(id="a", name="Åse"))
            with pytest.raises((ConsentRequired, StatementError)):
                s.flush()
            s.rollback()
        with engine.connect().execution_options(**{CONSENT: consent}) as connection, Session(connection) as s:
            s.add(User(id="a", name="Åse"))
            s.commit()
        background.call(db.subject_requests.process(SubjectRequest("erasure", subject="a")))
        with Session(engine) as s:
            assert [u.name for u in s.scalars(sa.select(User))] == [None]

    await opened(work, users(legal_basis=None, purposes=["newsletter"]))


async def test_what_is_no_use_is_said(managed):
    def work():
        background = Background(managed(users()))

        async def nothing():
            return 1

        with pytest.raises(ConfigurationError, match="not open"):
            background.call(nothing())
        with background:
            assert background.call(nothing()) == 1
            with pytest.raises(ConfigurationError, match="open already"):
                background.__enter__()

            async def itself():
                background.call(nothing())

            with pytest.raises(ConfigurationError, match="wait for itself"):
                background.call(itself())
            with pytest.raises(ConfigurationError, match="pool"):
                background.opened["main"].sqlalchemy_engine(background=background, pool_size=5)
        with pytest.raises(ConfigurationError, match="not open"):
            background.call(nothing())
        before = threading.active_count()
        broken = Background(_Broken())
        with pytest.raises(ConfigurationError, match="broken"):
            broken.__enter__()
        assert threading.active_count() == before

    await asyncio.to_thread(work)


class _Broken:
    async def __aenter__(self):
        raise ConfigurationError("broken")

    async def __aexit__(self, *exc):
        raise AssertionError


FORKED = """
import os, sys
from datavern import Background, ConfigurationError, SQLiteProvider
with Background(SQLiteProvider("a.db", location="norway")) as background:
    pid = os.fork()
    if pid == 0:
        try:
            background.call(background.opened.query("SELECT 1"))
        except ConfigurationError as error:
            os._exit(7 if "forked" in str(error) else 1)
        os._exit(2)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
async def test_a_forked_process_is_told_to_open_its_own(tmp_path):
    child = await asyncio.create_subprocess_exec(sys.executable, "-W", "ignore", "-c", FORKED, cwd=tmp_path)
    assert await child.wait() == 7
