"""Gathering reads by key: who goes when, who gets what, and what becomes of those who leave. The rows are in a dict."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datavern.config import Pool
from datavern.connectors.coalescing import Blame, CoalescedRead, check_read
from datavern.contracts.errors import (
    ConfigurationError,
    ConnectionFailed,
    DriverError,
    PoolTimeout,
    QueryRejected,
)

WHO = contextvars.ContextVar("who", default="nobody")


class Shelf:
    """Rows in a dict. Negative keys are refused, wherever they are; statements wait where `hold` says."""

    def __init__(self) -> None:
        self.rows: dict[Any, Any] = {key: f"row {key}" for key in range(1000)}
        self.sent: list[list[Any]] = []
        self.who: list[str] = []
        self.cancelled = 0
        self.running = self.most_at_once = 0
        self.free = asyncio.Event()
        self.free.set()
        self.failure: Exception | None = None
        self.merges = True

    def hold(self) -> None:
        self.free.clear()

    async def one(self, key: Any) -> Any:
        return (await self._run([key]))[0]

    async def many(self, keys: list[Any]) -> Sequence[Any]:
        assert len(keys) > 1
        if not self.merges:
            self.sent.append(list(keys))
            raise QueryRejected("merging", code="42")
        return await self._run(keys)

    async def _run(self, keys: list[Any]) -> list[Any]:
        self.sent.append(list(keys))
        self.who.append(WHO.get())
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            rows = [self.rows.get(key) for key in keys]  # as they are when the statement is sent
            await asyncio.sleep(0)
            await self.free.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        if self.failure is not None:
            raise self.failure
        bad = [key for key in keys if isinstance(key, int) and key < 0]
        if bad:
            raise QueryRejected("refused", code=str(bad[0]))
        return rows

    def blame(self, error: Exception) -> Blame:
        if not isinstance(error, QueryRejected):
            return "nobody"
        return "merging" if error.code == "42" else "key"


def reading(shelf: Shelf, *, size: int = 100, **pool: Any) -> CoalescedRead:
    return CoalescedRead(shelf, name="main", pool=Pool(**pool), batch_size=size)


async def turns(n: int = 6) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


# ---- gathering ------------------------------------------------------------------------------------------------------


async def test_reads_of_one_turn_are_one_statement():
    shelf = Shelf()
    read = reading(shelf)
    assert await asyncio.gather(*(read(key) for key in (3, 5000, 1, 3))) == ["row 3", None, "row 1", "row 3"]
    assert shelf.sent == [[3, 5000, 1, 3]]
    assert (read.keys, read.statements) == (4, 1)


async def test_a_read_alone_is_the_single_statement():
    shelf = Shelf()
    read = reading(shelf)
    assert await read(7) == "row 7"
    assert await read(7000) is None
    assert shelf.sent == [[7], [7000]]


async def test_tasks_that_go_on_at_the_same_time_stay_together():
    shelf = Shelf()
    read = reading(shelf)

    async def work(n: int) -> list[Any]:
        return [await read(n + i) for i in range(10)]

    found = await asyncio.gather(*(work(100 * n) for n in range(8)))
    assert found == [[f"row {100 * n + i}" for i in range(10)] for n in range(8)]
    assert len(shelf.sent) == 10


async def test_a_statement_takes_so_many_keys_and_no_more():
    shelf = Shelf()
    read = reading(shelf, size=30)
    assert len(await asyncio.gather(*(read(key) for key in range(100)))) == 100
    assert [len(keys) for keys in shelf.sent] == [30, 30, 30, 10]


async def test_nobody_joins_a_statement_that_was_sent():
    shelf = Shelf()
    read = reading(shelf)
    shelf.hold()
    early = [asyncio.ensure_future(read(key)) for key in (1, 2)]
    await turns()
    assert shelf.sent == [[1, 2]]
    shelf.rows[1] = "written since"
    late = asyncio.ensure_future(read(1))
    await turns()
    shelf.free.set()
    assert await asyncio.gather(*early, late) == ["row 1", "row 2", "written since"]
    assert shelf.sent == [[1, 2], [1]]


async def test_half_of_the_connections_at_most_and_what_waits_is_gathered_in_its_order():
    shelf = Shelf()
    read = reading(shelf, size=4, max=4)
    shelf.hold()
    asked = []
    for key in range(12):  # a turn each
        asked.append(asyncio.ensure_future(read(key)))
        await turns()
    assert shelf.sent == [[0], [1]]
    shelf.free.set()
    assert await asyncio.gather(*asked) == [f"row {key}" for key in range(12)]
    assert shelf.sent == [[0], [1], [2, 3, 4, 5], [6, 7, 8, 9], [10, 11]]
    assert shelf.most_at_once == 2


async def test_no_caller_speaks_for_the_others():
    shelf = Shelf()
    read = reading(shelf)

    async def ask(who: str, key: int) -> Any:
        WHO.set(who)
        return await read(key)

    await asyncio.gather(ask("a", 1), ask("b", 2))
    await ask("c", 3)
    assert shelf.who == ["nobody", "c"]  # who is alone speaks for itself


@pytest.mark.parametrize("leaves", [False, True])
async def test_whoever_makes_room_for_the_next_does_not_speak_for_them(leaves: bool):
    shelf = Shelf()
    read = reading(shelf, max=1)
    shelf.hold()

    async def ask(who: str, key: int) -> Any:
        WHO.set(who)
        return await read(key)

    alone = asyncio.ensure_future(ask("a", 1))
    await turns()
    waiting = [asyncio.ensure_future(read(key)) for key in (2, 3)]
    await turns()
    if leaves:
        alone.cancel()
    shelf.free.set()
    assert await asyncio.gather(*waiting) == ["row 2", "row 3"]
    assert shelf.who == ["a", "nobody"]
    assert alone.cancelled() is leaves


def test_it_goes_on_in_another_loop_after_one_that_was_cut_off():
    async def cut(read: CoalescedRead, shelf: Shelf) -> None:
        shelf.free = asyncio.Event()
        asked = [asyncio.ensure_future(read(key)) for key in range(2)]
        await turns()
        asked.append(asyncio.ensure_future(read(7)))
        await asyncio.sleep(0)  # it has asked, and its turn has not come

    async def whole(read: CoalescedRead, shelf: Shelf) -> list[Any]:
        shelf.free = asyncio.Event()
        shelf.free.set()
        return await asyncio.gather(read(1), read(2))

    shelf = Shelf()
    read = reading(shelf)
    for _ in range(3):
        asyncio.run(cut(read, shelf))
        assert asyncio.run(whole(read, shelf)) == ["row 1", "row 2"]


# ---- failures -------------------------------------------------------------------------------------------------------


async def test_a_refused_key_is_its_callers_alone():
    shelf = Shelf()
    read = reading(shelf)
    keys = [*range(30), -1, *range(30, 60)]
    found = await asyncio.gather(*(read(key) for key in keys), return_exceptions=True)
    assert [type(row) for row in found].count(QueryRejected) == 1
    assert found[30].code == "-1"
    assert [row for row in found if isinstance(row, str)] == [f"row {key}" for key in range(60)]
    assert len(shelf.sent) <= 13  # 61 keys: six halvings, both halves each time
    assert await read(1) == "row 1"


async def test_each_refused_key_has_its_own_error():
    shelf = Shelf()
    read = reading(shelf)
    found = await asyncio.gather(*(read(-key) for key in range(1, 20)), return_exceptions=True)
    assert [error.code for error in found] == [str(-key) for key in range(1, 20)]


async def test_what_is_nobodys_fault_is_told_to_everybody_and_not_tried_again():
    shelf = Shelf()
    read = reading(shelf)
    shelf.failure = ConnectionFailed("gone", provider="main")
    shelf.failure.__cause__ = DriverError("driver.Error", "08006")
    found = await asyncio.gather(*(read(key) for key in range(5)), return_exceptions=True)
    assert {type(error) for error in found} == {ConnectionFailed}
    assert {error.retry for error in found} == {"safe"}
    assert len({id(error) for error in found}) == 5
    assert all(error.__cause__ is shelf.failure.__cause__ and error.__context__ is None for error in found)
    assert len(shelf.sent) == 1
    shelf.failure = None
    assert await read(1) == "row 1"


@pytest.mark.parametrize("others", [7, 1])
async def test_the_server_going_away_between_the_halves_ends_the_search(others: int):
    shelf = Shelf()
    read = reading(shelf)
    many = shelf.many

    async def once(keys: list[Any]) -> Sequence[Any]:
        try:
            return await many(keys)
        finally:
            shelf.failure = ConnectionFailed("gone")

    shelf.many = once  # type: ignore[method-assign]
    found = await asyncio.gather(*(read(key) for key in [-1, *range(others)]), return_exceptions=True)
    assert {type(error) for error in found} == {ConnectionFailed}
    assert len(shelf.sent) == 2


async def test_a_mistake_in_a_program_reaches_everybody_too():
    class Odd(Exception):
        def __init__(self, first: str, second: str) -> None:
            super().__init__(first + second)

    shelf = Shelf()
    read = reading(shelf)
    shelf.failure = Odd("a", "b")
    found = await asyncio.gather(*(read(key) for key in range(3)), return_exceptions=True)
    assert [type(error) for error in found] == [Odd] * 3


async def test_what_cannot_be_merged_is_asked_for_singly_and_soon_without_trying():
    shelf = Shelf()
    read = reading(shelf)
    shelf.merges = False
    for _ in range(5):
        found = await asyncio.gather(read(1), read(-2), read(3), return_exceptions=True)
        assert (found[0], type(found[1]), found[2]) == ("row 1", QueryRejected, "row 3")
    assert sum(len(keys) > 1 for keys in shelf.sent) == 3
    assert (read.keys, read.statements) == (15, 18)


async def test_a_refusal_that_passes_does_not_end_the_merging():
    shelf = Shelf()
    read = reading(shelf)
    for merges in (False, False, True, False, False, True):
        shelf.merges = merges
        assert await asyncio.gather(read(1), read(2)) == ["row 1", "row 2"]
    shelf.sent.clear()
    await asyncio.gather(read(1), read(2))
    assert shelf.sent == [[1, 2]]


async def test_where_the_single_statement_is_refused_as_well_the_merging_is_not_to_blame():
    shelf = Shelf()
    read = reading(shelf)
    shelf.failure = QueryRejected("no such table", code="42")
    for _ in range(5):
        found = await asyncio.gather(read(1), read(2), return_exceptions=True)
        assert [error.code for error in found] == ["42", "42"]
    shelf.failure = None
    shelf.sent.clear()
    assert await asyncio.gather(read(1), read(2)) == ["row 1", "row 2"]
    assert shelf.sent == [[1, 2]]


# ---- leaving --------------------------------------------------------------------------------------------------------


async def test_one_who_leaves_leaves_the_others_alone():
    shelf = Shelf()
    read = reading(shelf)
    shelf.hold()
    asked = [asyncio.ensure_future(read(key)) for key in range(4)]
    await turns()
    asked[0].cancel()
    asked[2].cancel()
    await turns()
    assert [task.cancelled() for task in asked] == [True, False, True, False]
    assert shelf.cancelled == 0
    shelf.free.set()
    assert await asyncio.gather(asked[1], asked[3]) == ["row 1", "row 3"]


async def test_when_the_last_has_left_the_statement_is_cancelled():
    shelf = Shelf()
    read = reading(shelf, max=2)
    shelf.hold()
    asked = [asyncio.ensure_future(read(key)) for key in range(4)]
    await turns()
    waiting = asyncio.ensure_future(read(9))
    await turns()
    for task in asked:
        task.cancel()
    await turns()
    assert shelf.cancelled == 1
    assert shelf.sent == [[0, 1, 2, 3], [9]]  # its place is free again
    shelf.free.set()
    assert await waiting == "row 9"


async def test_who_leaves_before_the_statement_is_sent_is_not_in_it():
    shelf = Shelf()
    read = reading(shelf)
    asked = [asyncio.ensure_future(read(key)) for key in range(4)]
    await asyncio.sleep(0)
    for task in asked[:3]:
        task.cancel()
    assert await asked[3] == "row 3"
    assert shelf.sent == [[3]]
    asked = [asyncio.ensure_future(read(key)) for key in range(4)]
    await asyncio.sleep(0)
    for task in asked:
        task.cancel()
    await turns()
    assert shelf.sent == [[3]]
    assert (read.keys, read.statements) == (1, 1)


@pytest.mark.parametrize("after", range(6))
async def test_one_who_is_alone_may_leave_at_any_moment_and_the_next_has_the_place(after: int):
    shelf = Shelf()
    read = reading(shelf, max=1)
    shelf.hold()
    alone = asyncio.ensure_future(read(1))
    await turns(after)
    waiting = [asyncio.ensure_future(read(key)) for key in (2, 3)] if after > 2 else []
    await turns(1)
    alone.cancel()
    shelf.free.set()
    with pytest.raises(asyncio.CancelledError):
        await alone
    waiting += [asyncio.ensure_future(read(key)) for key in (4, 5)]
    assert await asyncio.gather(*waiting) == [f"row {key}" for key in ((2, 3, 4, 5) if after > 2 else (4, 5))]
    assert shelf.most_at_once == 1


async def test_one_who_is_alone_and_refused_gives_its_place_to_the_next():
    shelf = Shelf()
    read = reading(shelf, max=1)
    shelf.hold()
    alone = asyncio.ensure_future(read(-1))
    await turns()
    waiting = [asyncio.ensure_future(read(key)) for key in (2, 3)]
    await turns()
    assert shelf.sent == [[-1]]
    shelf.free.set()
    with pytest.raises(QueryRejected):
        await alone
    assert await asyncio.gather(*waiting) == ["row 2", "row 3"]


async def test_who_has_left_is_not_asked_for_again_in_the_halves():
    shelf = Shelf()
    read = reading(shelf)
    shelf.hold()
    asked = [asyncio.ensure_future(read(key)) for key in (-1, 1, 2, 3)]
    await turns()
    asked[0].cancel()
    asked[2].cancel()
    shelf.free.set()
    assert await asyncio.gather(asked[1], asked[3]) == ["row 1", "row 3"]
    assert shelf.sent == [[-1, 1, 2, 3], [1], [3]]


async def test_a_deadline_is_its_callers_own():
    shelf = Shelf()
    read = reading(shelf)
    shelf.hold()

    async def hurried() -> None:
        async with asyncio.timeout(0.01):
            await read(1)

    patient = asyncio.ensure_future(read(2))
    with pytest.raises(TimeoutError):
        await hurried()
    shelf.free.set()
    assert await patient == "row 2"


async def test_a_statement_that_somebody_else_cancels_leaves_nobody_waiting():
    shelf = Shelf()
    read = reading(shelf, max=2)
    shelf.hold()
    asked = [asyncio.ensure_future(read(key)) for key in range(3)]
    await asyncio.sleep(0)
    before = set(asyncio.all_tasks())
    await asyncio.sleep(0)
    (statement,) = asyncio.all_tasks() - before
    for late in (False, True):  # before it has begun, and while it runs
        if late:
            shelf.sent.clear()
            asked = [asyncio.ensure_future(read(key)) for key in range(3)]
            await turns()
            assert shelf.sent == [[0, 1, 2]]
            (statement,) = asyncio.all_tasks() - before - set(asked)
        statement.cancel()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(error) for error in found] == [asyncio.CancelledError] * 3
    shelf.free.set()
    assert await read(1) == "row 1"


# ---- waiting --------------------------------------------------------------------------------------------------------


async def test_who_waits_too_long_is_told_and_the_rest_go_on():
    shelf = Shelf()
    read = reading(shelf, max=2, acquire=0.02)
    shelf.hold()
    under_way = asyncio.ensure_future(read(0))
    await turns()
    asked = [asyncio.ensure_future(read(key)) for key in range(1, 5)]
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(error) for error in found] == [PoolTimeout] * 4
    assert "pool.acquire" in str(found[0])
    assert found[0].provider == "main"
    again = [asyncio.ensure_future(read(key)) for key in range(5, 7)]
    await turns()
    shelf.free.set()
    assert await asyncio.gather(under_way, *again) == ["row 0", "row 5", "row 6"]
    assert shelf.sent == [[0], [5, 6]]


async def test_who_came_later_is_told_later_though_nobody_comes_any_more():
    shelf = Shelf()
    read = reading(shelf, max=2, acquire=0.05)
    shelf.hold()
    under_way = asyncio.ensure_future(read(0))
    await turns()
    asked = [asyncio.ensure_future(read(1))]
    await asyncio.sleep(0.03)
    asked.append(asyncio.ensure_future(read(2)))
    async with asyncio.timeout(10):
        found = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(error) for error in found] == [PoolTimeout] * 2
    shelf.free.set()
    assert await under_way == "row 0"


async def test_the_line_has_an_end_and_who_has_left_it_does_not_count():
    shelf = Shelf()
    read = reading(shelf, max=2, max_waiting=3)
    shelf.hold()
    under_way = asyncio.ensure_future(read(0))
    await turns()
    gone = [asyncio.ensure_future(read(key)) for key in range(100, 103)]
    await turns()
    for task in gone:
        task.cancel()
    await turns()
    asked = [asyncio.ensure_future(read(key)) for key in range(1, 6)]
    await turns()
    refused = [task.exception() for task in asked[3:]]
    assert [type(error) for error in refused] == [PoolTimeout] * 2
    assert "pool.max_waiting" in str(refused[0])
    shelf.free.set()
    assert await asyncio.gather(under_way, *asked[:3]) == ["row 0", "row 1", "row 2", "row 3"]
    assert shelf.sent == [[0], [1, 2, 3]]


async def test_many_that_have_room_do_not_count_as_waiting():
    shelf = Shelf()
    read = reading(shelf, max=4, size=50, max_waiting=1)
    assert len(await asyncio.gather(*(read(key) for key in range(100)))) == 100


# ---- whatever happens -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(
    callers=st.lists(
        st.tuples(st.integers(-5, 1005), st.integers(0, 6), st.none() | st.integers(0, 6)), min_size=1, max_size=60
    ),
    size=st.integers(1, 12),
    most=st.integers(1, 6),
)
def test_each_caller_has_what_its_own_statement_gives(callers: list[tuple[int, int, int | None]], size: int, most: int):
    """Callers come in turns of the loop and may leave after some: the rest get their rows, errors and nothing else."""

    async def scenario() -> None:
        shelf = Shelf()
        read = reading(shelf, size=size, max=most)

        async def call(key: int, comes: int) -> Any:
            await turns(comes)
            return await read(key)

        async def leave(task: asyncio.Task[Any], after: int) -> None:
            await turns(after)
            task.cancel()

        asked = [asyncio.ensure_future(call(key, comes)) for key, comes, _ in callers]
        leaving = [
            asyncio.ensure_future(leave(task, leaves))
            for task, (_, _, leaves) in zip(asked, callers, strict=True)
            if leaves is not None
        ]
        async with asyncio.timeout(10):
            found = await asyncio.gather(*asked, return_exceptions=True)
            await asyncio.gather(*leaving)
        for (key, _, leaves), row in zip(callers, found, strict=True):
            if isinstance(row, asyncio.CancelledError):
                assert leaves is not None
            elif key < 0:
                assert isinstance(row, QueryRejected)
                assert row.code == str(key)
            else:
                assert row == (f"row {key}" if key < 1000 else None)
        assert shelf.most_at_once <= max(1, most // 2)
        assert all(len(keys) <= size for keys in shelf.sent)
        await turns()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())


# ---- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("", None, 1), "a column's name is empty"),
        (("i\0d", None, 1), "NUL"),
        (("id", ["id", ""], 1), "a column's name is empty"),
        (("id", ["id", 3], 1), "no text"),
        (("id", "id", 1), "expected a list"),
        (("id", ["name"], 1), "the key id is not among the columns"),
        (("id", [], 1), "the key id is not among the columns"),
        (("id", None, 0), "batch_size is 0"),
    ],
)
def test_what_no_engine_can_read_is_refused(arguments: tuple[Any, ...], words: str):
    with pytest.raises(ConfigurationError, match=words):
        check_read("users", *arguments)
