"""What may stand in the log: no fødselsnummer, and random handles as they fall."""

from __future__ import annotations

import pytest

from datavern.audit.entry import check_text, check_words, details_text
from datavern.contracts.errors import ConfigurationError

NUMBER = "13097248022"


@pytest.mark.parametrize("text", [NUMBER, f"case {NUMBER}.", "130972 48022", "130972-48022", f"æ:{NUMBER}"])
def test_a_number_is_refused_and_not_quoted(text: str):
    with pytest.raises(ConfigurationError, match="holds a fødselsnummer") as caught:
        check_text("actor", text)
    assert NUMBER not in str(caught.value)
    with pytest.raises(ConfigurationError, match="holds a fødselsnummer"):
        details_text({"note": text})


def test_digits_that_fall_so_in_a_random_handle_are_none():
    handle = f"a4f{NUMBER}c0ffee00deadbeef91"
    check_text("handle", handle)
    assert details_text({"consent": handle}) == f'{{"consent":"{handle}"}}'


@pytest.mark.parametrize("action", ["", "  ", "\n", None])
def test_an_entry_says_what_was_done(action):
    with pytest.raises(ConfigurationError, match="audit action: missing; say what was done"):
        check_words(action, "case-worker-7", None)
