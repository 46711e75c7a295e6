"""What stands in an anonymised field; and what is refused because it could be turned back, or does not fit."""

import datetime as dt
from collections import Counter
from decimal import Decimal

import pytest

from datavern import ConfigurationError, Dataset, Field
from datavern.contracts.identity import fodselsnummer
from datavern.privacy.datamap.anonymize import Anonymizer, Unfit, parse
from datavern.privacy.datamap.datamap import DataMap

TODAY = dt.date(2026, 11, 28)


def made(said, value, **field):
    one = Field(anonymize=said, **field)
    return Anonymizer(TODAY)(parse(said, one), "f", value, kind=None if one.sealed else one.type)


@pytest.mark.parametrize(
    ("said", "field", "value", "expected"),
    [
        ("null", {}, "x", None),
        ({"constant": "Ukjent"}, {}, "Kari", "Ukjent"),
        ({"constant": "Ukjent"}, {}, None, "Ukjent"),
        ({"constant": 0}, {"type": "integer"}, 7, 0),
        ({"constant": "1900-01-01"}, {"type": "date"}, dt.date(1972, 9, 13), dt.date(1900, 1, 1)),
        ({"generalise": "year"}, {"type": "date"}, dt.date(1972, 9, 13), dt.date(1972, 1, 1)),
        ({"generalise": "decade"}, {"type": "date"}, dt.date(1972, 9, 13), dt.date(1970, 1, 1)),
        ({"generalise": "decade"}, {"type": "date"}, "1972-09-13", "1970-01-01"),  # as SQLite keeps dates
        ({"generalise": "decade"}, {}, "1972-09-13", "1970-1979"),
        ({"generalise": "year"}, {"sealed": True}, "1972-09-13", "1972"),
        ({"generalise": "year"}, {"sealed": True}, dt.date(1972, 9, 13), dt.date(1972, 1, 1)),
        (
            {"generalise": "year"},
            {"type": "timestamp"},
            dt.datetime(1972, 9, 13, 4, tzinfo=dt.UTC),
            dt.datetime(1972, 1, 1, tzinfo=dt.UTC),
        ),
        ({"generalise": "age"}, {"sealed": True}, dt.date(1972, 11, 29), "50-59"),
        ({"generalise": "age", "width": 5}, {}, "1971-11-28", "55-59"),
        ({"generalise": "age"}, {}, "1930-01-01", "90+"),
        ({"generalise": "age", "width": 40}, {}, "1940-01-01", "80-89"),
        ({"generalise": "postcode"}, {}, "0150", "01"),
        ({"generalise": "band", "width": 10}, {"type": "integer"}, 57, 50),
        ({"generalise": "band", "width": 10}, {"type": "integer"}, -1, -10),
        ({"generalise": "band", "width": 2.5}, {"type": "real"}, 6.2, 5.0),
        ({"generalise": "band", "width": 1000}, {"sealed": True}, Decimal("54321.50"), Decimal(54000)),
        ({"generalise": "decade"}, {"type": "date"}, None, None),
    ],
)
def test_what_a_field_becomes(said, field, value, expected):
    found = made(said, value, **field)
    assert found == expected
    assert type(found) is type(expected)


def test_pseudonyms_are_the_same_for_one_person_and_lead_nowhere():
    field = Field(anonymize="pseudonym", kind="fodselsnummer", sealed=True, lookup=True, unique=True)
    strategy = parse("pseudonym", field)
    one, other = Anonymizer(TODAY), Anonymizer(TODAY)
    found = one(strategy, "number", "13097248022")
    assert found == one(strategy, "number", "13097248022")
    assert found not in {one(strategy, "other", "13097248022"), other(strategy, "number", "13097248022")}
    assert len(found) == 32
    assert isinstance(
        one(parse("pseudonym", Field(type="bytes", anonymize="pseudonym")), "b", b"x", kind="bytes"), bytes
    )


def test_noise_is_bounded_and_from_both_sides():
    whole = [made({"noise": 3}, 100, type="integer") for _ in range(400)]
    assert set(whole) == set(range(97, 104))
    real = [made({"noise": 0.5}, 1.0, type="real") for _ in range(100)]
    assert all(0.5 <= value <= 1.5 for value in real)
    assert len(set(real)) > 90
    days = Counter(made({"noise": "1w"}, dt.date(2020, 2, 29), type="date") for _ in range(300))
    assert min(days) >= dt.date(2020, 2, 22)
    assert max(days) <= dt.date(2020, 3, 7)
    assert len(days) == 15
    assert made({"noise": "1d"}, "2020-02-29", type="date") in {"2020-02-28", "2020-02-29", "2020-03-01"}
    assert isinstance(made({"noise": 2}, Decimal(5), sealed=True), Decimal)


def test_fakes_are_nobodys():
    assert made("fake", "Kari", kind="name") != made({"fake": "name"}, "Kari") or True
    assert made({"fake": "email"}, "kari@firma.no").endswith("@example.no")
    assert made({"fake": "phone"}, "x").startswith("+4701")
    assert made({"fake": "postcode"}, "x").isdecimal()
    assert made({"fake": "address"}, "x").split()[-1].isdecimal()
    number = made("fake", "13097248022", kind="fodselsnummer", sealed=True)
    assert fodselsnummer(number).kind == "tenor"


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ({"generalise": "postcode"}, "150"),
        ({"generalise": "postcode"}, 150),
        ({"generalise": "decade"}, "in 1972"),
        ({"generalise": "age"}, "2050-01-01"),
        ({"generalise": "band", "width": 10}, "57"),
        ({"generalise": "band", "width": 10}, True),
        ({"generalise": "band", "width": 10}, float("nan")),
        ({"noise": 5}, "57"),
        ({"noise": "3d"}, "2020-02-29"),
        ({"noise": "3d"}, dt.date.max),
        ({"noise": "3d"}, 5),
    ],
)
def test_what_a_strategy_is_not_for_is_told_without_the_value(said, value):
    with pytest.raises(Unfit) as refused:
        for _ in range(200):  # the last day of all days takes some noise
            made(said, value, sealed=True)
    assert str(value) not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "field", "says"),
    [
        ("hash", {}, "found again by trying values"),
        ({"sha256": "salt"}, {}, "Recital 26"),
        ({"pseudonym": "kept"}, {}, "under a key that is kept, that is pseudonymisation"),
        ("pseudonym", {"type": "integer"}, "a pseudonym is for text"),
        ("fakse", {}, "did you mean fake"),
        ("fake", {}, "fake is one of"),
        ({"fake": "phone"}, {"kind": "email"}, "the field's kind is email"),
        ({"fake": "name"}, {"type": "date"}, "a fake is for text"),
        ({"fake": "name"}, {"unique": True}, "are few"),
        ({"generalise": "month"}, {}, "year, decade, age, postcode, band"),
        ({"generalise": "year"}, {"type": "integer"}, "year is for date"),
        ({"generalise": "year"}, {"kind": "phone"}, "nothing more general"),
        ({"generalise": "age"}, {"type": "date"}, "age band is for text"),
        ({"generalise": "age", "width": 1}, {}, "2 to 90"),
        ({"generalise": "band"}, {"type": "integer"}, "needs its width"),
        ({"generalise": "band", "width": 1}, {"type": "integer"}, "2 wide"),
        ({"generalise": "band", "width": True}, {"type": "integer"}, "needs its width"),
        ({"generalise": "decade", "width": 2}, {"type": "date"}, "width is for"),
        ({"generalise": "decade"}, {"type": "date", "unique": True}, "the field is unique"),
        ({"generalise": "postcode"}, {"sealed": True, "lookup": True, "unique": True}, "still tells the row"),
        ({"constant": "x"}, {"unique": True}, "the field is unique"),
        ({"constant": "x"}, {"type": "integer"}, "constant wants"),
        ({"constant": True}, {"type": "integer"}, "constant wants"),
        ({"constant": "soon"}, {"type": "date"}, "constant wants"),
        ("constant", {}, "constant wants"),
        ({"noise": 5}, {}, "noise in numbers is for"),
        ({"noise": 0}, {"type": "integer"}, "how much"),
        ({"noise": 0.5}, {"type": "integer"}, "whole number"),
        ({"noise": "1m"}, {"type": "date"}, "days or weeks"),
        ({"noise": "x"}, {"type": "date"}, "days or weeks"),
        ({"noise": "3d"}, {"type": "real"}, "noise of days is for"),
        ({"null": 1}, {}, "null stands alone"),
        ({}, {}, "expected one of"),
        ({"null": None, "fake": "name"}, {}, "expected one of"),
        (5, {}, "expected one of"),
    ],
)
def test_what_is_refused(said, field, says):
    with pytest.raises(ConfigurationError, match=says):
        Field(anonymize=said, **field)


def test_in_a_data_map():
    def users(erasure="anonymize", **field):
        return Dataset("users", database="main", subject="id", erasure=erasure, fields=field)

    with pytest.raises(ConfigurationError, match="fields.city.anonymize: is for rows that are anonymised"):
        users("soft", city=Field(anonymize="null"))
    with pytest.raises(ConfigurationError, match="fields.id.anonymize: the subject gets a pseudonym by itself"):
        users(id=Field(anonymize="fake", kind="name"))
    found = DataMap.from_mapping(
        {
            "users": {
                "database": "main",
                "subject": "id",
                "erasure": "anonymize",
                "fields": {
                    "born": {"sealed": True, "anonymize": {"generalise": "decade"}},
                    "city": {"anonymize": "null"},
                },
            }
        }
    )["users"]
    assert {name: str(s) for name, s in found.strategies.items()} == {"born": "generalise decade", "city": "null"}
    assert found.marks_erased
    assert hash(found.fields["born"]) == hash(found.fields["born"])
    with pytest.raises(ConfigurationError, match="datasets.users.fields.born"):
        DataMap.from_mapping(
            {"users": {"database": "m", "subject": "id", "erasure": "anonymize", "fields": {"born": {"anonymize": 5}}}}
        )
