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
from datavern.crypto.lookup import KINDS, grams, index, indexer, normalise, prefix_indexer

KEY = bytes(32)


@pytest.mark.parametrize(
    ("kind", "expected", "spellings"),
    [
        ("fodselsnummer", "13097248022", ["13097248022", "130972 48022", " 130972-48022\n", "１３０９７２４８０２２"]),
        ("email", "åse@blåbær.no", ["åse@blåbær.no", " ÅSE@BLÅBÆR.NO ", unicodedata.normalize("NFD", "Åse@blåbær.no")]),
        ("phone", "+4722222222", ["22222222", "22 22 22 22", "+47 22 22 22 22", "0047-22222222", "4722222222"]),
        ("phone", "+4722222222", ["(0) 22 22 22 22", "(47) 22 22 22 22", "tel:+4722222222", "\u200e22\u00ad22 22 22"]),
        ("phone", "+442079460000", ["+44 20 7946 0000", "+44 (0)20 7946 0000", "00442079460000"]),
        ("phone", "+46701234567", ["\u202a+46 70 123 45 67\u202c", "(+46) 70 123 45 67", "(0046) 70-123 45 67"]),
        (
            "phone",
            "+46701234567",
            ["tel:+46-70-123-45-67", "＋４６７０１２３４５６７", "+46 (\u200b0\u200b) 70 123 45 67"],
        ),
        (
            "email",
            "åse@blåbær.no",
            ["\ufeffåse@blåbær.no", " \u200båse@\u00adblåbær.no \u200b", "\u202aA\u200b\u030ase@blåbær.no"],
        ),
        ("name", "åse bø", ["Åse\u200b Bø", "\u2067Åse \u200d Bø\u2069", "A\u030ase B\u00adø"]),
        (
            "name",
            "åse marie bø",
            ["Åse Marie Bø", "  åse  MARIE\u00a0bø ", unicodedata.normalize("NFD", "Åse Marie Bø")],
        ),
    ],
)
def test_spellings_of_the_same_value(kind, expected, spellings):
    assert {normalise(kind, spelling) for spelling in spellings} == {encode(expected)}


@pytest.mark.parametrize(
    ("kind", "different"),
    [
        ("name", ["Åse", "Ase", "Aase", "Øse", "Æse", "AEse"]),
        ("name", ["Irmak", "Irma k", "Irmakı", "İrmak", "ırmak"]),
        ("email", ["k.n@example.no", "kn@example.no", "k.n+1@example.no", "kn@example.no.", "k n@example.no"]),
        ("phone", ["22222222", "+46 22222222", "2222222", "222222222", "47 222222", "+222 22222"]),
        ("fodselsnummer", ["13097248022", "1309724802", "013097248022", "23097248022"]),
    ],
)
def test_what_is_not_the_same_stays_different(kind, different):
    assert len({normalise(kind, value) for value in different}) == len(different)


ODD = "+00 ()47 9-12\u200b\u202a\u00adÅåÆæØø\u030a\u0301\u0323İıiIß\u212b１\u0345ΐᾴ@.e"


@given(st.sampled_from(sorted(KINDS)), st.text(ODD, max_size=9))
def test_how_characters_are_put_together_is_no_difference(kind, value):
    def made(text):
        try:
            return normalise(kind, text)
        except ConfigurationError:
            return None

    once = made(value)
    assert {made(unicodedata.normalize(form, value)) for form in ("NFC", "NFD")} == {once}
    if once is not None:
        assert made(once[1:].decode()) == once
    if kind != "fodselsnummer":
        assert made("\u2066" + "\u200b".join(value) + "\u2069") == once


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


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("fodselsnummer", "Åse"),
        ("phone", "00"),
        ("phone", "+"),
        ("phone", "00(0)"),
        ("name", "\u200b"),
        ("email", " \ufeff "),
    ],
)
def test_what_nothing_is_left_of_is_refused(kind, value):
    with pytest.raises(ConfigurationError, match="nothing of it is one"):
        normalise(kind, value)


def test_indexes_of_parts_are_of_their_key_their_field_their_length_and_their_sort():
    other = os.urandom(32)
    beginnings = {
        prefix_indexer(key, field, length)(value)
        for key in (KEY, other)
        for field in ("name", "nam", "note")
        for length in (3, 4)
        for value in ("kari", "karl")
    }
    assert len(beginnings) == 2 * 3 * (1 + 2)  # of three characters both values have the same
    parts = {
        (word, size) for key in (KEY, other) for field in ("name", "note") for size in (2, 3)
        for word in grams(key, field, size, "kari")
    }  # fmt: skip
    assert len({word for word, _ in parts}) == len(parts) == 2 * 2 * (3 + 2)
    whole = hmac.digest(KEY, b"\x02\x00\x03\x00\x04namekar", "sha256")
    assert prefix_indexer(KEY, "name", 3, "name")("Kari") == b"\x02" + whole
    one = hmac.digest(KEY, b"\x03\x00\x03\x00\x04namekar", "sha256")
    assert grams(KEY, "name", 3, "kar") == [one[:6].hex()]
