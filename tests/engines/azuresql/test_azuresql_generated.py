"""All the T-SQL that is made here, read by a parser of T-SQL; and what SQLAlchemy's dialect says otherwise."""

from __future__ import annotations

import datetime as dt
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import sqlglot
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlglot import exp

from datavern.audit.tables import log_of
from datavern.contracts.errors import ConfigurationError
from datavern.contracts.statements import Among, Statement
from datavern.contracts.stores import Column, Shape, ShapeColumn, Store
from datavern.crypto.tables import LifeStatements, StoreStatements, key_life, key_store
from datavern.engines.ages import RelationalAges
from datavern.engines.azuresql import fused, health, samples
from datavern.engines.azuresql import ledger as ledgers
from datavern.engines.azuresql import subjects as describing
from datavern.engines.azuresql.dialect import dialect
from datavern.engines.azuresql.procedures import Call, Output, quoted_name
from datavern.engines.azuresql.provider import AzureSQLProvider
from datavern.engines.azuresql.statements import Effect, effect, places
from datavern.engines.azuresql.subjects import AzureSQLSubjects, _column
from datavern.engines.idempotency import keys
from datavern.engines.people import RelationalPeople
from datavern.engines.relational import conditions
from datavern.privacy.consent import tables as consent_tables
from datavern.privacy.holds import tables as hold_tables
from datavern.privacy.journal import tables as privacy
from datavern.testing import azuresql_named, create_test_database

ODD = "'; DROP TABLE users; --] blåbær \"?"


@pytest.fixture
def provider() -> AzureSQLProvider:
    return AzureSQLProvider(database="app", username="app", password="x")


@pytest.fixture
def subjects(provider: AzureSQLProvider) -> AzureSQLSubjects:
    return provider._subjects


def parsed(sql: str) -> list[Any]:
    """The statements of a text, none of which the parser gives up on."""
    found = sqlglot.parse(sql, dialect="tsql", error_level=sqlglot.ErrorLevel.RAISE)
    assert found
    assert not [one for one in found if isinstance(one, exp.Command) and not sql.lstrip().upper().startswith("DECLARE")]
    return found


def own_tables(provider: AzureSQLProvider) -> list[sa.MetaData]:
    log = log_of(provider._ledger)
    return [
        log.metadata,
        key_store,
        key_life,
        privacy.ledger_tables(),
        consent_tables.consent_tables(),
        privacy.step_tables(),
        hold_tables.site_tables(),
        hold_tables.ledger_tables(),
        keys().metadata,
    ]


def own_statements(provider: AzureSQLProvider) -> Iterator[tuple[str, str]]:
    log = log_of(provider._ledger)
    holders = [log, StoreStatements(), LifeStatements(), keys(), privacy, consent_tables, hold_tables]
    for holder in holders:
        for name, value in vars(holder).items():
            if isinstance(value, Statement):
                yield name, value.compiled(dialect()).sql
            elif isinstance(value, Among):
                for size, statement in value._by_size.items():
                    yield f"{name} of {size}", statement.compiled(dialect()).sql
    yield "insert", log.insert().compiled(dialect()).sql
    yield "insert_for_each", log.insert(source="source").compiled(dialect()).sql


# ---- own tables ------------------------------------------------------------------------------------------------------


def test_every_own_table_is_t_sql_with_keys_that_an_index_can_hold(provider):
    for metadata in own_tables(provider):
        for table in metadata.sorted_tables:
            ddl = str(CreateTable(table).compile(dialect=dialect()))
            [create] = parsed(ddl)
            assert isinstance(create, exp.Create)
            types = {c.name: c.args["kind"].sql("tsql").lower() for c in create.find_all(exp.ColumnDef)}
            keyed = [*table.primary_key.columns, *(c for index in table.indexes for c in index.columns)]
            keyed += [c for c in table.columns if c.unique]
            assert not [c.name for c in keyed if "max" in types[c.name]]
            assert "text" not in types.values()
            for line in ddl.splitlines():
                assert ("nvarchar" in line) == ("COLLATE Latin1_General_100_BIN2" in line)
            for index in table.indexes:
                assert isinstance(parsed(str(CreateIndex(index).compile(dialect=dialect())))[0], exp.Create)


def test_every_own_statement_is_t_sql(provider):
    texts = dict(own_statements(provider))
    assert len(texts) > 40
    for name, sql in texts.items():
        parsed(sql)
        found = places(sql)
        assert found is not None
        assert not found.missing, name
        assert effect(sql) in {Effect.READS, Effect.WRITES}, name
        assert "LIMIT" not in sql
        assert "FOR UPDATE" not in sql


def test_the_stamp_is_the_row_version(provider):
    log = log_of(provider._ledger)
    ddl = str(CreateTable(log.entries).compile(dialect=dialect()))
    assert "stamp rowversion NOT NULL," in ddl
    page = log.settled_page.compiled(dialect()).sql
    assert "CAST(datavern_audit.stamp AS BIGINT) AS stamp" in page
    assert "stamp < MIN_ACTIVE_ROWVERSION()" in page
    assert "stamp" not in log.insert().compiled(dialect()).sql.partition("VALUES")[0]


# ---- the dialect -----------------------------------------------------------------------------------------------------

people = sa.table("people", sa.column("a"), sa.column("b"), sa.column("c"))


def compiled(statement: Any) -> Any:
    return statement.compile(dialect=dialect())


def test_parameters_are_numbered_and_named_once():
    found = compiled(sa.select(people.c.a).where(people.c.a == sa.bindparam("x"), people.c.b == sa.bindparam("y")))
    assert str(found).endswith("WHERE people.a = @P1 AND people.b = @P2")
    assert found.positiontup == ["x", "y"]


@pytest.mark.parametrize(
    ("operator", "sign", "strict"),
    [("__gt__", ">", ">"), ("__ge__", ">=", ">"), ("__lt__", "<", "<"), ("__le__", "<=", "<")],
)
def test_rows_are_compared_column_by_column(operator, sign, strict):
    left = sa.tuple_(people.c.a, people.c.b, people.c.c)
    right = sa.tuple_(*(sa.bindparam(n, type_=sa.BigInteger()) for n in "xyz"))
    found = str(compiled(sa.select(people.c.a).where(getattr(left, operator)(right))))
    assert found.partition("WHERE ")[2] == (
        f"(people.a {strict} @P1 OR people.a = @P1 AND "
        f"(people.b {strict} @P2 OR people.b = @P2 AND people.c {sign} @P3))"
    )


def test_locks_are_hints():
    select = sa.select(people.c.a)
    assert "FROM people WITH (UPDLOCK, ROWLOCK)" in str(compiled(select.with_for_update()))
    assert "FROM people WITH (REPEATABLEREAD, ROWLOCK)" in str(compiled(select.with_for_update(read=True)))
    skipping = str(compiled(select.with_for_update(skip_locked=True)))
    assert "WITH (UPDLOCK, ROWLOCK, READPAST)" in skipping
    assert "WITH" not in str(compiled(select))
    twice = select.with_for_update()
    assert str(compiled(twice)) == str(compiled(twice))  # the statement itself was left as it was


def test_a_limit_is_a_parameter_of_top():
    found = compiled(sa.select(people.c.a).limit(sa.bindparam("most")).where(people.c.b == sa.bindparam("x")))
    assert str(found).startswith("SELECT TOP (@P1) people.a")
    assert found.positiontup == ["most", "x"]


# ---- rows of tables --------------------------------------------------------------------------------------------------


def test_every_statement_on_rows_is_t_sql(subjects):
    store = f"dbo.{ODD.replace('.', '')}"
    form = ((ODD, 0, True), ("n", None, False), ("m", 16, False), ("t", 2, True), ("w", -2, True))
    texts = [
        subjects._insert_text(store, (ODD, "b"))[0],
        subjects._select_text(("select", store, None, form, (), True, False))[0],
        subjects._select_text(("select", store, (ODD, "b"), form, (ODD, "b"), False, True))[0],
        subjects._update_text("u", store, (ODD, "b"), form)[0],
        subjects._delete_text("d", store, form)[0],
    ]
    for sql in texts:
        [statement] = parsed(sql)
        [table] = {t.name for t in statement.find_all(exp.Table)}
        assert table == ODD
        assert subjects.owns(sql)
        assert effect(sql) in {Effect.READS, Effect.WRITES}
    assert "WITH (UPDLOCK, ROWLOCK)" in texts[2]
    assert "TOP (@P1)" in texts[2]


def test_a_text_is_compared_with_the_spaces_at_its_end(subjects):
    sql = subjects._select_text(("select", "users", ("id",), (("id", 0, True),), (), True, False))[0]
    assert "[users].[id] = @P1 AND upper(concat([users].[id], N'.')) = upper(concat(@P1, N'.'))" in sql
    sql = subjects._select_text(("select", "users", ("id",), (("id", 0, False),), (), True, False))[0]
    assert sql.endswith("WHERE [users].[id] = @P1")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("lock", [True, False])
def test_rows_past_a_day_are_asked_for_in_t_sql(provider, subjects, first, lock):
    ages = RelationalAges(provider, subjects)
    form = ((ODD, 0, True), ("m", 3, False))
    for wanted in (None, ("id", ODD)):
        sql, _ = ages._past(("past", "dbo.users", "made", form, ("id", "b"), first, wanted, lock, first))
        parsed(sql)
        assert effect(sql) is Effect.READS
        assert ("WITH (UPDLOCK, ROWLOCK, READPAST)" in sql) == lock
        assert "TOP (@P" in sql
        found = places(sql)
        assert found is not None
        assert not found.missing
    sql, _ = ages._count(("count past", "dbo.users", "made", form, first))
    parsed(sql)


async def test_people_are_counted_in_t_sql(provider, subjects):
    found = await RelationalPeople(provider, subjects)._statement("dbo.users", "id", {ODD: ("a", "b"), "n": 1}, None)
    assert found is not None
    sql, values = found
    parsed(sql)
    assert effect(sql) is Effect.READS
    assert len(values) == places(sql).highest


SHAPE = Shape(
    f"dbo.{ODD}".replace("..", "."),
    (
        ShapeColumn("id", "text", nullable=False),
        ShapeColumn(ODD, "text", indexed=True),
        ShapeColumn("name", "bytes"),
        ShapeColumn("lookup", "bytes", indexed=True),
        ShapeColumn("datavern_row", "bytes", nullable=False, unique=True),
        *(ShapeColumn(f"a_{k}", k) for k in ("text", "integer", "real", "boolean", "date", "timestamp", "json")),
    ),
    ("id",),
)


def test_a_store_is_made_and_completed_in_t_sql(subjects):
    made = subjects._create(SHAPE)
    [create] = parsed(made[0])
    assert isinstance(create, exp.Create)
    types = {c.name: c.args["kind"].sql("tsql").lower() for c in create.find_all(exp.ColumnDef)}
    assert types["id"] == types[ODD] == "nvarchar(450)"
    assert types["a_text"] == "nvarchar(max)"
    assert types["lookup"] == types["datavern_row"] == "varbinary(255)"
    assert types["name"] == "varbinary(max)"
    indexes = [parsed(sql)[0] for sql in made[1:]]
    assert len(indexes) == 3
    unique = next(sql for sql in made[1:] if sql.startswith("CREATE UNIQUE"))
    assert unique.endswith("([datavern_row]) WHERE [datavern_row] IS NOT NULL")
    there = Store(SHAPE.store, (Column("id", "nvarchar(450)", primary_key=1),))
    added = subjects._complete(SHAPE, there)
    assert len([sql for sql in added if sql.startswith("ALTER TABLE")]) == len(SHAPE.columns) - 1
    for sql in added:
        parsed(sql)
    assert " ADD [name] varbinary(max)" in added[1]
    assert effect(made[0]) is Effect.TOUCHES


def test_a_column_that_cannot_hold_it_is_refused(subjects):
    there = Store("t", (Column("id", "nvarchar(450)", primary_key=1), Column("name", "nvarchar(max)")))
    with pytest.raises(ConfigurationError, match=r"t\.name is nvarchar\(max\), and must hold bytes"):
        subjects._complete(Shape("t", (ShapeColumn("name", "bytes"),), ("id",)), there)


@pytest.mark.parametrize(
    ("kind", "length", "collation", "is_"),
    [
        ("nvarchar", 900, "Latin1_General_100_BIN2", ("nvarchar(450)", True, None)),
        ("nvarchar", -1, "Danish_Norwegian_CS_AS", ("nvarchar(max)", True, None)),
        ("nvarchar", 100, "SQL_Latin1_General_CP1_CI_AS", ("nvarchar(50)", False, None)),
        ("nvarchar", 100, "Latin1_General_CS_AI", ("nvarchar(50)", False, None)),
        ("varchar", 50, "Latin1_General_BIN", ("varchar(50)", True, None)),
        ("nchar", 22, "Latin1_General_100_BIN2", ("nchar(11)", False, None)),
        ("int", 4, None, ("int", True, 32)),
        ("bigint", 8, None, ("bigint", True, None)),
        ("uniqueidentifier", 16, None, ("uniqueidentifier", True, None)),
        ("decimal", 9, None, ("decimal", False, None)),
    ],
)
def test_what_a_column_is_and_whether_it_keeps_an_id_as_it_is(kind, length, collation, is_):
    row = {
        "name": "c", "type": kind, "length": length, "collation": collation, "nullable": 1, "counted": 0, "computed": 0,
        "default_id": 0, "place": 0,
    }  # fmt: skip
    found = _column(row)
    assert (found.type, found.exact, found.bits) == is_


def test_a_list_that_t_sql_cannot_take_is_refused(subjects):

    with pytest.raises(ValueError, match="the most is 1024"):
        conditions({"a": tuple(range(1025))}, subjects.most_values)


# ---- what is written by hand -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sql",
    [
        describing._TABLE,
        describing._COLUMNS,
        describing._INDEXES,
        describing._REFERENCES,
        ledgers._NAMES,
        ledgers._IDENTITY,
        health.ASK,
        samples._STORES,
        samples._TABLE,
        samples._COLUMNS,
        fused._IS_THERE,
    ],
)
def test_what_asks_the_catalogue_is_t_sql_and_only_reads(sql):
    parsed(sql)
    assert effect(sql) is Effect.READS


def test_a_sample_is_drawn_in_t_sql(subjects):
    columns = [{"name": ODD, "type": "nvarchar"}, {"name": "n", "type": "int"}]
    for there in (None, 10, 1_000_000):
        sql = samples.sample_statement(subjects, "dbo.people", columns, 100, there)
        parsed(sql)
        assert effect(sql) is Effect.READS
        assert ("TABLESAMPLE" in sql) == (there == 1_000_000)


def test_a_day_begins_as_its_column_has_it(provider):
    ages, day = provider.capabilities.ages, dt.date(2026, 1, 1)
    assert ages.day("date", day) == day
    assert ages.day("datetime2(7)", day) == dt.datetime(2026, 1, 1)  # noqa: DTZ001  (the column knows no zone)
    assert ages.day("datetimeoffset(6)", day) == dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert ages.day("nvarchar(450)", day) == "2026-01-01"
    assert ages.day("bigint", day) is None


def test_locks_of_applications_may_leave_something_behind():
    for sql in (describing.EXCLUDE, ledgers.LOCK):
        assert effect(sql) is Effect.TOUCHES


# ---- procedures ------------------------------------------------------------------------------------------------------


def test_a_call_by_position():
    call = Call("main", "usp_GetCases", [42, None, Output("int"), Output("nvarchar(50)", "in")])
    assert call.sql == (
        "DECLARE @datavern_value int, @datavern_0 int, @datavern_1 nvarchar(50) = @P3; "
        "EXEC @datavern_value = [usp_GetCases] @P1, @P2, @datavern_0 OUTPUT, @datavern_1 OUTPUT; "
        "SELECT @datavern_value AS datavern_value, @datavern_0 AS datavern_0, @datavern_1 AS datavern_1"
    )
    assert call.values == [42, None, "in"]
    assert effect(call.sql) is Effect.TOUCHES


def test_a_call_by_name():
    call = Call("main", "dbo.usp_GetCases", {"case_id": 42, "@total": Output("decimal(10, 2)")})
    assert "EXEC @datavern_value = [dbo].[usp_GetCases] @case_id = @P1, @total = @datavern_0 OUTPUT;" in call.sql
    assert Call("main", "p", []).sql.startswith("DECLARE @datavern_value int; EXEC @datavern_value = [p]; SELECT")


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("usp_GetCases", "[usp_GetCases]"),
        (" dbo . p ", "[dbo].[p]"),
        ("[a.b].[c]]d]", "[a.b].[c]]d]"),
        ('"a"."b""c"', '[a].[b"c]'),
        ("db.dbo.p", "[db].[dbo].[p]"),
        ("p; DROP TABLE x", "[p; DROP TABLE x]"),
        ("blå", "[blå]"),
    ],
)
def test_a_procedures_name_is_only_a_name(name, quoted):
    assert quoted_name(name, "main") == quoted


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b", "a.b.c.d", "[a", "a]b[", "[a]b", None, 5, "a\0b"])
def test_what_names_no_procedure(name):
    with pytest.raises(ConfigurationError, match="expected the name of a procedure"):
        quoted_name(name, "main")


@pytest.mark.parametrize("kind", ["int; DROP TABLE x", "", "int)", "nvarchar(50", 5, "a b", "int --"])
def test_what_is_no_type(kind):
    with pytest.raises(ConfigurationError, match="expected a type of T-SQL"):
        Output(kind)


def test_what_are_no_parameters_of_a_procedure():
    with pytest.raises(ConfigurationError, match="a list, a tuple or a dict, not str"):
        Call("main", "p", "abc")
    for key in ("a b", "", 5, "@", "a = 1; --"):
        with pytest.raises(ConfigurationError, match="is named by letters"):
            Call("main", "p", {key: 1})


# ---- tests on a real server ------------------------------------------------------------------------------------------


async def test_a_database_for_tests_is_named_and_says_so(monkeypatch):
    monkeypatch.delenv("DATAVERN_TEST_AZURESQL", raising=False)
    with pytest.raises(ConfigurationError, match="DATAVERN_TEST_AZURESQL names no server"):
        async with create_test_database("azuresql"):
            pass
    monkeypatch.setenv("DATAVERN_TEST_AZURESQL", "mssql://app:x@db.example/production")
    with pytest.raises(ConfigurationError, match="its name must hold 'test'"):
        async with create_test_database("azuresql"):
            pass


@pytest.fixture
def somewhere(monkeypatch):
    """Two databases of a server that nobody asks, since this process uses them already."""
    urls = ["mssql://app:x@db.example/one_test", "mssql://app:x@db.example/two_test"]
    monkeypatch.setenv("DATAVERN_TEST_AZURESQL", " ".join(urls))
    monkeypatch.setattr(azuresql_named, "_taken", set(urls))
    return urls


async def test_a_test_that_needs_more_databases_than_are_named_does_not_wait_for_itself(somewhere):
    with pytest.raises(ConfigurationError, match="2 at once is not enough: name another"):
        async with create_test_database("azuresql"):
            pass


def test_what_the_contract_says_in_t_sql_is_t_sql():
    from datavern.testing.azuresql_named import _DROP, _EMPTY, _LOCK, _MAKE

    spec = importlib.util.spec_from_file_location(
        "speech_of_ours", Path(__file__).parents[2] / "contract" / "speech.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    speech = module.SPEECHES["azuresql"]
    for sentence in speech.sentences.values():
        parsed(sentence)
    assert speech("INSERT INTO people VALUES ($1, $2)") == "INSERT INTO people VALUES (@P1, @P2)"
    parsed(speech("CREATE TABLE people (id {integer} PRIMARY KEY, name {text} UNIQUE, data {bytes}, size {real})"))
    for script in (_EMPTY, _LOCK, _MAKE, _DROP):
        assert effect(script) is Effect.TOUCHES
