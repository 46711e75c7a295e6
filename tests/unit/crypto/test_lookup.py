"""Lookup indexes: equal for what means the same, and for nothing else."""

from __future__ import annotations

import hmac
import os
import traceback
import unicodedata
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datavern.contracts.errors import ConfigurationError
from datavern.crypto.encoding import encode
from datavern.crypto.lookup import KINDS, index, indexer, normalise

KEY = bytes(32)


@pytest.mark.parametrize(
    ("kind", "expected", "spellings"),
    [
        ("fodselsnummer", "13097248022", ["13097248022", "130972 48022", " 130972-48022\n", "１３０９７２４８０２２"]),
        ("email", "åse@blåbær.no", ["åse@blåbær.no", " ÅSE@BLÅBÆR.NO ", unicodedata.normalize("NFD", "Åse@blåbær.no")]),
        ("phone", "+4722222222", ["22222222", "22 22 22 22", "+47 22 22 22 22", "0047-22222222", "4722222222"]),
        ("phone", "+442079460000", ["+44 20 7946 0000", "+44 (0)20 7946 0000", "00442079460000"]),
        (
            "name",
            "åse marie bø",
            ["Åse Marie Bø", "  åse  MARIE\u00a0bø ", unicodedata.normalize("NFD", "Åse Marie Bø")],
        ),
    ],
)
def test_spellings_of_the_same_value(kind, expected, spellings):
    assert {normalise(kind, spelling) for spelling in spellings} == {encode(expected)}


@given(st.sampled_from(sorted(KINDS)), st.text(st.characters(exclude_categories=["Cs"])))
def test_normalising_twice_changes_nothing(kind, value):
    try:
        once = normalise(kind, value)
    except ConfigurationError:
        return
    assert normalise(kind, once[1:].decode()) == once


RULES = {
    "fodselsnummer": lambda text: "".join(str(unicodedata.decimal(c)) for c in text if c.isdecimal()),
    "email": lambda text: unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).strip(),
    "name": lambda text: " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).split()),
}


@given(st.sampled_from(sorted(RULES)), st.text(st.characters(max_codepoint=127)) | st.text("ÅåÆ ßİ1\u0301\x1c\u00a0ﬁ"))
def test_the_short_ways_lead_where_the_rules_do(kind, value):
    expected = RULES[kind](value)
    if expected:
        assert normalise(kind, value) == encode(expected)
    else:
        with pytest.raises(ConfigurationError):
            normalise(kind, value)


@given(st.sampled_from([None, *sorted(KINDS)]), st.text(st.characters(exclude_categories=["Cs"])))
def test_an_indexer_gives_what_the_format_says(kind, value):
    try:
        normal = normalise(kind, value)
    except ConfigurationError:
        with pytest.raises(ConfigurationError):
            indexer(KEY, "f", kind)(value)
        return
    assert indexer(KEY, "f", kind)(value) == b"\x01" + hmac.digest(KEY, b"\x01\x00\x01f" + normal, "sha256")


def test_text_that_is_no_unicode_is_refused_and_not_shown():
    value = "13097248022 \ud800"
    for kind in (None, "name"):
        with pytest.raises(ConfigurationError, match="surrogate") as caught:
            index(KEY, "f", value, kind)
        assert "13097248022" not in "".join(traceback.format_exception(caught.value))


def test_without_a_kind_a_value_is_compared_exactly_type_included():
    values = ["5", "5 ", 5, 5.0, True, b"5", Decimal(5), "Å", unicodedata.normalize("NFD", "Å"), "å"]
    assert len({normalise(None, value) for value in values}) == len(values)


def test_an_index_is_of_its_key_and_its_field_alone():
    one = index(KEY, "email", "a@b.no", "email")
    assert len(one) == 33
    assert one == index(KEY, "email", " A@B.no", "email")
    others = {
        index(bytes(31) + b"\1", "email", "a@b.no", "email"),
        index(KEY, "mail", "a@b.no", "email"),
        index(KEY, "email", "a@b.com", "email"),
        index(os.urandom(32), "email", "a@b.no", "email"),
    }
    assert len(others) == 4
    assert one not in others


def test_a_field_and_a_value_do_not_run_together():
    assert index(KEY, "a", "bc") != index(KEY, "ab", "c")


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("value", ["", "  ", 13097248022, None, b"13097248022"])
def test_what_is_not_of_its_kind_is_refused_and_not_shown(kind, value):
    with pytest.raises(ConfigurationError, match=kind) as caught:
        index(KEY, "f", value, kind)
    assert "13097248022" not in "".join(traceback.format_exception(caught.value))


def test_an_unknown_kind_is_refused_with_those_there_are():
    with pytest.raises(ConfigurationError, match="email, fodselsnummer, name, phone"):
        normalise("shoe size", "43")


def test_a_number_without_digits_is_refused():
    with pytest.raises(ConfigurationError, match="nothing of it is one"):
        normalise("fodselsnummer", "Åse")
