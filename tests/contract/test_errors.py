"""What goes wrong is said clearly, by the same error on every engine, and without a value."""

from __future__ import annotations

import asyncio
import traceback

import pytest

from datavern.contracts.errors import ConstraintViolated, DriverError, ProviderError, QueryRejected

PLANTED = "13097248022-PLANTED-blåbær"


@pytest.fixture
async def people(provider, sql):
    await provider.execute(
        sql(
            "CREATE TABLE people (id {integer} PRIMARY KEY, email {text} UNIQUE, name {text} NOT NULL, "
            "age {integer}, CONSTRAINT grown_up CHECK (age >= 18))"
        )
    )
    await provider.execute(sql("CREATE TABLE cards (id {integer}, owner {integer} NOT NULL REFERENCES people (id))"))
    await provider.execute(sql("INSERT INTO people VALUES ($1, $2, $3, $4)"), [1, PLANTED, "Åse", 40])
    return provider


def nothing_planted(error: BaseException) -> None:
    """The planted value is nowhere: not in a message, a cause, a context, an attribute or a traceback."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        told = [str(one), repr(one), repr(one.args), repr(vars(one)), *getattr(one, "__notes__", [])]
        assert not [text for text in told if PLANTED in text]
        assert isinstance(one, ProviderError | DriverError)
        waiting += [one.__cause__, one.__context__]
    assert PLANTED not in "".join(traceback.format_exception(error))


async def refused(call, kind=QueryRejected):
    """The error that a call is refused with; nothing planted in it."""
    with pytest.raises(kind) as caught:
        await call
    nothing_planted(caught.value)
    return caught.value


@pytest.mark.parametrize("how", ["alone", "with others", "in a transaction", "many"])
async def test_a_unique_value_appears_nowhere(people, sql, how, caplog):
    insert = sql("INSERT INTO people (id, email, name) VALUES ($1, $2, $3)")
    values = [2, PLANTED, "Kari"]
    if how == "alone":
        error = await refused(people.execute(insert, values), ConstraintViolated)
    elif how == "many":
        error = await refused(people.execute_many(insert, [[7, "x", "y"], values]), ConstraintViolated)
    elif how == "in a transaction":
        with pytest.raises(ConstraintViolated) as caught:
            async with people.transaction() as tx:
                await tx.execute(insert, values)
        error = caught.value
        nothing_planted(error)
    else:
        results = await asyncio.gather(
            *(people.execute(insert, [n, PLANTED if n % 3 == 0 else f"{n}@", "x"]) for n in range(10, 40)),
            return_exceptions=True,
        )
        errors = [r for r in results if isinstance(r, ConstraintViolated)]
        assert len(errors) == 10
        for one in errors:
            nothing_planted(one)
        error = errors[0]
    assert error.constraint
    assert error.code
    assert error.retry == "never"
    assert error.provider == people.name
    assert isinstance(error.__cause__, DriverError)
    assert error.__cause__.code == error.code
    assert PLANTED not in caplog.text


async def test_each_constraint_is_named(people, sql):
    insert = sql("INSERT INTO people VALUES ($1, $2, $3, $4)")
    unique = await refused(people.execute(insert, [2, PLANTED, "x", 20]), ConstraintViolated)
    assert "email" in unique.constraint
    primary = await refused(people.execute(insert, [1, "other", "x", 20]), ConstraintViolated)
    assert primary.constraint
    missing = await refused(people.execute(insert, [2, PLANTED + "2", None, 20]), ConstraintViolated)
    assert "name" in missing.constraint
    check = await refused(people.execute(insert, [2, PLANTED + "2", "x", 17]), ConstraintViolated)
    assert check.constraint == "grown_up"
    await refused(people.execute(sql("INSERT INTO cards VALUES ($1, $2)"), [1, 99]), ConstraintViolated)


@pytest.mark.parametrize(
    ("statement", "stumbles_over"),
    [
        ("SELEC 1", "SELEC"),
        ("SELECT id FROM people WHERE id = 1 AND AND name = 'x'", "AND name"),
        ("SELECT id FROM people WHERE WHERE id = 1", "WHERE id"),
        ("INSERT INTO people VALUES (1, 2,, 3)", ", 3"),
        ("SELECT 'blåbær' FROM FROM people", "FROM people"),
        ("SELECT nothing_here FROM people", "nothing_here"),
        ("SELECT * FROM no_such_table", "no_such_table"),
    ],
)
async def test_a_wrong_statement_is_shown_where(people, statement, stumbles_over):
    error = await refused(people.query(statement))
    assert error.position is not None
    assert statement[error.position - 1 :].startswith(stumbles_over)


async def test_an_unfinished_statement_is_shown_at_its_end(people):
    statement = "SELECT id FROM people WHERE id = "
    error = await refused(people.query(statement))
    assert error.position in {len(statement), len(statement) + 1}


async def test_a_literal_in_a_wrong_statement_is_not_repeated(people):
    for statement in (
        f"SELECT '{PLANTED}' '{PLANTED}' FROM people WHERE",
        f"SELECT id FROM people WHERE name = 'x' '{PLANTED}'",
        f"SELECT '{PLANTED}",
        f'SELECT "{PLANTED}" FROM people',
        f"INSERT INTO people (id, email, name) VALUES (9, '{PLANTED}', 'x')",
    ):
        try:
            await people.query(statement)
        except QueryRejected as error:
            nothing_planted(error)


@pytest.mark.parametrize("values", [[], [1], [1, PLANTED, "x", 20, 5]])
async def test_too_few_and_too_many_parameters(people, sql, values):
    error = await refused(people.execute(sql("INSERT INTO people VALUES ($1, $2, $3, $4)"), values))
    assert "4" in str(error)
    assert str(len(values)) in str(error)


async def test_a_nul_in_text_is_refused(people, sql):
    insert = sql("INSERT INTO people VALUES ($1, $2, $3, $4)")
    await refused(people.execute(insert, [2, PLANTED + "\0", "x", 20]))
    await refused(people.execute_many(insert, [[2, "fine", "x", 20], [3, PLANTED + "\0", "x", 20]]))
    await refused(people.query(f"SELECT '{PLANTED}\0'"))
    assert await people.query_value("SELECT count(*) FROM people") == 1


async def test_half_a_surrogate_pair_is_refused(people, sql):
    insert = sql("INSERT INTO people VALUES ($1, $2, $3, $4)")
    await refused(people.execute(insert, [2, PLANTED + "\ud800", "x", 20]))


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**30])
async def test_an_integer_beyond_64_bits_is_refused(people, sql, value):
    await refused(people.execute(sql("INSERT INTO people VALUES ($1, $2, $3, $4)"), [value, PLANTED, "x", 20]))


async def test_a_type_that_the_engine_does_not_know_is_refused(people, sql):
    class Unknown:
        def __repr__(self) -> str:
            return PLANTED

    insert = sql("INSERT INTO people VALUES ($1, $2, $3, $4)")
    await refused(people.execute(insert, [Unknown(), PLANTED, "x", 20]))
    await refused(people.execute(insert, [2, {PLANTED}, "x", 20]))


async def test_what_is_no_statement_is_refused(people):
    for statement in (None, 7, b"SELECT 1"):
        await refused(people.query(statement))
    # Several statements in one text: refused, or all of them or none.
    await refused(people.execute("DELETE FROM people; SELECT nothing_here FROM people", []))
    assert await people.query_value("SELECT count(*) FROM people") == 1


@pytest.mark.parametrize("statement", ["BEGIN", "COMMIT", "ROLLBACK", "  /* a */ -- b\n commit", "SAVEPOINT x"])
async def test_transactions_are_not_ended_from_below(people, statement):
    with pytest.raises(QueryRejected):
        await people.execute(statement)
    with pytest.raises(QueryRejected):
        async with people.transaction() as tx:
            await tx.execute("DELETE FROM people")
            await tx.execute(statement)
    assert await people.query_value("SELECT count(*) FROM people") == 1


async def test_after_every_error_all_is_well(people, sql):
    for _ in range(30):
        for statement in ("SELEC", "SELECT * FROM no_such_table", "INSERT INTO people (id, name) VALUES (1, 'x')"):
            with pytest.raises(QueryRejected):
                await people.query(statement)
    assert await people.query_value("SELECT count(*) FROM people") == 1
    assert (await people.health()).status == "healthy"
