"""The shared vocabulary: errors that say what to do, capabilities that are asked for, values that read the same."""

from __future__ import annotations

import asyncio
import datetime as dt
import inspect
import pickle
import traceback
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.sqlite.base import SQLiteDialect

from datavern.contracts import errors
from datavern.contracts.capabilities import Capabilities, needs
from datavern.contracts.statements import Statement
from datavern.contracts.stores import Column, Store
from datavern.contracts.values import actor, current_actor, timestamp

PLANTED = "13097248022"


def test_every_error_is_in_the_tree_and_says_whether_to_retry():
    kinds = [k for _, k in inspect.getmembers(errors, inspect.isclass) if issubclass(k, errors.DatavernError)]
    assert len(kinds) > 30
    assert {k.retry for k in kinds} <= {"safe", "transaction", "never"}
    assert errors.ConnectionFailed("x").retry == "safe"
    assert errors.SerializationConflict("x").retry == "transaction"
    assert errors.OutcomeUnknown("x").retry == "never"
    assert errors.ConnectionFailed("x", retry="never").retry == "never"


def test_errors_survive_a_process_border():
    made = [
        errors.ConstraintViolated("m", provider="main", code="23505", constraint="users_email_key", position=3),
        errors.LogTampered(7, "changed"),
        errors.CapabilityMissing("backups", "main", "none"),
        errors.MigrationFailed("m", step="2"),
        errors.DecryptionFailed(),
    ]
    for error in made:
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert again.__dict__ == error.__dict__


def test_a_scrubbed_cause_keeps_class_code_and_constraint_only():
    cause = errors.DriverError.of(ValueError(f"Key (number)=({PLANTED}) already exists"), "23505", "users_number_key")
    try:
        raise errors.ConstraintViolated("a value is there already") from cause
    except errors.ConstraintViolated as error:
        text = "".join(traceback.format_exception(error))
    assert PLANTED not in text
    assert "builtins.ValueError, code 23505, constraint users_number_key" in text


def test_needs_says_why_a_capability_is_missing():
    provider = SimpleNamespace(
        name="cache", engine="some", capabilities=Capabilities(reasons={"transactions": "keys are single"})
    )
    with pytest.raises(errors.CapabilityMissing, match="cache has no transactions: keys are single") as caught:
        needs(provider, "transactions")
    assert (caught.value.capability, caught.value.provider) == ("transactions", "cache")
    with pytest.raises(errors.CapabilityMissing, match="the engine some does not offer it"):
        needs(provider, "backups")


async def test_the_actor_holds_for_the_task_and_those_it_starts():
    async def inner() -> str | None:
        await asyncio.sleep(0)
        return current_actor()

    assert current_actor() is None
    with actor("case-worker-7"):
        assert await asyncio.create_task(inner()) == "case-worker-7"
        with actor("other"):
            assert current_actor() == "other"
        assert current_actor() == "case-worker-7"
    assert current_actor() is None


def test_time_is_text_that_sorts():
    moment = dt.datetime(2026, 11, 23, 3, 4, 5, 6, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    assert timestamp(moment) == "2026-11-23T02:04:05.000006Z"
    assert timestamp(moment) < timestamp(moment + dt.timedelta(microseconds=1)) < timestamp()


def test_a_store_knows_its_primary_key_in_order():
    store = Store("t", (Column("b", "text", primary_key=2), Column("a", "text", primary_key=1), Column("c", "text")))
    assert store.primary_key == ("a", "b")
    assert store.column("c") == Column("c", "text")
    assert store.column("d") is None


def test_a_statement_is_built_once_and_compiled_once_per_dialect():
    built = []
    table = sa.Table("t", sa.MetaData(), sa.Column("id", sa.Text), sa.Column("n", sa.BigInteger))

    def build() -> sa.Executable:
        built.append(1)
        return sa.select(table.c.id).where(
            table.c.id == sa.bindparam("id"), table.c.n > 5, table.c.n == sa.bindparam("n")
        )

    statement = Statement(build)
    postgresql, sqlite = PGDialect(paramstyle="numeric_dollar"), SQLiteDialect(paramstyle="qmark")
    for _ in range(2):
        sql, parameters = statement.bind(postgresql, id="x", n=1)
        assert "t.id = $1 AND t.n > $2 AND t.n = $3" in sql
        assert parameters == ["x", 5, 1]
        assert statement.bind(sqlite, id="x", n=1)[1] == ["x", 5, 1]
    assert len(built) == 2
    assert statement.bind_many(sqlite, [{"id": "a", "n": 1}, {"id": "b", "n": 2}])[1] == [["a", 5, 1], ["b", 5, 2]]
    with pytest.raises(KeyError):
        statement.bind(sqlite, id="x")
