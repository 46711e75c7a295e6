"""What goes in comes out, as the type that went in."""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import math
import traceback
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datavern.contracts.errors import ConfigurationError, DecryptionFailed
from datavern.crypto.encoding import decode, encode

text = st.text(st.characters(exclude_categories=["Cs"]))
offsets = st.integers(-1439, 1439).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner) | st.dictionaries(text, inner),
    max_leaves=12,
).filter(lambda value: isinstance(value, list | dict))
values = st.one_of(
    text,
    st.integers(),
    st.integers(min_value=-(2**4096), max_value=2**4096),
    st.floats(allow_nan=False),
    st.booleans(),
    st.binary(),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=offsets),
    st.datetimes(timezones=st.just(ZoneInfo("Europe/Oslo"))),
    st.times(),
    st.times(timezones=offsets),
    st.decimals(allow_nan=False),
    st.uuids(),
    documents,
)


@given(values)
def test_round_trip(value):
    encoded = encode(value)
    back = decode(encoded)
    assert type(back) is type(value)
    if isinstance(value, dt.datetime | dt.time):  # in an hour that comes twice, Python calls equal moments unequal
        assert back.replace(tzinfo=None) == value.replace(tzinfo=None)
        assert back.utcoffset() == value.utcoffset()
    else:
        assert back == value
    if isinstance(value, float):
        assert math.copysign(1, back) == math.copysign(1, value)
    if isinstance(value, Decimal):
        assert str(back) == str(value)
    assert encode(back) == encoded


@pytest.mark.parametrize("value", [float("nan"), Decimal("NaN"), Decimal("-sNaN123"), Decimal("1E+999999")])
def test_what_does_not_equal_itself_comes_back_too(value):
    assert str(decode(encode(value))) == str(value)


def test_a_driver_s_own_uuid_comes_back_as_a_uuid():
    class DriverUUID(UUID):
        pass

    value = DriverUUID("12345678-1234-5678-1234-567812345678")
    back = decode(encode(value))
    assert back == value
    assert type(back) is UUID


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    "value",
    [
        None,
        object(),
        Colour.RED,
        bytearray(b"x"),
        memoryview(b"x"),
        ("tuple",),
        {"set"},
        1j,
        dt.timedelta(1),
        dt.time(12, tzinfo=ZoneInfo("Europe/Oslo")),
        "lone \ud800",
        {"a": "lone \ud800"},
        {1: "int key"},
        {"a": (1, 2)},
        [Decimal(1)],
        [float("inf")],
        [Colour.RED],
        {"a": [b"bytes"]},
    ],
)
def test_other_types_are_refused_with_their_name(value):
    with pytest.raises(ConfigurationError, match=r"sealed|seal a") as caught:
        encode(value)
    assert caught.value.__context__ is None


def test_a_list_without_end_is_refused():
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        encode(endless)


@pytest.mark.parametrize("value", ["13097248022 \ud800", {"13097248022": float("nan")}, ["13097248022", b""]])
def test_a_refused_value_is_nowhere_in_the_error(value):
    with pytest.raises(ConfigurationError) as caught:
        encode(value)
    assert "13097248022" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "00",
        "0d",
        "ff",
        "01ff",
        "0300",
        "04",
        "0402",
        "040101",
        "06",
        "06000b17",
        "0607ea0d17",
        "07",
        "0741",
        "08",
        "0941",
        "0a",
        "0a41",
        "0b00",
        "0c",
        "0c7b",
    ],
)
def test_bytes_that_are_no_value_are_refused(raw):
    with pytest.raises(DecryptionFailed) as caught:
        decode(bytes.fromhex(raw))
    assert caught.value.__context__ is None


@given(st.binary())
def test_no_bytes_raise_anything_else(raw):
    with contextlib.suppress(DecryptionFailed):
        decode(raw)
