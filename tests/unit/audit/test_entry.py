import datetime as dt
import json
import os
import time
import uuid
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datavern.audit.entry import (
    COLUMNS,
    SEEN,
    canonical,
    check_text,
    details_text,
    leaf_hashes,
    new_id_and_time,
)
from datavern.audit.pending import entry_values
from datavern.contracts.errors import ConfigurationError
from datavern.contracts.values import timestamp

NUMBER = "13097248022"
numbers = st.integers(0, 2**63 - 1)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
rows = st.tuples(numbers, texts, numbers, numbers, texts, texts, *[st.none() | texts] * 4)


@given(rows)
def test_the_canonical_form_is_json_and_says_all(row):
    data = canonical(row)
    assert data[:1] == b"\1"
    assert tuple(json.loads(data[1:])) == row
    # RFC 8785: exactly what the strictest writer of JSON writes of text and whole numbers
    assert data[1:] == json.dumps(list(row), ensure_ascii=False, separators=(",", ":")).encode()
    assert leaf_hashes([row]) == [sha256(b"\0" + data).digest()]


@given(rows, rows)
def test_different_entries_have_different_bytes(one, two):
    assert (canonical(one) == canonical(two)) == (one == two)


GOOD = (1, "id", 1, 0, "at", "action", None, None, None, None)


@pytest.mark.parametrize("at", range(len(COLUMNS)))
@pytest.mark.parametrize("value", [b"bytes", 1.5, "a\ud800"])
def test_what_has_no_form_has_a_hash_of_its_own(at, value):
    wrong = (*GOOD[:at], value, *GOOD[at + 1 :])
    with pytest.raises((TypeError, ValueError)):
        canonical(wrong)
    first, second, third = leaf_hashes([GOOD, wrong, GOOD])
    assert first == third != second
    assert second == leaf_hashes([wrong])[0]


@given(st.lists(rows, max_size=5))
def test_hashes_come_in_order(several):
    assert leaf_hashes(several) == [leaf_hashes([row])[0] for row in several]


def test_entry_ids_are_uuids_of_version_7_in_the_order_of_time():
    ids = [new_id_and_time()[0] for _ in range(2000)]
    assert len(set(ids)) == 2000
    for text in ids:
        found = uuid.UUID(text)
        assert str(found) == text
        assert (found.version, found.variant) == (7, uuid.RFC_4122)
    assert [i[:13] for i in ids] == sorted(i[:13] for i in ids)


def test_the_time_of_an_entry_is_the_one_in_its_id():
    before = time.time_ns() // 1000
    several = [new_id_and_time() for _ in range(2000)]
    after = time.time_ns() // 1000
    for entry_id, text in several:
        at = dt.datetime.fromisoformat(text)
        assert text == timestamp(at)
        microsecond = (at - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
        assert before <= microsecond <= after
        assert uuid.UUID(entry_id).int >> 80 == microsecond // 1000


def test_details():
    assert details_text(None) is None
    assert details_text({}) is None
    assert details_text({"b": [1, "æ"], "a": None}) == '{"a":null,"b":[1,"æ"]}'


loop = {}
loop["self"] = loop


@pytest.mark.parametrize(
    "details",
    [{"x": object()}, {"x": float("inf")}, {"x": b"a"}, {1: "a", "b": "c"}, loop, {"x": "a\ud800"}, 5, "text"],
)
def test_details_that_are_not_json(details):
    with pytest.raises(ConfigurationError, match=r"JSON|surrogate") as caught:
        details_text(details)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "text", ["user_login", "case-worker-7", "kari@example.no", "2026-11-23T02:39", "12345678901", "å"]
)
def test_text_that_may_stand(text):
    check_text("actor", text)


@pytest.mark.parametrize("text", ["13097248022", "x 130972 48022 y", "(10915596784)", "fnr=130972-48022"])
def test_a_fodselsnummer_may_not(text):
    with pytest.raises(ConfigurationError, match="fødselsnummer") as caught:
        check_text("actor", text)
    assert text not in str(caught.value)


def test_words_that_were_said_before_are_known_and_others_are_refused():
    for _ in range(2):
        assert entry_values("did", None, "case-worker-7", "users", {"n": 1})[2:] == (
            "did", "case-worker-7", None, "users", '{"n":1}',
        )  # fmt: skip
        for words in (("did", NUMBER, "users"), ("did", "a", NUMBER), (NUMBER, "a", "users"), (["did"], "a", "users")):
            with pytest.raises(ConfigurationError):
                entry_values(words[0], None, words[1], words[2], None)
        with pytest.raises(ConfigurationError):
            entry_values("did", NUMBER, None, None, None)
        with pytest.raises(ConfigurationError):
            entry_values("did", None, None, None, {"n": NUMBER})


def test_many_words_are_not_all_remembered():
    for n in range(2000):
        entry_values("did", None, None, f"dataset {n}", {"n": n})
    assert len(SEEN) <= 512


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_gives_other_ids():
    new_id_and_time()
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writes, new_id_and_time()[0].encode())
        os._exit(0)
    os.waitpid(child, 0)
    ids = [os.read(reads, 36).decode(), new_id_and_time()[0]]
    os.close(reads)
    os.close(writes)
    assert ids[0][14:] != ids[1][14:]
