"""Arguments that cannot be: the same error on every engine, before anything is done."""

import math

import pytest

from datavern.contracts.errors import ConfigurationError

WRONG = [None, "", "10", 0, -1, True, 1.5, math.nan, b"1", [1], 2**31, 10**5000, -(10**5000)]


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
async def test_a_batch_size_that_is_none(provider, wrong):
    with pytest.raises(ConfigurationError, match="batch_size is .*: expected a whole number from 1"):
        provider.stream("SELECT 1", batch_size=wrong)
    async with provider.transaction() as tx:
        with pytest.raises(ConfigurationError, match="batch_size is .*: expected a whole number from 1"):
            tx.stream("SELECT 1", batch_size=wrong)
    with pytest.raises(ConfigurationError, match="batch_size is .*: expected a whole number from 1"):
        provider.coalesced("people", key="id", batch_size=wrong)
    assert len(await provider.query("SELECT 1 AS n")) == 1
