"""What goes wrong is said clearly, by the same error on every engine, and without a value."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from datavern.contracts.errors import ConstraintViolated, DriverError, ProviderError, QueryRejected
from datavern.testing.contract.base import Contract, asks
from datavern.testing.contract.session import count
from datavern.testing.contract.speech import Speech

__all__ = ["PLANTED", "ErrorsContract", "nothing_planted", "refused"]

PLANTED = "13097248022-PLANTED-blåbær"
"""A value that must be nowhere but in the database."""

WRONG = [
    ("SELEC 1", "SELEC"),
    ("SELECT id FROM people WHERE id = 1 AND AND name = 'x'", "AND name"),
    ("SELECT id FROM people WHERE WHERE id = 1", "WHERE id"),
    ("INSERT INTO people VALUES (1, 2,, 3)", ", 3"),
    ("SELECT 'blåbær' FROM FROM people", "FROM people"),
    ("SELECT nothing_here FROM people", "nothing_here"),
    ("SELECT * FROM no_such_table", "no_such_table"),
]
"""Statements, and what each stumbles over."""


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


async def refused(call: Awaitable[Any], kind: type[ProviderError] = QueryRejected) -> Any:
    """The error that a call is refused with; nothing planted in it."""
    with pytest.raises(kind) as caught:
        await call
    nothing_planted(caught.value)
    return caught.value


class ErrorsContract(Contract):
    """Errors of a session: which, and what they tell."""

    capability: ClassVar[str | None] = "session"

    @pytest_asyncio.fixture(loop_scope="function")
    async def people(self, provider: Any, sql: Speech) -> Any:
        """The provider, with one person whose e-mail address is planted."""
        check = ", CONSTRAINT grown_up CHECK (age >= 18)" if sql.has("check constraints") else ""
        columns = "id {integer} PRIMARY KEY, email {text} UNIQUE, name {text} NOT NULL, age {integer}"
        await provider.execute(sql(f"CREATE TABLE people ({columns}{check})"))
        await provider.execute(sql("INSERT INTO people VALUES ($1, $2, $3, $4)"), [1, PLANTED, "Åse", 40])
        return provider

    # ---- constraints ------------------------------------------------------------------------------------------------

    def says_all_but_the_value(self, people: Any, error: Any, sql: Speech, caplog: pytest.LogCaptureFixture) -> None:
        """What the error of a unique violation tells, and what no log does."""
        assert error.constraint
        assert error.code or not sql.has("codes")
        assert error.retry == "never"
        assert error.provider == people.name
        assert isinstance(error.__cause__, DriverError)
        assert error.__cause__.code == error.code
        assert PLANTED not in caplog.text

    @pytest.mark.parametrize("how", ["alone", "with others", "many"])
    async def test_a_unique_value_appears_nowhere(
        self, people: Any, sql: Speech, how: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        insert = sql("INSERT INTO people (id, email, name) VALUES ($1, $2, $3)")
        values = [2, PLANTED, "Kari"]
        if how == "alone":
            error = await refused(people.execute(insert, values), ConstraintViolated)
        elif how == "many":
            error = await refused(people.execute_many(insert, [[7, "x", "y"], values]), ConstraintViolated)
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
        self.says_all_but_the_value(people, error, sql, caplog)

    @asks("transactions")
    async def test_a_unique_value_in_a_transaction_appears_nowhere(
        self, people: Any, sql: Speech, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        with pytest.raises(ConstraintViolated) as caught:
            async with people.transaction() as tx:
                await tx.execute(sql("INSERT INTO people (id, email, name) VALUES ($1, $2, $3)"), [2, PLANTED, "Kari"])
        nothing_planted(caught.value)
        self.says_all_but_the_value(people, caught.value, sql, caplog)

    async def test_each_constraint_is_named(self, people: Any, sql: Speech) -> None:
        insert = sql("INSERT INTO people VALUES ($1, $2, $3, $4)")
        unique = await refused(people.execute(insert, [2, PLANTED, "x", 20]), ConstraintViolated)
        assert "email" in unique.constraint
        primary = await refused(people.execute(insert, [1, "other", "x", 20]), ConstraintViolated)
        assert primary.constraint
        missing = await refused(people.execute(insert, [2, PLANTED + "2", None, 20]), ConstraintViolated)
        assert "name" in missing.constraint

    @asks("check constraints")
    async def test_a_check_is_named(self, people: Any, sql: Speech) -> None:
        insert = sql("INSERT INTO people VALUES ($1, $2, $3, $4)")
        check = await refused(people.execute(insert, [2, PLANTED + "2", "x", 17]), ConstraintViolated)
        assert check.constraint == "grown_up"

    @asks("foreign keys")
    async def test_a_row_that_points_nowhere_is_refused(self, people: Any, sql: Speech) -> None:
        await people.execute(sql("CREATE TABLE cards (id {integer}, owner {integer} NOT NULL REFERENCES people (id))"))
        await refused(people.execute(sql("INSERT INTO cards VALUES ($1, $2)"), [1, 99]), ConstraintViolated)

    # ---- statements -------------------------------------------------------------------------------------------------

    async def test_a_wrong_statement_is_refused(self, people: Any, sql: Speech) -> None:
        for statement, _ in WRONG:
            await refused(people.query(sql(statement)))
        await refused(people.query(sql("SELECT id FROM people WHERE id = ")))

    @asks("positions")
    @pytest.mark.parametrize(("statement", "stumbles_over"), WRONG)
    async def test_a_wrong_statement_is_shown_where(
        self, people: Any, sql: Speech, statement: str, stumbles_over: str
    ) -> None:
        text = sql(statement)
        error = await refused(people.query(text))
        assert error.position is not None
        assert text[error.position - 1 :].startswith(stumbles_over)

    @asks("positions")
    async def test_an_unfinished_statement_is_shown_at_its_end(self, people: Any, sql: Speech) -> None:
        statement = sql("SELECT id FROM people WHERE id = ")
        error = await refused(people.query(statement))
        assert error.position in {len(statement), len(statement) + 1}

    async def test_a_literal_in_a_wrong_statement_is_not_repeated(self, people: Any, sql: Speech) -> None:
        for statement in (
            f"SELECT '{PLANTED}' '{PLANTED}' FROM people WHERE",
            f"SELECT '{PLANTED}",
            f"INSERT INTO people (id, email, name) VALUES (9, '{PLANTED}', 'x')",
            f"SELECT id FROM people WHERE WHERE name = '{PLANTED}'",
        ):
            await refused(people.query(sql(statement)))
        for statement in (  # where these mean something, it is said
            f"SELECT id FROM people WHERE name = 'x' '{PLANTED}'",
            f'SELECT "{PLANTED}" FROM people',
        ):
            try:
                await people.query(sql(statement))
            except QueryRejected as error:
                nothing_planted(error)

    # ---- values -----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("values", [[], [1], [1, PLANTED, "x", 20, 5]])
    async def test_too_few_and_too_many_parameters(self, people: Any, sql: Speech, values: list[Any]) -> None:
        error = await refused(people.execute(sql("INSERT INTO people VALUES ($1, $2, $3, $4)"), values))
        assert "4" in str(error)
        assert str(len(values)) in str(error)

    async def test_a_nul_in_text_is_refused(self, people: Any, sql: Speech) -> None:
        insert = sql("INSERT INTO people VALUES ($1, $2, $3, $4)")
        await refused(people.execute(insert, [2, PLANTED + "2\0", "x", 20]))  # cut off, it would be a new value
        await refused(people.execute_many(insert, [[2, "fine", "x", 20], [3, PLANTED + "3\0", "x", 20]]))
        await refused(people.query(sql(f"SELECT '{PLANTED}\0'")))
        assert await count(people, sql) == 1

    async def test_half_a_surrogate_pair_is_refused(self, people: Any, sql: Speech) -> None:
        insert = sql("INSERT INTO people VALUES ($1, $2, $3, $4)")
        await refused(people.execute(insert, [2, PLANTED + "\ud800", "x", 20]))

    @pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**30])
    async def test_an_integer_beyond_64_bits_is_refused(self, people: Any, sql: Speech, value: int) -> None:
        await refused(people.execute(sql("INSERT INTO people VALUES ($1, $2, $3, $4)"), [value, PLANTED, "x", 20]))

    async def test_a_type_that_the_engine_does_not_know_is_refused(self, people: Any, sql: Speech) -> None:
        class Unknown:
            def __repr__(self) -> str:
                return PLANTED

        insert = sql("INSERT INTO people VALUES ($1, $2, $3, $4)")
        await refused(people.execute(insert, [Unknown(), PLANTED, "x", 20]))
        await refused(people.execute(insert, [2, {PLANTED}, "x", 20]))

    async def test_what_is_no_statement_is_refused(self, people: Any, sql: Speech) -> None:
        for statement in (None, 7, b"SELECT 1"):
            await refused(people.query(statement))
        # Several statements in one text: refused, or all of them or none.
        await refused(people.execute(sql("DELETE FROM people; SELECT nothing_here FROM people"), []))
        assert await count(people, sql) == 1

    @pytest.mark.parametrize("statement", ["BEGIN", "COMMIT", "ROLLBACK", "  /* a */ -- b\n commit", "SAVEPOINT x"])
    async def test_transactions_are_not_begun_or_ended_from_below(
        self, people: Any, sql: Speech, statement: str
    ) -> None:
        await refused(people.execute(sql(statement)))
        if people.capabilities.transactions is not None:
            with pytest.raises(QueryRejected):
                async with people.transaction() as tx:
                    await tx.execute(sql("DELETE FROM people"))
                    await tx.execute(sql(statement))
        assert await count(people, sql) == 1

    async def test_after_every_error_all_is_well(self, people: Any, sql: Speech) -> None:
        for _ in range(30):
            for statement in ("SELEC", "SELECT * FROM no_such_table", "INSERT INTO people (id, name) VALUES (1, 'x')"):
                with pytest.raises(QueryRejected):
                    await people.query(sql(statement))
        assert await count(people, sql) == 1
        assert (await people.health()).status == "healthy"
