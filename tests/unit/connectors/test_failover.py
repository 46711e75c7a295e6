"""What a failover group does again by itself, told by the error alone."""

from __future__ import annotations

import pytest

from datavern import ConnectionFailed, NoHealthyConnection, OutcomeUnknown, PoolTimeout, ProviderError, QueryRejected
from datavern.connectors.writing import _again


@pytest.mark.parametrize(
    ("failure", "idempotent", "again"),
    [
        (ConnectionFailed("nothing was sent"), False, True),
        (ConnectionFailed("the server undid it", retry="transaction"), False, True),
        (ConnectionFailed("a wrong password", retry="never"), True, False),
        (OutcomeUnknown("sent, and no answer"), False, False),
        (OutcomeUnknown("sent, and no answer, under a key"), True, True),
        (PoolTimeout("its caller has waited already"), True, False),
        (NoHealthyConnection("so has this one's"), True, False),
        (QueryRejected("a syntax error"), True, False),
    ],
)
def test_what_is_done_again(failure: ProviderError, idempotent: bool, again: bool):
    assert _again(failure, idempotent=idempotent) is again
