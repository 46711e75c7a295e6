"""PostgreSQL: audited inserts that come at the same time share a transaction, and nobody can tell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import again, until, waits

from datavern import (
    ConnectionFailed,
    ConstraintViolated,
    DatabaseManager,
    Keyring,
    OutcomeUnknown,
    Pool,
    PoolTimeout,
    PostgreSQLProvider,
    ProviderError,
    QueryRejected,
)
from datavern.engines.postgresql import together
from datavern.engines.postgresql.splice import single_row
from datavern.testing.proxy import TCPProxy

SCHEMA = """
CREATE TABLE t (id int PRIMARY KEY, a text, CONSTRAINT short CHECK (length(a) < 10));
CREATE TABLE "Blå""'; DROP bær" ("nøkkel" int PRIMARY KEY, a text);
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
CREATE TABLE late (id int PRIMARY KEY, parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE parted (id int, a text) PARTITION BY LIST (a);
CREATE TABLE parted_1 PARTITION OF parted DEFAULT;
CREATE VIEW seen AS SELECT id, a FROM t;
CREATE TABLE ruled (id int PRIMARY KEY, a text);
CREATE RULE also AS ON INSERT TO ruled DO ALSO UPDATE t SET a = 'ruled' WHERE id = new.id;
CREATE TABLE moved (id int PRIMARY KEY, a text);
CREATE RULE elsewhere AS ON INSERT TO moved DO INSTEAD INSERT INTO t VALUES (new.id, new.a);
CREATE TABLE triggered (id int PRIMARY KEY, a text);
CREATE FUNCTION once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF current_setting('once.done', true) = 'yes' THEN RETURN NULL; END IF;
    PERFORM set_config('once.done', 'yes', true);
    RETURN new;
END $$;
CREATE TRIGGER once BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION once();
CREATE TABLE leafy (id int, a text) PARTITION BY LIST (a);
CREATE TABLE leaf PARTITION OF leafy DEFAULT;
CREATE TRIGGER once BEFORE INSERT ON leafy FOR EACH ROW EXECUTE FUNCTION once();
CREATE TABLE policed (id int PRIMARY KEY, a text);
ALTER TABLE policed ENABLE ROW LEVEL SECURITY;
CREATE FUNCTION nth() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
    PERFORM set_config('nth.n', (coalesce(nullif(current_setting('nth.n', true), ''), '0')::int + 1)::text, true);
    RETURN current_setting('nth.n');
END $$;
CREATE TABLE defaulted (id int PRIMARY KEY, a text, n int DEFAULT nth() CHECK (n = 1));
CREATE TABLE checked (id int PRIMARY KEY, a text, CHECK (nth() = 1));
CREATE FUNCTION filled(text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN $1 <> ''; END $$;
CREATE DOMAIN said AS text CHECK (filled(VALUE));
CREATE TABLE calling (id int PRIMARY KEY, a said CHECK (filled(a)), u uuid DEFAULT gen_random_uuid());
"""
INSERT = "INSERT INTO t (id, a) VALUES ($1, $2)"
FEW = together._FEW
"""So many go by themselves before others come together."""


@pytest.fixture
async def db(postgresql_database: Any, tmp_path: Path) -> AsyncIterator[DatabaseManager]:
    async with opened(postgresql_database, tmp_path) as db:
        await db["main"].execute(SCHEMA)
        yield db


@contextlib.asynccontextmanager
async def opened(
    database: Any, folder: Path, *, provider: Any = None, **settings: Any
) -> AsyncIterator[DatabaseManager]:
    if not (folder / "keys").exists():
        ring = await Keyring.create(f"file:{folder / 'keys'}")
        await ring.close()
    provider = provider or database.provider("main", location="norway", **settings)
    async with DatabaseManager({"main": provider}, keyring=f"file:{folder / 'keys'}", ledger="main") as db:
        yield db


async def write(db: DatabaseManager, values: Sequence[Any], text: str = INSERT) -> int:
    entry = await db.audit.entry("written", details={"id": str(values[0])})
    return int(await db["main"].execute(text, list(values), audit=entry))


async def all_of(db: DatabaseManager, rows: Sequence[Sequence[Any]], text: str = INSERT) -> list[Any]:
    """All at the same time; what each of them gave, or raised."""
    return await asyncio.gather(*(write(db, row, text) for row in rows), return_exceptions=True)


async def sizes(db: DatabaseManager, table: str = "t") -> list[int]:
    """How many rows each transaction has written, the largest first."""
    found = await db["main"].query(f"SELECT count(*) FROM {table} GROUP BY xmin::text ORDER BY 1 DESC")
    return [row[0] for row in found]


async def told(db: DatabaseManager, table: str = "t", column: str = "id") -> list[int]:
    """The rows that are there; each has its one entry, written in its transaction, and no entry is without one."""
    found = await db["main"].query(  # in one statement: whoever was cancelled may be committing between two
        f"SELECT true, {column}::text, xmin::text FROM {table} UNION ALL "
        "SELECT false, details::json ->> 'id', xmin::text FROM datavern_audit WHERE action = 'written'"
    )
    rows = [row[1:] for row in found if row[0]]
    assert sorted(rows) == sorted(row[1:] for row in found if not row[0])
    return sorted(int(row[0]) for row in rows)


def rows_of(*ids: int) -> list[tuple[int, str]]:
    return [(i, f"a{i}") for i in ids]


# ---- together -------------------------------------------------------------------------------------------------------


async def test_those_who_come_at_the_same_time_share_a_transaction(db):
    assert await all_of(db, rows_of(*range(40))) == [1] * 40
    assert await told(db) == [*range(40)]
    assert await sizes(db) == [40 - FEW, *[1] * FEW]
    assert await all_of(db, rows_of(*range(40, 80))) == [1] * 40  # those who came together come together again
    assert await sizes(db) == [40, 40 - FEW, *[1] * FEW]
    assert await all_of(db, rows_of(*range(80, 240))) == [1] * 160
    assert await told(db) == [*range(240)]
    assert max(await sizes(db)) == together._SIZE
    assert (await db.audit.verify()).ok


async def test_whoever_comes_alone_goes_alone(db):
    for i in range(10):
        assert await write(db, (i, "a")) == 1
    assert await sizes(db) == [1] * 10
    await all_of(db, rows_of(*range(10, 30)))
    for i in range(30, 40):
        await write(db, (i, "a"))
    assert await sizes(db) == [20 - FEW, *[1] * (FEW + 20)]
    await all_of(db, rows_of(*range(40, 40 + FEW)))
    assert await sizes(db) == [20 - FEW, *[1] * (FEW + 20 + FEW)]


async def test_a_session_keeps_nothing_of_it(db):
    main = db["main"]
    settings = "current_setting('lock_timeout') || ' ' || current_setting('statement_timeout')"
    before = await main.query_value(f"SELECT {settings}")
    await all_of(db, rows_of(*range(100)))

    async def asked() -> Any:
        return await main.query_value(f"SELECT {settings} FROM pg_sleep(0.02)")

    assert set(await asyncio.gather(*(asked() for _ in range(main.settings.pool.max)))) == {before}


async def test_any_name_and_any_text(db):
    text = """INSERT INTO "Blå""'; DROP bær" ("nøkkel", a) VALUES ($1, $2::text) ;"""
    assert await all_of(db, [(i, "æøå'; DROP TABLE t; --") for i in range(20)], text) == [1] * 20
    assert await told(db, '"Blå""\'; DROP bær"', '"nøkkel"') == [*range(20)]
    assert max(await sizes(db, '"Blå""\'; DROP bær"')) == 20 - FEW
    assert await all_of(db, rows_of(*range(20)), "insert into public.t values ($1, $2)") == [1] * 20
    assert max(await sizes(db)) == 20 - FEW


async def test_texts_are_each_for_themselves(db):
    other = "INSERT INTO child (id, parent) VALUES ($1, $2)"
    await db["main"].execute("INSERT INTO parent VALUES (1)")
    done = await asyncio.gather(all_of(db, rows_of(*range(20))), all_of(db, [(i, 1) for i in range(100, 120)], other))
    assert done == [[1] * 20] * 2
    assert max(await sizes(db)) == max(await sizes(db, "child")) == 20 - FEW


async def test_not_where_it_is_not_wanted(db, postgresql_database, tmp_path):
    async with opened(postgresql_database, tmp_path, group_commit=False) as other:
        assert await all_of(other, rows_of(*range(40))) == [1] * 40
        assert await sizes(other) == [1] * 40


async def test_large_values_keep_nobody_waiting(db):
    main = db["main"]
    await main.execute("ALTER TABLE t DROP CONSTRAINT short")
    large = "x" * (together._SMALL + 1)
    assert await all_of(db, [(i, large if i % 2 else "a") for i in range(40)]) == [1] * 40
    found = await main.query("SELECT count(*), bool_or(length(a) > 1) FROM t GROUP BY xmin::text HAVING count(*) > 1")
    assert found
    assert not any(row[1] for row in found)


# ---- not together ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table",
    ["triggered", "parted", "seen", "ruled", "moved", "leaf", "policed", "defaulted", "checked"],
)
async def test_what_could_see_a_transaction_is_given_one_each(db, table):
    """What a trigger, a rule, a default or a check does once in a transaction, it does for each."""
    main = db["main"]
    where = "t" if table in {"seen", "moved"} else table
    for start in (0, 40, 80):
        rows = rows_of(*range(start, start + 40))
        assert await all_of(db, rows, f"INSERT INTO {table} (id, a) VALUES ($1, $2)") == [1] * 40
    assert await sizes(db, where) == [1] * 120
    assert await main.query_value("SELECT count(*) FROM datavern_audit") == 120


async def test_functions_that_keep_nothing_are_no_reason(db):
    text = "INSERT INTO calling (id, a) VALUES ($1, $2)"
    assert await all_of(db, rows_of(*range(40)), text) == [1] * 40
    assert await sizes(db, "calling") == [40 - FEW, *[1] * FEW]
    await db["main"].execute("CREATE DOMAIN counted AS int CHECK (nth() > 0); ALTER TABLE calling ADD n counted")
    plan = next(plan for plan in db["main"]._fusing._plans.values() if plan.together)
    plan.together._looked = -together._LOOKED  # as it is a few seconds later
    assert await all_of(db, rows_of(*range(40, 80)), text) == [1] * 40
    assert await sizes(db, "calling WHERE id >= 40") == [1] * 40


async def test_a_server_that_ends_long_transactions(db):
    """One that is shared takes longer than each by itself: `transaction_timeout` ends the session."""
    main = db["main"]
    if await main.query_value("SELECT current_setting('transaction_timeout', true)") is None:
        return  # before PostgreSQL 17
    name = await main.query_value("SELECT quote_ident(current_database())")
    for value, together_ in (("300ms", False), ("1min", True)):
        await main.execute(
            f"DELETE FROM t; DELETE FROM datavern_audit; ALTER DATABASE {name} SET transaction_timeout = '{value}'"
        )
        await main.drain()
        assert await all_of(db, rows_of(*range(40))) == [1] * 40
        assert (max(await sizes(db)) > 1) is together_
        plan = next(plan for plan in main._fusing._plans.values() if plan.together)
        plan.together._skips = 0


async def test_a_trigger_that_comes_later(db):
    main = db["main"]
    writing = asyncio.create_task(all_of(db, rows_of(*range(400))))
    await until(lambda: main.query_value("SELECT count(*) > 0 FROM t"))
    await main.execute("CREATE TRIGGER once BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION once()")
    assert await writing == [1] * 400
    assert await told(db) == [*range(400)]
    assert await all_of(db, rows_of(*range(400, 500))) == [1] * 100
    assert await told(db) == [*range(500)]
    await main.execute("DROP TRIGGER once ON t")
    for start in range(500, 10_000, 100):  # after a while it is tried again
        await all_of(db, rows_of(*range(start, start + 100)))
        if await main.query_value(f"SELECT count(DISTINCT xmin::text) < 50 FROM t WHERE id >= {start}"):
            break
    else:
        raise AssertionError("they never come together again")


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ("INSERT INTO t VALUES ($1)", "t"),
        ("insert into T (a, b) values ($1, $2) ;", "t"),
        ('INSERT INTO "T""x" (a) VALUES ($1)', '"T""x"'),
        ("INSERT INTO a.b.c (a) VALUES (DEFAULT)", "a.b.c"),
        ("INSERT INTO t (a, b) VALUES ($1::numeric, 'x' || $2), -- x", None),
        ("INSERT INTO t (a, b) VALUES ($1::public.mood, -1.5) -- a comment ()", "t"),
        ("INSERT INTO t (a, b, c) VALUES (now(), $1, NOW ( ))", "t"),
        ("INSERT INTO t (a[1], b.c) VALUES (ARRAY[$1], current_timestamp)", "t"),
        ("INSERT INTO t (a) VALUES (my.now())", None),
        ("INSERT INTO t (a) VALUES (now(1))", None),
        ("INSERT INTO t (a) VALUES (())", None),
        ("INSERT INTO t (a, b) VALUES ($1::pair, $1.f)", None),
        ("INSERT INTO t (a, b) VALUES ($1::pair[], $1[1] . f)", None),
        ("INSERT INTO t (a) VALUES (f($1))", None),
        ("INSERT INTO t (a) VALUES ($1::numeric(3, 1))", None),
        ("INSERT INTO t (a) VALUES ((SELECT 1))", None),
        ("INSERT INTO t (a) VALUES ($1), ($2)", None),
        ("INSERT INTO t (a) VALUES ($1) RETURNING a", None),
        ("INSERT INTO t (a) VALUES ($1) ON CONFLICT DO NOTHING", None),
        ("INSERT INTO t (a) SELECT $1", None),
        ("INSERT INTO t DEFAULT VALUES", None),
        ("INSERT INTO t AS x (a) VALUES ($1)", None),
        ("INSERT INTO t (a) OVERRIDING SYSTEM VALUE VALUES ($1)", None),
        ("WITH x AS (SELECT 1) INSERT INTO t (a) VALUES ($1)", None),
        ("INSERT INTO t (a) VALUES ($1); DELETE FROM t", None),
        ("INSERT INTO", None),
        ("INSERT INTO t (a", None),
        ("INSERT INTO t (a) VALUES (", None),
        ("INSERT INTO t (a) VALUES ('a\\b')", None),
        ('INSERT INTO "a\\b" (a) VALUES ($1)', None),
        ("UPDATE t SET a = $1", None),
        ("", None),
    ],
)
def test_a_single_row(sql, table):
    assert single_row(sql) == table


# ---- what goes wrong ------------------------------------------------------------------------------------------------


async def test_whoever_fails_fails_alone(db):
    """The errors are the ones that each gets by itself, and the others have no part in them."""
    await write(db, (7, "there"))
    bad: dict[int, Sequence[Any]] = {
        10: (7, "a"),  # there already
        15: (15, "more than ten characters"),
        20: ("no number", "a"),
        25: (2**40, "a"),
        30: (30, "a\0b"),
        35: (35, object()),
    }
    rows = [bad.get(i, (i + 100, "a")) for i in range(40)]
    found = await all_of(db, rows)
    for i, values in bad.items():
        with pytest.raises(ProviderError) as alone:
            await write(db, values)
        error = found[i]
        assert (type(error), str(error), error.code) == (type(alone.value), str(alone.value), alone.value.code)
        assert type(error.__cause__) is type(alone.value.__cause__)
    assert [i for i in range(40) if found[i] != 1] == [*bad]
    assert await told(db) == [7, *(i + 100 for i in range(40) if i not in bad)]


async def test_constraints_that_are_looked_at_in_the_end(db):
    await db["main"].execute("INSERT INTO parent VALUES (1)")
    text = "INSERT INTO late (id, parent) VALUES ($1, $2)"
    found = await all_of(db, [(i, 2 if i == 20 else 1) for i in range(40)], text)
    assert [i for i, one in enumerate(found) if one != 1] == [20]
    assert isinstance(found[20], ConstraintViolated)
    assert await told(db, "late") == [i for i in range(40) if i != 20]


async def test_an_entry_that_was_written_already(db):
    entry = await db.audit.entry("written", details={"id": "0"})
    texts = [db["main"].execute(INSERT, [0, "a"], audit=entry)]
    texts += [write(db, (i, "a")) for i in range(1, 39)]
    texts.append(db["main"].execute(INSERT, [39, "a"], audit=entry))
    found = await asyncio.gather(*texts, return_exceptions=True)
    assert found[:39] == [1] * 39
    assert isinstance(found[39], ConstraintViolated)
    assert await told(db) == [*range(39)]


async def test_groups_pause_where_rows_fail(db):
    """Where many of the rows fail, going together costs more than it brings."""
    for start in range(0, 400, 40):
        await all_of(db, [(i if i % 4 else 0, "a") for i in range(start, start + 40)])
    plan = next(plan for plan in db["main"]._fusing._plans.values() if plan.together)
    assert plan.together._pause > 4 * together._FIRST_PAUSE
    assert await told(db) == [0, *(i for i in range(400) if i % 4)]


async def test_groups_pause_where_rows_take_long(db):
    """They would wait for one another on one connection, where several could do them side by side."""
    await db["main"].execute("ALTER TABLE t ADD CHECK (pg_sleep(0.02) IS NOT NULL)")
    await all_of(db, rows_of(*range(30)))
    plan = next(plan for plan in db["main"]._fusing._plans.values() if plan.together)
    assert plan.together._skips == together._FIRST_PAUSE
    assert await told(db) == [*range(30)]


@pytest.mark.parametrize("place", [FEW, FEW + 5, 39], ids=["first", "in the middle", "last"])
async def test_whoever_waits_for_a_lock_waits_alone(db, place):
    """Somebody else's row, not committed yet: the one who would write it again waits, and nobody else."""
    main = db["main"]
    async with main.transaction() as tx:
        await tx.execute("INSERT INTO t VALUES (1000, 'open')")
        ids = [1000 if i == place else i for i in range(40)]
        running = [asyncio.create_task(write(db, row)) for row in rows_of(*ids)]
        others = [task for i, task in enumerate(running) if i != place]
        assert await asyncio.wait_for(asyncio.gather(*others), 20) == [1] * 39
        assert not running[place].done()
        assert await asyncio.wait_for(all_of(db, rows_of(*range(100, 140))), 20) == [1] * 40
    with pytest.raises(ConstraintViolated):
        await running[place]
    await main.execute("DELETE FROM t WHERE id = 1000")
    assert len(await told(db)) == 79


async def test_whoever_takes_long_does_so_alone(db):
    """A check that takes a minute for one value: nobody else waits for it."""
    await db["main"].execute("ALTER TABLE t ADD CHECK (a <> 'slow' OR pg_sleep(60) IS NOT NULL)")
    rows = [(i, "slow" if i == 20 else "a") for i in range(40)]
    running = [asyncio.create_task(write(db, row)) for row in rows]
    others = [task for i, task in enumerate(running) if i != 20]
    assert await asyncio.wait_for(asyncio.gather(*others), 20) == [1] * 39
    assert not running[20].done()
    running[20].cancel()
    await asyncio.wait(running)
    assert await told(db) == [i for i in range(40) if i != 20]


async def test_nobody_waits_for_a_connection_that_is_dead(
    postgresql_database, postgresql_server, tmp_path, monkeypatch
):
    """Those that were open are frozen, as where a firewall has forgotten them: later rows go on others."""
    monkeypatch.setattr(together, "_STUCK", 0.05)
    with TCPProxy(postgresql_server.host, postgresql_server.port) as proxy:
        url = postgresql_database.settings["url"].replace(f":{postgresql_server.port}/", f":{proxy.port}/")
        provider = PostgreSQLProvider.from_url(url, name="main", location="norway")
        async with opened(postgresql_database, tmp_path, provider=provider) as db:
            await db["main"].execute(SCHEMA)
            assert await all_of(db, rows_of(*range(40))) == [1] * 40
            proxy.freeze(newcomers=False)
            running: list[asyncio.Task[int]] = []

            def more() -> bool:
                running.append(asyncio.create_task(write(db, (1000 + len(running), "a"))))
                return any(task.done() for task in running)

            await until(more)
            assert not all(task.done() for task in running[:-1])
            proxy.thaw()
            assert set(await asyncio.wait_for(asyncio.gather(*running), 60)) == {1}
            await told(db)
            plan = next(plan for plan in db["main"]._fusing._plans.values() if plan.together)
            assert plan.together._at_once == together._AT_ONCE


async def test_those_in_line_are_sent_past_groups_without_an_answer(db, monkeypatch):
    """Nobody else has to come for that."""
    monkeypatch.setattr(together, "_STUCK", 1.0)
    main = db["main"]
    await all_of(db, rows_of(*range(40)))
    plan = next(plan for plan in main._fusing._plans.values() if plan.together)
    async with main.transaction() as tx:
        await tx.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        running = []
        for wave in range(1, 4):
            running.append(asyncio.create_task(all_of(db, rows_of(*range(wave * 100, wave * 100 + 40)))))
            await until(lambda wave=wave: plan.together._waiting or len(plan.together._running) == wave)
        await until(lambda: not plan.together._waiting)
        assert not any(task.done() for task in running)
    assert await asyncio.gather(*running) == [[1] * 40] * 3
    assert len(await told(db)) == 160


async def test_they_are_part_of_no_deadlock(db):
    """Two transactions that wait for a group, which waits for them: the group gives way."""
    main = db["main"]
    for round_ in range(8):
        ids = [*range(round_ * 100, round_ * 100 + 40)]
        with contextlib.suppress(ConstraintViolated):
            async with main.transaction() as tx:
                await tx.execute("INSERT INTO t VALUES ($1, 'mine')", [ids[30]])
                running = asyncio.create_task(all_of(db, rows_of(*ids)))
                await asyncio.sleep(0.001 * round_)
                await tx.execute("INSERT INTO t VALUES ($1, 'mine')", [ids[10]])
        found = await running
        failed = [one for one in found if one != 1]
        assert len(failed) <= 2
        assert all(isinstance(one, ConstraintViolated) for one in failed)
    assert await main.query_value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0


@pytest.mark.parametrize("who", ["some", "all"])
async def test_cancelled(db, who):
    """Whoever is cancelled has written both, or neither; the others do not notice."""
    main = db["main"]
    for round_ in range(12):
        ids = range(round_ * 100, round_ * 100 + 40)
        running = [asyncio.create_task(write(db, row)) for row in rows_of(*ids)]
        for _ in range(round_):
            await asyncio.sleep(0)
        if round_ > 8:
            await asyncio.sleep(0.001)
        gone = running[::3] if who == "some" else running
        for task in gone:
            task.cancel()
        found = await asyncio.gather(*running, return_exceptions=True)
        there = set(await told(db))
        for i, one in zip(ids, found, strict=True):
            assert one == 1 or isinstance(one, asyncio.CancelledError)
            assert i in there or one != 1
    await until(lambda: main.stats().in_use == 0)
    assert await write(db, (9999, "a")) == 1


async def test_one_who_leaves_as_the_turn_comes(db):
    """Alone in a group: the turn that was given goes to the next one, whenever it was."""
    await all_of(db, rows_of(*range(20)))
    plan = next(plan for plan in db["main"]._fusing._plans.values() if plan.together)
    for turns in range(6):
        for id_ in range(100 + turns * 10, 103 + turns * 10):
            plan.together._crowd = True  # nobody goes by himself
            task = asyncio.create_task(write(db, (id_, "a")))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
    assert plan.together._alone == 0
    assert await asyncio.wait_for(all_of(db, rows_of(*range(1000, 1040))), 20) == [1] * 40
    await told(db)


async def test_when_all_have_left_what_is_under_way_is_ended(db):
    main = db["main"]
    await all_of(db, rows_of(*range(20)))
    plan = next(plan for plan in main._fusing._plans.values() if plan.together)
    async with main.transaction() as tx:
        await tx.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        plan.together._crowd = True
        running = [asyncio.create_task(write(db, row)) for row in rows_of(*range(100, 120))]
        await waits(main)
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        await until(lambda: main.stats().in_use == 1)
    assert not plan.together._running
    assert await told(db) == [*range(20)]


@pytest.fixture
async def kill(db: DatabaseManager, postgresql_database: Any) -> AsyncIterator[Any]:
    """Ends the sessions that are at work on a group."""
    async with PostgreSQLProvider.from_url(postgresql_database.settings["url"], name="killer") as killer:

        async def kill() -> int:
            return int(
                await killer.query_value(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND query LIKE '%datavern_held%' AND pid <> pg_backend_pid()"
                )
            )

        yield kill


async def test_a_connection_that_breaks(db, kill):
    """Nobody is told that a row is there that is not, and none is there twice."""
    for round_ in range(20):
        ids = range(round_ * 100, round_ * 100 + 60)
        running = asyncio.create_task(all_of(db, rows_of(*ids)))
        await asyncio.sleep(0.001 * (round_ % 5))
        await kill()
        found = await running
        there = set(await again(lambda: told(db)))
        for i, one in zip(ids, found, strict=True):
            assert one == 1 or isinstance(one, OutcomeUnknown | ConnectionFailed)
            assert i in there or one != 1
            assert i not in there or not isinstance(one, ConnectionFailed)
    assert await again(lambda: write(db, (9999, "a"))) == 1


async def test_a_connection_that_breaks_in_the_middle(db, kill):
    main = db["main"]
    async with main.transaction() as tx:
        await tx.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        running = asyncio.create_task(all_of(db, rows_of(*range(40))))
        await until(kill)
    found = await running
    assert found[:FEW] == [1] * FEW
    assert {type(one) for one in found[FEW:]} == {OutcomeUnknown}
    assert len({id(one) for one in found[FEW:]}) == 40 - FEW
    assert await again(lambda: told(db)) == [*range(FEW)]
    assert await again(lambda: all_of(db, rows_of(*range(FEW, 40)))) == [1] * (40 - FEW)


async def test_closed_while_they_wait(postgresql_database, tmp_path):
    async with opened(postgresql_database, tmp_path) as db:
        main = db["main"]
        await main.execute(SCHEMA)
        running = [asyncio.create_task(write(db, row)) for row in rows_of(*range(200))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await main.close()
        found = await asyncio.wait_for(asyncio.gather(*running, return_exceptions=True), 20)
        assert {type(one) for one in found} <= {int, OutcomeUnknown, ConnectionFailed}
        await main.connect()
        there = set(await told(db))
        assert all(i in there for i, one in enumerate(found) if one == 1)
        assert all(i not in there for i, one in enumerate(found) if isinstance(one, ConnectionFailed))


async def test_the_line_ends_where_that_of_the_pool_does(postgresql_database, tmp_path):
    pool = Pool(max=2, acquire=0.5, max_waiting=30)
    async with opened(postgresql_database, tmp_path, pool=pool) as db:
        main = db["main"]
        await main.execute(SCHEMA)
        held = [await main._pool.acquire() for _ in range(2)]
        found = await all_of(db, rows_of(*range(300)))
        assert {type(one) for one in found} == {PoolTimeout}
        for slot in held:
            main._pool.give(slot)
        assert await all_of(db, rows_of(*range(20))) == [1] * 20
        assert await told(db) == [*range(20)]


async def test_many_processes(db, postgresql_database, tmp_path):
    """Two that write the same numbers: each number is written once, by one of them."""
    async with opened(postgresql_database, tmp_path) as other:
        numbers = [*range(300)]
        mine, others = await asyncio.gather(all_of(db, rows_of(*numbers)), all_of(other, rows_of(*reversed(numbers))))
        for one, two in zip(mine, reversed(others), strict=True):
            assert {type(one), type(two)} == {int, ConstraintViolated}
    assert await told(db) == numbers


# ---- under conditions -----------------------------------------------------------------------------------------------


GUARD = "SELECT id FROM living WHERE id = $1 AND NOT dead FOR SHARE"


async def guarded(db: DatabaseManager, row: tuple[int, str], *keys: str, table: str = "t") -> bool:
    """A row with its entry, if those keys live."""
    entry = await db.audit.entry("written", details={"id": str(row[0])})
    guards = [(GUARD, [key]) for key in keys]
    values = {"id": row[0], "a": row[1]}
    return bool(await db["main"].capabilities.guarded.insert(table, values, guards=guards, audit=entry))


@pytest.fixture
async def living(db: DatabaseManager) -> Any:
    main = db["main"]
    await main.execute("CREATE TABLE living (id text PRIMARY KEY, dead boolean NOT NULL DEFAULT false)")
    await main.execute_many("INSERT INTO living (id) VALUES ($1)", [("k0",), ("k1",), ("k2",)])
    await main.execute("INSERT INTO living VALUES ('gone', true)")
    return main


async def test_rows_under_conditions_come_together(db, living):
    for start in (0, 40):
        found = await asyncio.gather(*(guarded(db, (i, "a"), f"k{i % 3}") for i in range(start, start + 40)))
        assert found == [True] * 40
    assert await told(db) == [*range(80)]
    assert await sizes(db) == [40, 40 - FEW, *[1] * FEW]


async def test_each_is_told_of_its_own_conditions(db, living):
    keys = [["k0", "k1"] if i % 4 else ["k0", "gone"] for i in range(40)]
    keys[7], keys[9] = ["nobody's", "k1"], ["k0", "no'; DROP TABLE living"]
    expected = [i % 4 > 0 and i not in {7, 9} for i in range(40)]
    assert await asyncio.gather(*(guarded(db, (i, "a"), *keys[i]) for i in range(40))) == expected
    assert await told(db) == [i for i in range(40) if expected[i]]
    assert max(await sizes(db)) > 20
    assert await asyncio.gather(*(guarded(db, (i, "a"), "gone") for i in range(40))) == [False] * 40
    assert await asyncio.gather(*(guarded(db, (i, "a")) for i in range(100, 140))) == [True] * 40


@pytest.mark.parametrize("place", [0, FEW, FEW + 5, 39])
@pytest.mark.parametrize("dies", [True, False])
async def test_whoever_waits_for_a_condition_waits_alone(db, living, place, dies):
    """As a write does that meets the erasure of its person."""
    async with living.transaction() as tx:
        await tx.execute("UPDATE living SET dead = $1 WHERE id = 'k2'", [dies])
        running = [asyncio.create_task(guarded(db, (i, "a"), "k2" if i == place else f"k{i % 2}")) for i in range(40)]
        others = [task for i, task in enumerate(running) if i != place]
        assert await asyncio.wait_for(asyncio.gather(*others), 20) == [True] * 39
        assert not running[place].done()
    assert await running[place] is not dies
    assert await told(db) == [i for i in range(40) if i != place or not dies]


async def test_whoever_fails_under_conditions_fails_alone(db, living):
    await guarded(db, (7, "there"), "k0")
    found = await asyncio.gather(
        *(guarded(db, (i, "far too long a text" if i == 20 else "a"), "k0") for i in range(40)), return_exceptions=True
    )
    assert [i for i, one in enumerate(found) if one is not True] == [7, 20]
    assert isinstance(found[7], ConstraintViolated)
    assert isinstance(found[20], ConstraintViolated)
    assert await told(db) == [i for i in range(40) if i != 20]


@pytest.mark.parametrize("table", ["triggered", "parted"])
async def test_under_conditions_too_what_could_see_a_transaction_is_given_one_each(db, living, table):
    for start in (0, 40):
        found = [guarded(db, (i, "a"), "k0", table=table) for i in range(start, start + 40)]
        assert await asyncio.gather(*found) == [True] * 40
    assert await sizes(db, table) == [1] * 80


async def test_not_under_conditions_either_where_it_is_not_wanted(db, living, postgresql_database, tmp_path):
    async with opened(postgresql_database, tmp_path, group_commit=False) as other:
        assert await asyncio.gather(*(guarded(other, (i, "a"), "k0") for i in range(40))) == [True] * 40
        assert await sizes(other) == [1] * 40


# ---- settings -------------------------------------------------------------------------------------------------------


async def test_too_few_parameters(db):
    with pytest.raises(QueryRejected, match="takes 2 parameters, 1 was given"):
        await write(db, (1,))


async def test_behind_a_pooler_each_goes_by_itself(db, monkeypatch):
    """A pipeline is a transaction to a pooler, too; what it makes of prepared statements is not relied on."""
    monkeypatch.setattr(db["main"], "_pooled", True)
    assert await all_of(db, rows_of(*range(20))) == [1] * 20
    assert await sizes(db) == [1] * 20


def test_the_setting_is_one_of_the_url_and_of_the_file():
    assert PostgreSQLProvider(database="app").settings.group_commit is True
    assert PostgreSQLProvider(database="app", group_commit=False).settings.group_commit is False
