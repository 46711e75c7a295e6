"""`execute_many` with what is no list of sets: the same refusal alone and in a transaction, and nothing is kept."""

import pytest

from datavern import QueryRejected

pytestmark = pytest.mark.not_on("azuresql", "its driver binds the sets itself: tests/engines/azuresql")

SECRET = 13097248022


@pytest.fixture
async def db(database):
    async with database.provider() as db:
        await db.execute("CREATE TABLE t (n bigint)")
        yield db


@pytest.mark.parametrize(
    "sets",
    [None, SECRET, [SECRET], [(1,), SECRET], [(1,), None], [(1,), {"n": SECRET}], [(1,), ()], [(1,), (2, SECRET)]],
)
@pytest.mark.parametrize("alone", [True, False])
async def test_what_is_no_set_of_parameters(db, engine, sets, alone):
    insert = f"INSERT INTO t VALUES ({'?' if engine == 'sqlite' else '$1'})"
    with pytest.raises(QueryRejected, match="parameter|placeholders") as caught:
        if alone:
            await db.execute_many(insert, sets)
        else:
            async with db.transaction() as tx:
                await tx.execute_many(insert, sets)
    assert str(SECRET) not in str(caught.value)
    assert "the driver" not in str(caught.value)
    assert await db.query_value("SELECT count(*) FROM t") == 0
