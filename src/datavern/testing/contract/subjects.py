"""Rows of a store, addressed by plain values of their columns, and a store made to fit."""

from __future__ import annotations

import asyncio
import random
from typing import Any, ClassVar, Final

import pytest
import pytest_asyncio

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, ConstraintViolated
from datavern.contracts.stores import Shape, ShapeColumn, Words
from datavern.testing.contract.base import Contract, asks
from datavern.testing.contract.errors import PLANTED, nothing_planted
from datavern.testing.contract.speech import Speech
from datavern.testing.databases import EmptyDatabase

__all__ = ["SHAPE", "SubjectsContract"]

SHAPE: Final = Shape(
    "users",
    (
        ShapeColumn("id", "text", nullable=False),
        ShapeColumn("name", "bytes"),
        ShapeColumn("email_lookup", "bytes", indexed=True),
        ShapeColumn("age", "integer"),
        ShapeColumn("datavern_row", "bytes", nullable=False, unique=True),
    ),
    ("id",),
)
ODD: Final = "'; DROP TABLE users; --\" blåbær ?"


def row(n: int, **other: Any) -> dict[str, Any]:
    """The n-th user."""
    return {
        "id": f"u{n}",
        "name": b"name%d" % n,
        "email_lookup": b"same" if n % 2 else b"other",
        "age": n,
        "datavern_row": b"%016d" % n,
        **other,
    }


async def ids(subjects: Any, where: dict[str, Any], **options: Any) -> list[str]:
    """Who matches."""
    return [r["id"] for r in await subjects.select("users", where, **options)]


class SubjectsContract(Contract):
    """What personal data needs of an engine."""

    capability: ClassVar[str | None] = "subjects"

    @pytest_asyncio.fixture(loop_scope="function")
    async def subjects(self, provider: Any) -> Any:
        """The capability, with an empty store of users."""
        found = needs(provider, "subjects")
        await found.prepare(SHAPE)
        return found

    @pytest_asyncio.fixture(loop_scope="function")
    async def filled(self, subjects: Any) -> Any:
        """The same, with ten users."""
        await subjects.insert("users", [row(n) for n in range(10)])
        return subjects

    # ---- the store --------------------------------------------------------------------------------------------------

    async def test_a_store_that_is_missing_is_made(self, provider: Any, sql: Speech) -> None:
        subjects = needs(provider, "subjects")
        assert await subjects.describe("users") is None
        ddl = await subjects.prepare(SHAPE)
        assert ddl
        assert ddl[0].startswith("CREATE TABLE") or not sql.has("ddl")
        store = await subjects.describe("users")
        assert store is not None
        assert store.name == "users"
        assert [c.name for c in store.columns] == ["id", "name", "email_lookup", "age", "datavern_row"]
        assert store.primary_key == ("id",)
        by_name = {c.name: c for c in store.columns}
        assert not by_name["id"].nullable
        assert not by_name["datavern_row"].nullable
        assert by_name["name"].nullable
        assert "email_lookup" in store.indexed
        assert frozenset({"datavern_row"}) in store.unique
        assert frozenset({"id"}) in store.unique
        assert await subjects.prepare(SHAPE) == []

    @asks("session")
    async def test_a_store_is_given_what_it_lacks_and_keeps_what_it_has(self, provider: Any, sql: Speech) -> None:
        await provider.execute(sql("CREATE TABLE users (id {text} PRIMARY KEY, age {integer}, own {text})"))
        await provider.execute(sql("INSERT INTO users VALUES ('old', 7, 'kept')"))
        subjects = needs(provider, "subjects")
        ddl = await subjects.prepare(SHAPE)
        assert ddl
        if sql.has("ddl"):
            assert len([d for d in ddl if d.startswith("ALTER TABLE")]) == 3
            assert len([d for d in ddl if "INDEX" in d]) == 2
        assert await subjects.prepare(SHAPE) == []
        await subjects.insert("users", [row(1)])
        assert await subjects.select("users", {"id": "old"}, columns=["age", "own", "name"]) == [
            {"age": 7, "own": "kept", "name": None}
        ]

    @asks("session")
    async def test_a_column_that_cannot_hold_it_is_refused_and_nothing_is_done(
        self, provider: Any, sql: Speech
    ) -> None:
        await provider.execute(sql("CREATE TABLE users (id {text} PRIMARY KEY, name {text})"))
        subjects = needs(provider, "subjects")
        with pytest.raises(ConfigurationError, match=r"users\.name"):
            await subjects.prepare(SHAPE)
        there = await subjects.describe("users")
        assert there is not None
        assert [c.name for c in there.columns] == ["id", "name"]

    async def test_two_that_prepare_at_once_do_not_meet(self, database: EmptyDatabase, sql: Speech) -> None:
        async with database.provider(location="norway") as one, database.provider(location="norway") as other:
            made = await asyncio.gather(*(needs(p, "subjects").prepare(SHAPE) for p in (one, other, one, other)))
            *nothing, all_of_it = sorted(map(len, made))
            assert nothing == [0, 0, 0]
            assert all_of_it == 3 if sql.has("ddl") else all_of_it > 0
            await needs(other, "subjects").insert("users", [row(1)])
            assert await ids(needs(one, "subjects"), {"age": 1}) == ["u1"]

    async def test_words_that_stand_in_a_text(self, provider: Any) -> None:
        subjects = needs(provider, "subjects")
        await subjects.prepare(Shape("texts", (ShapeColumn("id", "text"), ShapeColumn("words", "text")), ("id",)))
        texts = {"a": "01ab 02cd 03ef", "b": "02cd", "c": None, "d": ""}
        await subjects.insert("texts", [{"id": id_, "words": text} for id_, text in texts.items()])

        async def found(*words: str) -> list[str]:
            return [r["id"] for r in await subjects.select("texts", {"words": Words(words)}, order_by=["id"])]

        assert await found("02cd") == ["a", "b"]
        assert await found("02cd", "01ab") == ["a"]
        assert await found("01ab", "99ff") == []

    async def test_every_type_has_a_word(self, provider: Any) -> None:
        kinds: tuple[Any, ...] = ("text", "integer", "real", "boolean", "bytes", "date", "timestamp", "json")
        shape = Shape("every", tuple(ShapeColumn(f"a_{k}", k) for k in kinds), ("a_integer",))
        subjects = needs(provider, "subjects")
        assert await subjects.prepare(shape)
        assert await subjects.prepare(shape) == []

    async def test_names_are_only_names(self, provider: Any) -> None:
        subjects = needs(provider, "subjects")
        shape = Shape(ODD, (ShapeColumn(ODD, "text", indexed=True), ShapeColumn("order", "integer")), (ODD,))
        assert await subjects.prepare(shape)
        assert await subjects.prepare(shape) == []
        await subjects.insert(ODD, [{ODD: "x", "order": 1}, {ODD: ODD, "order": 2}])
        assert await subjects.select(ODD, {ODD: ODD}, columns=[ODD, "order"]) == [{ODD: ODD, "order": 2}]
        assert await subjects.select(ODD, {}, columns=[ODD], order_by=["order"]) == [{ODD: "x"}, {ODD: ODD}]
        assert await subjects.update(ODD, {ODD: "x"}, {"order": 9}) == 1
        assert await subjects.delete(ODD, {"order": (9, 2)}) == 2
        there = await subjects.describe(ODD)
        assert there is not None
        assert frozenset({ODD}) in there.unique

    @asks("session", "foreign keys")
    async def test_what_points_here_is_known(self, subjects: Any, provider: Any, sql: Speech) -> None:
        await provider.execute(sql("CREATE TABLE cards (id {integer}, owner {text} REFERENCES users (id))"))
        assert (await subjects.describe("users")).referenced_by == ("cards.owner",)

    # ---- rows -------------------------------------------------------------------------------------------------------

    async def test_rows_come_back_as_they_went_in(self, subjects: Any) -> None:
        await subjects.insert("users", [row(1, name=None)])
        assert await subjects.select("users", {"id": "u1"}) == [row(1, name=None)]

    async def test_conditions_hold_together(self, filled: Any) -> None:
        assert await ids(filled, {"id": "u3"}) == ["u3"]
        assert await ids(filled, {"email_lookup": b"same", "age": 4}) == []
        assert await ids(filled, {"email_lookup": b"same", "age": 5}) == ["u5"]
        assert await ids(filled, {"age": (1, 2, 5, 99)}, order_by=["age"]) == ["u1", "u2", "u5"]
        assert await ids(filled, {"age": ()}) == []
        assert await ids(filled, {"age": tuple(range(5, 1000))}, order_by=["age"]) == ["u5", "u6", "u7", "u8", "u9"]
        assert await ids(filled, {"name": None}) == []
        await filled.update("users", {"id": "u4"}, {"name": None})
        assert await ids(filled, {"name": None}) == ["u4"]
        assert len(await ids(filled, {})) == 10

    async def test_order_limit_and_columns(self, filled: Any) -> None:
        found = await filled.select(
            "users", {"email_lookup": b"same"}, columns=["age", "id"], order_by=["age"], limit=2
        )
        assert found == [{"age": 1, "id": "u1"}, {"age": 3, "id": "u3"}]
        assert [list(r) for r in found] == [["age", "id"]] * 2
        assert await filled.select("users", {}, limit=0) == []

    async def test_inserting_is_all_or_none(self, filled: Any) -> None:
        with pytest.raises(ConstraintViolated):
            await filled.insert("users", [row(20), row(21), row(3)])
        with pytest.raises(ValueError, match="same columns"):
            await filled.insert("users", [row(20), {"id": "u21", "datavern_row": b"x"}])
        await filled.insert("users", [])
        assert len(await filled.select("users", {})) == 10

    async def test_update_and_delete_tell_how_many(self, filled: Any) -> None:
        assert await filled.update("users", {"email_lookup": b"same"}, {"age": 0, "name": b"new"}) == 5
        assert await filled.update("users", {"id": "nobody"}, {"age": 0}) == 0
        assert await filled.update("users", {"id": "u1"}, {}) == 0
        assert await filled.update("users", {"id": ()}, {"age": 1}) == 0
        assert (await filled.select("users", {"id": "u1"}))[0]["name"] == b"new"
        assert await filled.delete("users", {"age": 0, "name": b"new"}) == 5
        assert await filled.delete("users", {"id": ()}) == 0
        assert len(await filled.select("users", {})) == 5

    async def test_a_changed_column_may_be_its_own_condition(self, filled: Any) -> None:
        assert await filled.update("users", {"age": 3}, {"age": 33}) == 1
        assert await ids(filled, {"age": 33}) == ["u3"]

    async def test_nobody_means_every_row(self, filled: Any) -> None:
        with pytest.raises(ValueError, match="nobody means"):
            await filled.update("users", {}, {"age": 1})
        with pytest.raises(ValueError, match="nobody means"):
            await filled.delete("users", {})
        assert len(await filled.select("users", {})) == 10

    @pytest.mark.parametrize("batch_size", [1, 3, 1000])
    async def test_a_stream_gives_dicts(self, filled: Any, batch_size: int) -> None:
        async with filled.stream("users", {"email_lookup": b"same"}, batch_size=batch_size) as rows:
            assert sorted([r["id"] async for r in rows]) == ["u1", "u3", "u5", "u7", "u9"]
        async with filled.stream("users", {"id": ()}) as rows:
            assert [r async for r in rows] == []

    async def test_a_value_that_is_taken_is_refused_and_not_repeated(self, filled: Any) -> None:
        await filled.insert("users", [row(30, id=PLANTED)])
        with pytest.raises(ConstraintViolated) as refused:
            await filled.insert("users", [row(31, id=PLANTED)])
        nothing_planted(refused.value)
        with pytest.raises(ConstraintViolated) as refused:
            await filled.update("users", {"id": "u1"}, {"id": PLANTED})
        nothing_planted(refused.value)
        assert len(await filled.select("users", {})) == 11

    async def test_cancelled_at_any_moment_a_row_is_there_whole_or_not(self, subjects: Any) -> None:
        moments = random.Random(7)  # noqa: S311  (the same moments each time)

        async def cancelled(n: int) -> bool:
            task = asyncio.create_task(subjects.insert("users", [row(n)]))
            for _ in range(moments.randrange(12)):
                await asyncio.sleep(0)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                return False
            return True

        done = await asyncio.gather(*(cancelled(n) for n in range(40)))
        await subjects.insert("users", [row(99)])
        there = {r["id"]: r for r in await subjects.select("users", {}, columns=list(row(1)))}
        assert {f"u{n}" for n, was in enumerate(done) if was} <= there.keys()
        assert all(found == row(int(id_[1:])) for id_, found in there.items())

    @asks("transactions")
    async def test_everything_takes_a_transaction(self, filled: Any, provider: Any) -> None:
        with pytest.raises(KeyError):
            async with provider.transaction() as tx:
                await filled.insert("users", [row(30), row(31)], transaction=tx)
                await filled.update("users", {"id": "u30"}, {"age": 77}, transaction=tx)
                await filled.delete("users", {"id": "u31"}, transaction=tx)
                found = await filled.select("users", {"id": ("u30", "u31")}, lock=True, transaction=tx)
                assert [r["age"] for r in found] == [77]
                async with filled.stream("users", {"age": 77}, transaction=tx) as rows:
                    assert [r["id"] async for r in rows] == ["u30"]
                assert (await filled.describe("users", transaction=tx)).primary_key == ("id",)
                raise KeyError
        assert len(await filled.select("users", {})) == 10
