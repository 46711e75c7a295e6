import enum
import traceback
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.identity import fodselsnummer, is_fodselsnummer
from datavern.contracts.subjects import canonical_subject


class ObjectId:
    """As MongoDB's driver has it: what counts is the name of the class and its text."""

    def __init__(self, text):
        self.text = text

    def __str__(self):
        return self.text


class Tagged(str, enum.Enum):  # noqa: UP042  (its str() is "Tagged.ONE": the case to get right)
    ONE = "one"


U = uuid.UUID("0191e0a4-7c2f-7b3a-9c51-2f6d8f1e0a01")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("test-user", "test-user"),
        ("42", "42"),
        (42, "42"),
        (-7, "-7"),
        (U, "0191e0a4-7c2f-7b3a-9c51-2f6d8f1e0a01"),
        (ObjectId("507F1F77BCF86CD799439011"), "507f1f77bcf86cd799439011"),
        ("507f1f77bcf86cd799439011", "507f1f77bcf86cd799439011"),
        ("Bjørn Åse 🌲", "Bjørn Åse 🌲"),
        ("988077917", "988077917"),
        (12345678901, "12345678901"),
        (Tagged.ONE, "one"),
    ],
)
def test_canonical_text(value, text):
    found = canonical_subject(value)
    assert found == text
    assert type(found) is str


@pytest.mark.parametrize(
    "value",
    ["13097248022", "130972 48022", "130972-48022", " 13097248022 ", 13097248022, "53097248016", "10915596784"],
)
def test_a_fodselsnummer_is_refused_and_not_quoted(value):
    with pytest.raises(ConfigurationError, match="lookup=True") as caught:
        canonical_subject(value)
    told = "".join(traceback.format_exception_only(caught.value))
    assert str(value).strip()[-5:] not in told
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_a_number_that_lost_its_leading_zero_is_refused():
    number = next(n for n in range(1017000000, 1017099999) if (f := fodselsnummer(f"0{n}")) and f.rule == "today")
    with pytest.raises(ConfigurationError, match="fødselsnummer"):
        canonical_subject(number)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (True, "bool"),
        (1.5, "float"),
        (None, "NoneType"),
        ("", "empty"),
        (" \t", "empty"),
        ("a\0b", "NUL"),
        ("a\ud800b", "surrogate"),
        (b"abc", "decode"),
        (["a"], "list"),
        (ObjectId("nonsense"), "ObjectId"),
        (1 << 200, "128 bits"),
        (10**5000, "128 bits"),
    ],
    ids=lambda value: "" if isinstance(value, int) else None,
)
def test_what_names_nobody(value, says):
    with pytest.raises(ConfigurationError, match=says) as caught:
        canonical_subject(value)
    assert caught.value.__context__ is None


@given(st.text(min_size=1).filter(lambda t: t.strip() and "\0" not in t and not is_fodselsnummer(t)))
def test_text_is_itself(text):
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    assert canonical_subject(text) == text
