"""The search that says "none" must be one that finds what is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datavern.cli.plaintexts import PIECE, Plaintexts

PEOPLE = ["13097248022", "Åse Østby", "åse.østby@example.no", "Bjørn Ærlig", "O'Hara; --"]


def found(data: bytes, texts: list[str] = PEOPLE) -> set[str]:
    return {text for text, _ in Plaintexts(texts).in_bytes(data)}


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16-le", "utf-16-be", "utf-16"])
@pytest.mark.parametrize("text", PEOPLE)
def test_each_text_is_found_in_each_encoding(text: str, encoding: str):
    noise = os.urandom(7)
    assert text in found(noise + text.encode(encoding) + noise)
    assert text in found(text.encode(encoding))
    assert text in found(text.lower().encode(encoding))


def test_a_part_of_a_text_is_no_hit():
    assert found(b"1309724802 Bj\xc3\xb8rn \xc3\x86rli ase ostby") == set()


def test_texts_that_overlap_are_all_found():
    assert found(b"xabcabcdx", ["abcabc", "bcabcd", "cabcd"]) == {"abcabc", "bcabcd", "cabcd"}


def test_a_text_across_two_pieces_of_a_file_is_found_once_with_its_offset(tmp_path: Path):
    at = PIECE - 4
    file = tmp_path / "big"
    file.write_bytes(b"\0" * at + b"13097248022" + b"\0" * 100)
    assert [(h.text, h.file, h.offset) for h in Plaintexts(PEOPLE).in_file(file)] == [("13097248022", file, at)]


def test_a_folder_is_searched_to_its_depths(tmp_path: Path):
    deep = tmp_path / "a" / ".hidden"
    deep.mkdir(parents=True)
    (deep / "f").write_text("… 13097248022 …", encoding="utf-8")
    (tmp_path / "other").write_bytes(b"nothing")
    sizes: list[int] = []
    hits, files = Plaintexts(PEOPLE).in_folder(tmp_path, seen=sizes.append)
    assert [h.file for h in hits] == [deep / "f"]
    assert files == [deep / "f", tmp_path / "other"]
    assert sum(sizes) == sum(f.stat().st_size for f in files)


def test_a_text_that_chance_would_find_is_refused():
    with pytest.raises(ValueError, match="fewer than 4 characters"):
        Plaintexts(["Liv"])


def test_nothing_to_look_for_finds_nothing(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"anything")
    assert Plaintexts([]).in_folder(tmp_path) == ([], [tmp_path / "f"])


@given(st.lists(st.text(min_size=4, max_size=12), min_size=1, max_size=8), st.binary(max_size=60), st.data())
def test_it_finds_what_a_plain_search_finds(texts: list[str], noise: bytes, data: st.DataObject):
    texts = [t for t in texts if t.isprintable()]
    if not texts:
        return
    cut = data.draw(st.integers(0, len(noise)))
    planted = data.draw(st.sampled_from(texts))
    haystack = noise[:cut] + planted.encode() + noise[cut:]
    assert found(haystack, texts) >= {t for t in texts if t.encode() in haystack}
