"""A change with its audit entry and its idempotency key: all of it or nothing, once, on every engine."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
import traceback
import uuid

import pytest
from secondaries import stand_in

from datavern import (
    ConfigurationError,
    ConstraintViolated,
    DatabaseManager,
    FailoverGroup,
    IdempotencyKeyReused,
    QueryRejected,
    SerializationConflict,
    actor,
)
from datavern.contracts.values import timestamp
from datavern.testing import create_test_database
from datavern.testing.contract.errors import PLANTED, nothing_planted

INSERT = "INSERT INTO cases (id, state) VALUES ($1, $2)"
CLOSE = "UPDATE cases SET state = 'closed', changes = changes + 1 WHERE id = $1"


@pytest.fixture
async def db(managed):
    async with managed() as db:
        yield db


@pytest.fixture
async def main(db, sql):
    main = db["main"]
    await main.execute(
        sql(
            "CREATE TABLE cases (id {integer} PRIMARY KEY, state {text} UNIQUE, changes {integer} NOT NULL DEFAULT 0, "
            "CONSTRAINT small CHECK (changes < 100))"
        )
    )
    return main


async def entries(main, action=None):
    rows = [dict(r) for r in await main.query("SELECT * FROM datavern_audit ORDER BY seq")]
    return [r for r in rows if action is None or r["action"] == action]


async def cases(main):
    return {r["id"]: r["state"] for r in await main.query("SELECT id, state FROM cases")}


# ---- the change and its entry ---------------------------------------------------------------------------------------


async def test_a_change_and_its_entry(db, main, sql):
    with actor("case-worker-7"):
        entry = await db.audit.entry("case_opened", subject="test-user", dataset="cases", details={"fields": ["state"]})
    assert await entries(main) == []
    assert await main.execute(sql(INSERT), [1, "blåbær"], audit=entry) == 1
    assert await cases(main) == {1: "blåbær"}
    (written,) = await entries(main)
    assert written["entry_id"] == entry.id
    assert (written["action"], written["actor"], written["dataset"]) == ("case_opened", "case-worker-7", "cases")
    assert written["handle"] == await db.keys.handle("test-user", create=False)
    assert written["era"] == 1
    assert written["details"] == '{"fields":["state"]}'
    await db.audit.seal()
    report = await db.audit.verify()
    assert report.ok
    assert report.entries == 1
    assert (await db.audit.prove(entry.id)).entry["action"] == "case_opened"


@pytest.mark.parametrize("rows", [0, 1, 3])
async def test_the_count_is_the_callers_statements(db, main, sql, rows):
    for n in range(5):
        await main.execute(sql(INSERT), [n, f"s{n}"])
    change = sql("UPDATE cases SET changes = 1 WHERE id < $1")
    assert await main.execute(change, [rows], audit=await db.audit.entry("changed")) == rows
    gone = sql("DELETE FROM cases WHERE id < $1")
    assert await main.execute(gone, [rows], audit=await db.audit.entry("gone")) == rows
    assert await main.execute("SELECT * FROM cases", audit=await db.audit.entry("looked")) == 0
    assert [e["action"] for e in await entries(main)] == ["changed", "gone", "looked"]


async def test_a_change_that_fails_leaves_no_entry(db, main, sql):
    await main.execute(sql(INSERT), [1, "a"])
    for text, values in (
        (INSERT, [1, "b"]),
        (INSERT, [2, "a"]),
        (INSERT, [None, "x", 3]),
        ("UPDATE cases SET changes = 100 WHERE id = $1", [1]),
        ("INSERT INTO nowhere VALUES ($1)", [1]),
        ("UPDATE cases SET state = = $1", [1]),
        ("WITH x AS (SELECT 1 UPDATE cases SET state = 'z'", []),
    ):
        with pytest.raises(QueryRejected):
            await main.execute(sql(text), values, audit=await db.audit.entry("never"))
    assert await entries(main) == []
    assert await cases(main) == {1: "a"}


@pytest.mark.parametrize("how", ["alone", "in a transaction", "with a key"])
async def test_an_entry_that_fails_undoes_the_change(db, main, sql, how):
    """An entry is written once: a second time its id is refused."""
    entry = await db.audit.entry("once")
    await main.execute(sql(INSERT), [1, "a"], audit=entry)
    with pytest.raises(ConstraintViolated) as refused:
        if how == "alone":
            await main.execute(sql(INSERT), [2, "b"], audit=entry)
        elif how == "with a key":
            await main.execute(sql(INSERT), [2, "b"], audit=entry, idempotency_key="k")
        else:
            async with main.transaction() as tx:
                await tx.execute(sql(INSERT), [2, "b"], audit=entry)
    assert "datavern_audit" in str(refused.value)
    assert await cases(main) == {1: "a"}
    assert len(await entries(main)) == 1
    if how == "with a key":
        assert await main.execute(sql(INSERT), [2, "b"], idempotency_key="k") == 1


async def test_the_entry_is_of_the_changes_own_transaction(db, main, sql, engine):
    await main.execute(sql(INSERT), [1, "a"], audit=await db.audit.entry("opened"))
    if engine == "postgresql":
        both = "SELECT count(*) FROM cases c JOIN datavern_audit a ON c.xmin::text::xid8 = a.stamp"
        assert await main.query_value(both) == 1
    async with main.transaction() as tx:
        await tx.execute(sql(INSERT), [2, "b"], audit=await db.audit.entry("second"))
        checkpoint = None if engine == "sqlite" else await db.audit.seal()
    if checkpoint is not None:
        assert checkpoint.size == 1  # what is not committed is not settled
    assert (await db.audit.seal()).size == 2
    assert (await db.audit.verify()).ok


async def test_names_with_quotes_and_norwegian_letters(db, main, sql):
    await main.execute(sql('CREATE TABLE "Æ ""ø"" å; --" ("nøkkel $1" {integer} PRIMARY KEY, "ta""le" {text})'))
    change = sql('INSERT INTO "Æ ""ø"" å; --" ("nøkkel $1", "ta""le") VALUES ($1, $2) /* ; */ -- RETURNING')
    assert await main.execute(change, [1, "'; DROP"], audit=await db.audit.entry("blåbær \"'")) == 1
    assert (await entries(main))[0]["action"] == "blåbær \"'"
    assert await main.query_value('SELECT "ta""le" FROM "Æ ""ø"" å; --"') == "'; DROP"


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize(
    ("statement", "stumbles_over"),
    [
        ("UPDATE cases SET state = 'æøå' WHERE id = 1 AND AND id = 2", "AND id = 2"),
        ("  -- å\n WITH x AS (SELECT 1) UPDATE cases SET nothing_here = 1", "nothing_here"),
        ("INSERT INTO cases (id) SELECT id FROM no_such_table", "no_such_table"),
        ("DELETE FROM FROM cases", "FROM cases"),
    ],
)
async def test_positions_are_those_of_the_callers_text(db, main, statement, stumbles_over, keyed):
    with pytest.raises(QueryRejected) as refused:
        key = "k" if keyed else None
        await main.execute(statement, audit=await db.audit.entry("never"), idempotency_key=key)
    assert refused.value.position is not None
    assert statement[refused.value.position - 1 :].startswith(stumbles_over)
    unfinished = "UPDATE cases SET state = "
    with pytest.raises(QueryRejected) as refused:
        await main.execute(unfinished, audit=await db.audit.entry("never"))
    assert refused.value.position in {len(unfinished), len(unfinished) + 1}


@pytest.mark.parametrize("how", ["alone", "with a key", "in a transaction", "with others"])
async def test_a_planted_value_appears_nowhere(db, main, sql, how, caplog):
    await main.execute(sql(INSERT), [1, PLANTED])
    entry = await db.audit.entry("planted")
    errors = []
    for text, values in (
        (INSERT, [2, PLANTED]),
        (f"INSERT INTO cases (id, state) VALUES ($1, '{PLANTED}')", [2]),
        (INSERT, [3, PLANTED + "\0"]),
        (INSERT, [PLANTED, "x"]) if how == "alone" else (INSERT, [4, {PLANTED}]),
        (f"UPDATE cases SET state = '{PLANTED}' '{PLANTED}' WHERE", []),
    ):
        with pytest.raises(QueryRejected) as refused:
            if how == "in a transaction":
                async with main.transaction() as tx:
                    await tx.execute(sql(text), values, audit=entry, idempotency_key=PLANTED)
            elif how == "with others":
                made = [await db.audit.entry("other") for _ in range(5)]
                results = await asyncio.gather(
                    *(main.execute(sql(INSERT), [n, f"{n}"], audit=one) for n, one in enumerate(made, 100)),
                    main.execute(sql(text), values, audit=entry),
                    return_exceptions=True,
                )
                await main.execute("DELETE FROM cases WHERE id >= 100")
                assert results[:5] == [1] * 5
                raise results[5]
            else:
                key = PLANTED if how == "with a key" else None
                await main.execute(sql(text), values, audit=entry, idempotency_key=key)
        nothing_planted(refused.value)
        errors.append(refused.value)
    assert isinstance(errors[0], ConstraintViolated)
    assert errors[0].constraint
    assert PLANTED not in caplog.text
    assert PLANTED not in "".join(traceback.format_exception(errors[0]))
    assert await cases(main) == {1: PLANTED}
    assert await entries(main, "planted") == []


async def test_too_few_and_too_many_parameters(db, main, sql):
    for values in ([], [1], [1, "a", 2]):
        with pytest.raises(QueryRejected) as refused:
            await main.execute(sql(INSERT), values, audit=await db.audit.entry("never"))
        assert "2" in str(refused.value)
        assert str(len(values)) in str(refused.value)
    for values in ("ab", b"ab", 7):
        with pytest.raises(QueryRejected):
            await main.execute(sql(INSERT), values, audit=await db.audit.entry("never"))
    assert await entries(main) == []


async def test_what_is_no_entry_is_refused(db, main, sql, database):
    for wrong in ("case_closed", {"action": "x"}, object):
        with pytest.raises(ConfigurationError, match=r"db\.audit\.entry"):
            await main.execute(sql(INSERT), [1, "a"], audit=wrong)
    for wrong, says in (
        ({"action": "x", "details": {"a": object()}}, "JSON"),
        ({"action": "x", "details": {"a": "13097248022"}}, "fødselsnummer"),
        ({"action": "x\0"}, "NUL"),
        ({"action": "x", "subject": "13097248022"}, "fødselsnummer"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            await db.audit.entry(**wrong)
    assert await cases(main) == {}


async def test_a_provider_without_a_manager_says_what_to_do(db, main, sql, database):
    entry = await db.audit.entry("x")
    async with database.provider("alone", location="norway") as alone:
        for call in (
            lambda: alone.execute(sql(INSERT), [1, "a"], audit=entry),
            lambda: alone.execute(sql(INSERT), [1, "a"], audit=entry, idempotency_key="k"),
        ):
            with pytest.raises(ConfigurationError, match="put the provider in that DatabaseManager"):
                await call()
        with pytest.raises(ConfigurationError, match="DatabaseManager"):
            async with alone.transaction() as tx:
                await tx.execute(sql(INSERT), [1, "a"], audit=entry)
        assert await alone.execute(sql(INSERT), [1, "a"], idempotency_key="k") == 1  # needs nobody
    assert await entries(main) == []


async def test_an_entry_of_another_manager_is_refused(db, main, sql, managed):
    async with managed() as other:
        entry = await other.audit.entry("x")
        with pytest.raises(ConfigurationError, match="manager that holds it"):
            await main.execute(sql(INSERT), [1, "a"], audit=entry)
        assert await other["main"].execute(sql(INSERT), [1, "a"], audit=entry) == 1


async def test_an_entry_can_be_written_by_itself(db, main):
    entry = await db.audit.entry("cache_cleared", details={"keys": 3})
    assert await db.audit.write(entry, database="a cache without a log") == entry.id
    assert [e["action"] for e in await entries(main)] == ["cache_cleared"]
    with pytest.raises(ConstraintViolated):
        await db.audit.write(entry)


@pytest.mark.not_on("azuresql", "a database that takes no writes is a replica there, on a second server")
async def test_a_failover_group_writes_both_on_its_primary(database, keyring, sql):
    first = database.provider("first", location="norway")
    async with create_test_database(database.engine) as other:
        await stand_in(other)
        second = other.provider("second", location="norway")
        await _both_on_the_primary(
            DatabaseManager(primary=first, secondary=second, keyring=keyring, ledger="main"), sql
        )


async def _both_on_the_primary(manager, sql):
    async with manager as db:
        assert isinstance(db["main"], FailoverGroup)
        await db.execute(sql("CREATE TABLE cases (id {integer} PRIMARY KEY, state {text})"))
        key = uuid.uuid4().hex
        for _ in range(2):
            entry = await db.audit.entry("opened")
            assert await db.execute(sql(INSERT), [1, "a"], audit=entry, idempotency_key=key) == 1
        async with db.transaction() as tx:
            await tx.execute(sql(INSERT), [2, "b"], audit=await db.audit.entry("second"))
        assert [e["action"] for e in await entries(db["main"])] == ["opened", "second"]


# ---- in a transaction -----------------------------------------------------------------------------------------------


async def test_in_a_transaction_both_commit_or_neither(db, main, sql):
    async with main.transaction() as tx:
        assert await tx.execute(sql(INSERT), [1, "a"], audit=await db.audit.entry("opened")) == 1
        assert await tx.execute(sql(CLOSE), [1], audit=await db.audit.entry("closed")) == 1
    with pytest.raises(ZeroDivisionError):
        async with main.transaction() as tx:
            await tx.execute(sql(INSERT), [2, "b"], audit=await db.audit.entry("never"))
            raise ZeroDivisionError
    async with main.transaction() as tx:
        with pytest.raises(ConstraintViolated):
            async with tx.savepoint():
                await tx.execute(sql(INSERT), [1, "c"], audit=await db.audit.entry("never"))
        with pytest.raises(ZeroDivisionError):
            async with tx.savepoint():
                await tx.execute(sql(INSERT), [3, "c"], audit=await db.audit.entry("never"))
                raise ZeroDivisionError
        await tx.execute(sql(INSERT), [4, "d"], audit=await db.audit.entry("after"))
    assert await cases(main) == {1: "closed", 4: "d"}
    assert [e["action"] for e in await entries(main)] == ["opened", "closed", "after"]
    await db.audit.seal()
    assert (await db.audit.verify()).ok


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_a_transaction_that_goes_on_after_a_failure_has_neither(db, main, sql):
    entry = await db.audit.entry("once")
    async with main.transaction() as tx:
        await tx.execute(sql(INSERT), [1, "a"], audit=entry)
        with pytest.raises(ConstraintViolated):
            await tx.execute(sql(INSERT), [2, "b"], audit=entry, idempotency_key="k")
        with pytest.raises(ConstraintViolated):
            await tx.execute(sql(INSERT), [1, "b"], audit=await db.audit.entry("never"), idempotency_key="k")
        assert await tx.execute(sql(INSERT), [3, "c"], idempotency_key="k") == 1
    assert await cases(main) == {1: "a", 3: "c"}
    assert len(await entries(main)) == 1


async def test_run_in_transaction_runs_both_again(db, main, sql):
    attempts = []

    async def work(tx):
        attempts.append(1)
        await tx.execute(sql(INSERT), [1, "a"], audit=entry, idempotency_key="k")
        if len(attempts) < 3:
            raise SerializationConflict("again")

    entry = await db.audit.entry("once")
    await main.run_in_transaction(work)
    assert len(attempts) == 3
    assert await cases(main) == {1: "a"}
    assert len(await entries(main)) == 1


# ---- a transaction under a key --------------------------------------------------------------------------------------


async def test_a_transaction_under_a_key_is_run_once(main, sql):
    runs = []

    async def work(tx):
        runs.append(1)
        await tx.execute(sql(INSERT), [len(runs), f"s{len(runs)}"])
        if len(runs) < 3:
            raise SerializationConflict("again")
        return "done"

    assert await main.run_in_transaction(work, idempotency_key="close 7") == "done"
    assert await main.run_in_transaction(work, idempotency_key="close 7") is None
    assert len(runs) == 3
    assert await cases(main) == {3: "s3"}


@pytest.mark.parametrize("isolation", [None, "repeatable read", "serializable"])
async def test_of_many_transactions_under_a_key_one_is_kept(main, sql, isolation):
    async def work(tx):
        number = (await tx.query_value("SELECT count(*) FROM cases")) + 1
        await tx.execute(sql(INSERT), [number, f"s{number}"])
        return number

    many = [
        main.run_in_transaction(work, idempotency_key="'; DROP TABLE cases -- æøå", attempts=20, isolation=isolation)
        for _ in range(20)
    ]
    given = await asyncio.gather(*many)
    assert sorted(given, key=str) == [1, *[None] * 19]
    assert len(await cases(main)) == 1


async def test_a_key_goes_with_what_failed(main, sql):
    async def fail(tx):
        await tx.execute(sql(INSERT), [1, "a"])
        raise ZeroDivisionError

    async def work(tx):
        return await tx.execute(sql(INSERT), [2, "b"])

    with pytest.raises(ZeroDivisionError):
        await main.run_in_transaction(fail, idempotency_key="k")
    assert await main.run_in_transaction(work, idempotency_key="k") == 1
    assert await cases(main) == {2: "b"}


async def test_a_claim_in_a_transaction_of_ones_own(main, sql):
    for n in range(3):
        async with main.transaction() as tx:
            if await tx.claim("order 7", 1000 + n) is None:
                await tx.execute(sql(INSERT), [n, f"s{n}"])
            else:
                assert await tx.claim("order 7") == 1000
    assert await cases(main) == {0: "s0"}


@pytest.mark.parametrize("settings", [{"idempotency_key": " "}, {"idempotency_key": "k", "read_only": True}])
async def test_a_key_that_makes_no_sense(main, settings):
    async def work(tx):
        raise AssertionError("run all the same")

    with pytest.raises(ConfigurationError, match="idempotency_key"):
        await main.run_in_transaction(work, **settings)


async def test_a_new_subjects_handle_is_made_in_the_callers_transaction(db, main, sql):
    async with main.transaction() as tx:
        await tx.execute(sql(INSERT), [1, "a"])
        entry = await db.audit.entry("opened", subject="somebody new", transaction=tx)
        await tx.execute(sql(CLOSE), [1], audit=entry)
    assert (await entries(main))[0]["handle"] == await db.keys.handle("somebody new", create=False)


# ---- idempotency keys -----------------------------------------------------------------------------------------------


async def test_a_key_makes_a_change_once(db, main, sql):
    assert await main.execute(sql(INSERT), [1, "a"], idempotency_key="first") == 1
    assert await main.execute(sql(INSERT), [1, "a"], idempotency_key="first") == 1
    for _ in range(3):
        entry = await db.audit.entry("closed")
        assert await main.execute(sql(CLOSE), [1], audit=entry, idempotency_key="æøå \"'") == 1
    assert await main.execute(sql(CLOSE), [77], idempotency_key="nobody") == 0
    await main.execute(sql(INSERT), [77, "late"])
    assert await main.execute(sql(CLOSE), [77], idempotency_key="nobody") == 0
    assert await cases(main) == {1: "closed", 77: "late"}
    assert await main.query_value("SELECT changes FROM cases WHERE id = 1") == 1
    assert len(await entries(main)) == 1
    with pytest.raises(ConstraintViolated):
        await main.execute(sql(INSERT), [1, "a"], idempotency_key="another")


async def test_a_change_that_failed_is_not_made(db, main, sql):
    for _ in range(2):
        with pytest.raises(ConstraintViolated):
            change = sql("INSERT INTO cases (id, state, changes) VALUES (1, $1, 100)")
            await main.execute(change, ["x"], audit=await db.audit.entry("n"), idempotency_key="k")
    assert await entries(main) == []
    assert await main.execute(sql(INSERT), [1, "a"], audit=await db.audit.entry("y"), idempotency_key="k") == 1
    assert await main.query_value("SELECT count(*) FROM datavern_idempotency") == 1


async def test_of_several_at_once_one_makes_the_change(db, main, sql, database):
    """The first key makes the table too: twice at once."""
    async with database.provider("elsewhere", location="norway") as elsewhere:
        await main.execute(sql(INSERT), [0, "z"])
        for n in range(1, 6):
            calls = []
            for k in range(12):
                who = (main, elsewhere)[k % 2]
                audit = await db.audit.entry(f"n{n}") if who is main else None
                if n % 2:
                    text, values = sql(INSERT), [n, f"state {n}"]
                else:
                    text, values = "UPDATE cases SET changes = changes + 1", []
                calls.append(who.execute(text, values, audit=audit, idempotency_key=f"key {n}"))
            random.shuffle(calls)
            counts = await asyncio.gather(*calls)
            assert counts == [1 if n % 2 else (n // 2) + 1] * 12
            assert len(await entries(main, f"n{n}")) <= 1
        assert await main.query_value("SELECT changes FROM cases WHERE id = 0") == 2
        assert len(await cases(main)) == 4
        assert await main.query_value("SELECT count(*) FROM datavern_idempotency") == 5


async def test_in_a_transaction_a_key_lives_and_dies_with_it(db, main, sql):
    with pytest.raises(ZeroDivisionError):
        async with main.transaction() as tx:
            assert await tx.execute(sql(INSERT), [1, "a"], idempotency_key="k") == 1
            assert await tx.execute(sql(INSERT), [1, "a"], idempotency_key="k") == 1
            raise ZeroDivisionError
    assert await cases(main) == {}
    async with main.transaction() as tx:
        assert await tx.execute(sql(INSERT), [1, "a"], idempotency_key="k") == 1
        with pytest.raises(ZeroDivisionError):
            async with tx.savepoint():
                await tx.execute(sql(INSERT), [2, "b"], idempotency_key="l")
                raise ZeroDivisionError
        assert await tx.execute(sql(INSERT), [2, "b"], idempotency_key="l") == 1
        assert await tx.execute(sql("UPDATE cases SET changes = 5"), idempotency_key="m") == 2
    assert await main.execute(sql(INSERT), [1, "a"], idempotency_key="k") == 1
    await main.execute("UPDATE cases SET changes = 9")
    assert await main.execute("UPDATE cases SET changes = 5", idempotency_key="m") == 2
    assert await main.query_value("SELECT max(changes) FROM cases") == 9


async def test_whoever_holds_the_key_is_waited_for(main, sql, database):
    async with database.provider("elsewhere", location="norway") as elsewhere:
        await main.execute(sql(INSERT), [0, "z"], idempotency_key="the table is there")
        for commits in (True, False):
            key = f"held {commits}"
            try:
                async with elsewhere.transaction() as tx:
                    assert await tx.execute(sql(CLOSE), [0], idempotency_key=key) == 1
                    waiting = asyncio.create_task(main.execute(sql(CLOSE), [0], idempotency_key=key))
                    done, _ = await asyncio.wait([waiting], timeout=0.1)
                    assert not done
                    if not commits:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                pass
            assert await waiting == 1
        assert await main.query_value("SELECT changes FROM cases WHERE id = 0") == 2


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("", "1 to 255"),
        ("  ", "1 to 255"),
        ("x" * 256, "256"),
        ("a\0b", "NUL"),
        ("a\ud800", "surrogate"),
        ("13097248022", "uuid4"),
        (b"x", "bytes"),
        (7, "int"),
    ],
)
async def test_what_is_no_key_is_refused(main, sql, key, says):
    with pytest.raises(ConfigurationError, match=says) as refused:
        await main.execute(sql(INSERT), [1, "a"], idempotency_key=key)
    assert "13097248022" not in str(refused.value)
    with pytest.raises(ConfigurationError, match=says):
        async with main.transaction() as tx:
            await tx.execute(sql(INSERT), [1, "a"], idempotency_key=key)
    assert await cases(main) == {}


async def test_the_longest_key(main, sql):
    for _ in range(2):
        assert await main.execute(sql(INSERT), [1, "a"], idempotency_key="å" * 255) == 1


ANOTHER = "UPDATE cases SET state = 'another' WHERE id = $1"


async def keyed(main, how, change, values, *, key, audit=None):
    if how == "alone":
        return await main.execute(change, values, audit=audit, idempotency_key=key)
    async with main.transaction() as tx:
        return await tx.execute(change, values, audit=audit, idempotency_key=key)


@pytest.mark.parametrize("first", ["alone", "in a transaction"])
@pytest.mark.parametrize("then", ["alone", "in a transaction"])
async def test_a_key_that_is_used_for_another_change_is_refused(db, main, sql, first, then):
    assert await keyed(main, first, sql(INSERT), [1, PLANTED], key="used") == 1
    for change, values, says in (
        (ANOTHER, [1], "another statement"),
        (INSERT, [2, PLANTED], "other parameters"),
        (INSERT, [1, "other"], "other parameters"),  # and its row is there already
        ("UPDATE no_such_table SET a = $1", [1], "another statement"),
        ("UPDATE cases SET changes = 100 WHERE id = $1", [1], "another statement"),
    ):
        for audit in (None, await db.audit.entry("never")):
            with pytest.raises(IdempotencyKeyReused, match=says) as refused:
                await keyed(main, then, sql(change), values, key="used", audit=audit)
            assert "uuid4" in str(refused.value)
            assert "used before" in str(refused.value)
            assert isinstance(refused.value, QueryRejected)
            assert refused.value.retry == "never"
            assert refused.value.provider == main.name
            nothing_planted(refused.value)
    assert await keyed(main, then, sql(INSERT), [1, PLANTED], key="used") == 1
    assert await cases(main) == {1: PLANTED}
    assert await entries(main) == []


async def test_a_transaction_goes_on_after_a_key_that_was_used(main, sql):
    await main.execute(sql(INSERT), [1, "a"], idempotency_key="used")
    async with main.transaction() as tx:
        await tx.execute(sql(INSERT), [2, "b"])
        with pytest.raises(IdempotencyKeyReused):
            await tx.execute(sql(ANOTHER), [1], idempotency_key="used")
        await tx.execute(sql(INSERT), [3, "c"], idempotency_key="new")
        with pytest.raises(IdempotencyKeyReused):
            await tx.claim("new")
    assert await cases(main) == {1: "a", 2: "b", 3: "c"}


async def test_what_says_the_same_is_a_repetition(main, sql):
    await main.execute(sql(INSERT), [1, "a"], idempotency_key="k")
    assert await main.execute(sql(INSERT.replace(" VALUES", "\n  VALUES")), (1, "a"), idempotency_key="k") == 1
    assert await cases(main) == {1: "a"}


async def test_a_statement_and_the_work_of_a_transaction_are_told_apart(main, sql):
    async def work(tx):
        return await tx.execute(sql(INSERT), [7, "g"])

    assert await main.execute(sql(INSERT), [1, "a"], idempotency_key="of one row") == 1
    assert await main.execute(sql(ANOTHER), [77], idempotency_key="of none") == 0
    for key in ("of one row", "of none"):
        with pytest.raises(IdempotencyKeyReused, match="for a statement"):
            await main.run_in_transaction(work, idempotency_key=key)
    assert await main.run_in_transaction(work, idempotency_key="work") == 1
    async with main.transaction() as tx:
        assert await tx.claim("claimed") is None
    for key in ("work", "claimed"):
        with pytest.raises(IdempotencyKeyReused, match="for a transaction"):
            await main.execute(sql(INSERT), [8, "h"], idempotency_key=key)
        with pytest.raises(IdempotencyKeyReused, match="for a transaction"):
            async with main.transaction() as tx:
                await tx.execute(sql(INSERT), [8, "h"], idempotency_key=key)
    assert await main.run_in_transaction(work, idempotency_key="work") is None
    async with main.transaction() as tx:
        assert await tx.claim("claimed") == 0
    assert await cases(main) == {1: "a", 7: "g"}


async def test_of_several_at_once_with_one_key_all_but_one_change_are_refused(main, sql, database):
    async with database.provider("elsewhere", location="norway") as elsewhere:
        results = await asyncio.gather(
            *(
                (main, elsewhere)[n % 2].execute(sql(INSERT), [n % 3, f"s{n % 3}"], idempotency_key="one")
                for n in range(12)
            ),
            return_exceptions=True,
        )
    (made,) = await cases(main)
    assert [n for n, r in enumerate(results) if r == 1] == [n for n in range(12) if n % 3 == made]
    assert all(r == 1 or isinstance(r, IdempotencyKeyReused) for r in results)


@pytest.mark.parametrize("how", ["alone", "in a transaction", "with work"])
async def test_the_table_of_an_earlier_version(main, sql, database, how):
    """It is given what it lacks, its keys count, and processes of that version go on."""
    await main.execute(sql(INSERT), [0, "there"], idempotency_key="makes the table")
    await main.execute("ALTER TABLE datavern_idempotency DROP COLUMN asked")
    earlier = sql('INSERT INTO datavern_idempotency ("key", at, changed) VALUES ($1, $2, $3)')
    await main.execute(earlier, ["old", timestamp(), 5])
    await main.execute(earlier, ["old work", timestamp(), -5])

    async def work(tx):
        return await tx.execute(sql(INSERT), [1, "a"])

    async with database.provider("later", location="norway") as later:
        if how == "with work":
            assert await later.run_in_transaction(work, idempotency_key="new") == 1
            with pytest.raises(IdempotencyKeyReused):
                await later.run_in_transaction(work, idempotency_key="old")
            assert await later.run_in_transaction(work, idempotency_key="old work") is None
        else:
            assert await keyed(later, how, sql(INSERT), [1, "a"], key="new") == 1
            with pytest.raises(IdempotencyKeyReused):
                await keyed(later, how, sql(INSERT), [2, "a"], key="new")
        assert await later.execute(sql(ANOTHER), [1], idempotency_key="old") == 5
        with pytest.raises(IdempotencyKeyReused, match="for a transaction"):
            await later.execute(sql(ANOTHER), [1], idempotency_key="old work")
        await main.execute(earlier, ["of both at once", timestamp(), 3])
        assert await later.execute(sql(ANOTHER), [1], idempotency_key="of both at once") == 3
    assert await cases(main) == {0: "there", 1: "a"}


async def test_the_table_of_an_earlier_version_is_given_what_it_lacks_once(main, sql, database):
    await main.execute(sql(INSERT), [0, "there"], idempotency_key="makes the table")
    await main.execute("ALTER TABLE datavern_idempotency DROP COLUMN asked")
    async with (
        database.provider("one", location="norway") as one,
        database.provider("other", location="norway") as other,
    ):
        calls = [(one, other)[n % 2].execute(sql(INSERT), [n, f"{n}"], idempotency_key=f"k{n}") for n in range(1, 9)]
        assert await asyncio.gather(*calls) == [1] * 8


async def test_keys_are_purged(main, sql, database):
    assert await main.purge_idempotency() == 0
    for n in range(5):
        await main.execute(sql(INSERT), [n, f"{n}"], idempotency_key=f"k{n}")
    assert await main.purge_idempotency() == 0
    assert await main.purge_idempotency(older_than=dt.timedelta(minutes=5)) == 0
    await main.execute("UPDATE datavern_idempotency SET at = '2026-01-01T00:00:00.000000Z' WHERE \"key\" < 'k3'")
    assert await main.execute(sql(INSERT), [0, "0"], idempotency_key="k0") == 1  # it counts until it is gone
    assert await main.purge_idempotency() == 3
    with pytest.raises(ConstraintViolated):
        await main.execute(sql(INSERT), [0, "0"], idempotency_key="k0")
    assert await main.purge_idempotency(older_than=dt.timedelta(0)) == 2
    for wrong in (dt.timedelta(seconds=-1), 7, "7d", None):
        with pytest.raises(ConfigurationError, match="timedelta"):
            await main.purge_idempotency(wrong)


async def test_old_keys_go_as_new_ones_come(main, sql, database):
    await main.execute(sql(INSERT), [0, "0"], idempotency_key="old")
    await main.execute("UPDATE datavern_idempotency SET at = '2026-01-01T00:00:00.000000Z'")
    await main.execute(sql(INSERT), [1, "1"], idempotency_key="young")
    async with database.provider("later", location="norway") as later:
        await later.execute(sql(INSERT), [2, "2"], idempotency_key="new")
    keys = {r[0] for r in await main.query('SELECT "key" FROM datavern_idempotency')}
    assert keys == {"young", "new"}


async def test_a_purge_of_many(main, sql):
    await main.execute(sql(INSERT), [0, "0"], idempotency_key="one")
    rows = [[f"k{n}", "2026-01-01T00:00:00.000000Z", 1] for n in range(2500)]
    await main.execute_many(sql('INSERT INTO datavern_idempotency ("key", at, changed) VALUES ($1, $2, $3)'), rows)
    assert await main.purge_idempotency() == 2500
    assert await main.query_value("SELECT count(*) FROM datavern_idempotency") == 1


# ---- cancellation ---------------------------------------------------------------------------------------------------


async def test_cancelled_at_random_both_or_neither(db, main, sql):
    random.seed(7)
    tasks = []
    for n in range(150):
        entry = await db.audit.entry("opened", details={"n": n})
        key = f"k{n}" if n % 3 == 0 else None
        tasks.append(asyncio.create_task(main.execute(sql(INSERT), [n, f"{n}"], audit=entry, idempotency_key=key)))
        if n % 10 == 8:
            await asyncio.sleep(random.random() * 0.01)
            for task in random.sample(tasks, 8):
                task.cancel()
    tasks[-1].cancel()  # this one at least has not ended
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert any(isinstance(r, asyncio.CancelledError) for r in results)
    async with main.transaction(isolation="snapshot", read_only=True) as tx:  # one that was cancelled may yet run
        there = await cases(tx)
        told = {int(e["details"][5:-1]) for e in await entries(tx, "opened")}
        keys = {r[0] for r in await tx.query('SELECT "key" FROM datavern_idempotency')}
    assert set(there) == told
    assert {n for n, r in enumerate(results) if r == 1} <= told
    assert keys == {f"k{n}" for n in told if n % 3 == 0}
    for n, result in enumerate(results):  # called again under their keys, all are made once
        if n % 3 == 0 and result != 1:
            assert await main.execute(sql(INSERT), [n, f"{n}"], idempotency_key=f"k{n}") == 1
    assert set(range(0, 150, 3)) <= set(await cases(main))
    await db.audit.seal()
    assert (await db.audit.verify()).ok


async def test_a_call_that_is_cancelled_in_a_transaction(db, main, sql):
    with pytest.raises(asyncio.CancelledError):
        async with main.transaction() as tx:
            task = asyncio.current_task()
            asyncio.get_running_loop().call_soon(task.cancel)
            await tx.execute(sql(INSERT), [1, "a"], audit=await db.audit.entry("never"), idempotency_key="k")
            await asyncio.sleep(1)
    assert await cases(main) == {}
    assert await entries(main) == []
    assert await main.execute(sql(INSERT), [1, "a"], idempotency_key="k") == 1


# ---- SQLite's own ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_changes_that_come_together_are_committed_together(db, main, sql):
    writer = main._lanes.writer
    made = [await db.audit.entry("opened") for _ in range(60)]
    before = writer.commits
    results = await asyncio.gather(
        *(main.execute(sql(INSERT), [n % 50, f"{n}"], audit=entry) for n, entry in enumerate(made)),
        return_exceptions=True,
    )
    assert results[:50] == [1] * 50
    assert all(isinstance(r, ConstraintViolated) for r in results[50:])
    assert writer.commits - before < 10
    assert len(await entries(main)) == 50


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
async def test_what_sqlite_runs_in_no_transaction_is_refused(db, main):
    for text in ("PRAGMA foreign_keys = 0", "VACUUM"):
        with pytest.raises(QueryRejected, match="no transaction"):
            await main.execute(text, audit=await db.audit.entry("never"))
    with pytest.raises(QueryRejected, match="transaction"):
        await main.execute("COMMIT", audit=await db.audit.entry("never"))
    with pytest.raises(QueryRejected):
        await main.execute("DELETE FROM cases; DELETE FROM cases", audit=await db.audit.entry("never"))
    assert await entries(main) == []


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize("memory", [False, True])
async def test_what_sqlite_has_of_its_own(managed, memory, database):
    from datavern import SQLiteProvider

    databases = {"main": SQLiteProvider(":memory:", location="norway")} if memory else None
    async with managed(databases=databases) as db:
        main = db["main"]
        made = db.audit.entry
        assert await main.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b)", audit=await made("created")) == 0
        assert await main.execute("INSERT INTO t VALUES (:a, :b)", {"a": 1, "b": "x"}, audit=await made("named")) == 1
        assert await main.execute("INSERT OR REPLACE INTO t VALUES (1, 'y')", audit=await made("replaced")) == 1
        assert await main.execute("REPLACE INTO t VALUES (1, 'z')", audit=await made("replaced")) == 1
        text = "WITH x (n) AS (VALUES (5), (6)) INSERT INTO t SELECT n, n FROM x RETURNING a"
        assert await main.execute(text, audit=await made("with"), idempotency_key="w") == 2
        assert await main.execute(text, audit=await made("with"), idempotency_key="w") == 2
        with pytest.raises(ConstraintViolated):
            await main.execute("INSERT OR ROLLBACK INTO t VALUES (1, 'q')", audit=await made("never"))
        with pytest.raises(ConstraintViolated):
            await main.execute("INSERT OR FAIL INTO t VALUES (9, 9), (1, 1)", audit=await made("never"))
        assert await main.execute("ALTER TABLE t ADD COLUMN c", audit=await made("altered")) == 0
        assert await main.query_value("SELECT count(*) FROM t") == 3
        told = [e["action"] for e in await entries(main)]
        assert told == ["created", "named", "replaced", "replaced", "with", "altered"]
