import hashlib
import itertools
import re

import pytest

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.identity import fodselsnummer
from datavern.testing.people import COLUMNS, FAMILY, FOLD, GIVEN, LARGEST, people, read_csv, write_csv


def test_everybody_is_whole_and_nobody_is_twice():
    everybody = list(people(5000, seed=7))
    assert [p.id for p in everybody[:2]] == ["p-000001", "p-000002"]
    assert len({p.personal_number for p in everybody}) == 5000
    assert len({p.email for p in everybody}) == 5000
    for person in everybody:
        number = fodselsnummer(person.personal_number)
        assert number is not None
        assert (number.kind, number.rule, number.birth_date) == ("tenor", "today", person.birth_date)
        assert re.fullmatch(r"[a-z.]+\.[0-9]+@example\.(no|org)", person.email)
        assert re.fullmatch(r"\+4701[0-9]{6}", person.phone)
        assert re.fullmatch(r"[0-9]{4}", person.postcode)
        assert person.consent_date > person.birth_date
        assert person.municipality
        assert person.consent_purpose
        assert re.search(r" [0-9]+$", person.address)


def test_names_have_the_letters_of_the_country():
    letters = set("".join(p.name for p in people(2000)))
    assert set("æøåÅØáÁ") <= letters


def test_no_name_is_listed_twice_and_all_fold_to_ascii():
    for names in (GIVEN, FAMILY):
        assert len(set(names)) == len(names)
        assert all(name.lower().translate(FOLD).isascii() for name in names)


def test_the_same_seed_gives_the_same_people_everywhere():
    text = "".join(f"{getattr(p, name)}\n" for p in people(1000, seed=2026) for name in COLUMNS)
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "ad159ea45da94814dc5d774bd1e73d2b0a24967f18bd4e78e213bd72829a8208"
    )
    assert list(people(10, seed=2026)) == list(itertools.islice(people(1000, seed=2026), 10))
    assert list(people(10, seed=2026)) != list(people(10, seed=2027))


def test_a_million_are_a_stream():
    million = people(1_000_000, seed=3)
    assert next(million).id == "p-000001"
    million.close()


def test_csv_round_trip(tmp_path):
    path = tmp_path / "people.csv"
    write_csv(path, 200, seed=4)
    assert list(read_csv(path)) == list(people(200, seed=4))
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert len(lines) == 201


@pytest.mark.parametrize("count", [-1, LARGEST + 1])
def test_counts_that_cannot_be(count):
    with pytest.raises(ValueError, match="expected 0 to"):
        people(count)


def test_a_file_that_does_not_fit_says_where_and_quotes_nobody(tmp_path):
    path = tmp_path / "people.csv"
    write_csv(path, 3)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("birth_date", "born"), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="missing column birth_date"):
        list(read_csv(path))
    third = list(people(3))[2]
    path.write_text(text.replace(third.birth_date.isoformat(), "11/10/1955"), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="line 4") as caught:
        list(read_csv(path))
    assert third.name not in str(caught.value)
    assert caught.value.__context__ is None
    path.write_text("", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="missing column id"):
        list(read_csv(path))
