"""An entry: its columns, its canonical bytes and its leaf hash (FORMAT.md section 1)."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from hashlib import sha256
from json.encoder import encode_basestring  # RFC 8785 escapes a string just so; written in C where there is a C encoder
from typing import Any, Final

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.identity import is_fodselsnummer
from datavern.contracts.json_text import encoder
from datavern.contracts.values import Row, timestamp_of

__all__ = [
    "COLUMNS",
    "GIVEN",
    "canonical",
    "check_text",
    "check_words",
    "details_text",
    "leaf_hashes",
    "new_id_and_time",
]

COLUMNS: Final = ("seq", "entry_id", "era", "stamp", "at", "action", "actor", "handle", "dataset", "details")
"""In the order of the canonical form, which is the order that every statement selects them in."""
GIVEN: Final = tuple(name for name in COLUMNS if name not in {"seq", "era", "stamp"})
"""Those that the client gives; the database fills in the others."""

_quote: Callable[[str], str] = encode_basestring
_json = encoder(ascii_only=False, separators=(",", ":"), allow_nan=False)
_PREFIX: Final = "\0\1"  # RFC 6962's mark of a leaf, and the version of the form
# Eleven digits as a word of their own: within a random handle or id (hexadecimal) they are there by chance.
_ELEVEN: Final = re.compile(r"(?<![0-9A-Za-z])[0-9]{6}[ -]?[0-9]{5}(?![0-9A-Za-z])")
_DRAWN: Final = 64
_noise: list[str] = []
_now: tuple[int, str, str] = (0, "", "")
_LAST: Final = tuple(f"{n:03d}Z" for n in range(1000))
"""How a time ends, for each microsecond of a millisecond."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_noise.clear)  # or both processes would give the same digits
_MOST_SEEN: Final = 512
SEEN: Final[set[Hashable]] = set()
"""Texts, and words of an entry, that were checked: every one of them may stand in the log."""
_UNREADABLE: Final = b"\0\xff"  # begins no canonical form


def canonical(row: Iterable[Any]) -> bytes:
    """The canonical bytes of an entry, given its ten columns in order.

    Raises:
        TypeError: a column holds what no entry holds (bytes in place of text).
        UnicodeEncodeError: text that is not valid Unicode.
    """
    return _form(row)[1:].encode()


def _form(row: Iterable[Any]) -> str:
    seq, entry_id, era, stamp, at, action, actor, handle, dataset, details = row
    q = _quote
    return (
        f"{_PREFIX}[{seq:d},{q(entry_id)},{era:d},{stamp:d},{q(at)},{q(action)},"
        f"{'null' if actor is None else q(actor)},{'null' if handle is None else q(handle)},"
        f"{'null' if dataset is None else q(dataset)},{'null' if details is None else q(details)}]"
    )


def leaf_hashes(rows: Iterable[Row]) -> list[bytes]:
    """The leaf hash of each entry. What has no canonical form gets a hash that no entry has."""
    rows = list(rows)
    form = _form
    try:
        return [sha256(form(row).encode()).digest() for row in rows]
    except (TypeError, ValueError):
        return [_leaf_hash(row) for row in rows]


def _leaf_hash(row: Row) -> bytes:
    try:
        return sha256(_form(row).encode()).digest()
    except (TypeError, ValueError):
        return sha256(_UNREADABLE + repr(tuple(row)).encode("utf-8", "surrogatepass")).digest()


def new_id_and_time() -> tuple[str, str]:
    """An entry's id, and the time that is in it as `timestamp` writes it, by one look at the clock.

    The id is a UUID of version 7 (RFC 9562): ordered by time, so that the index grows at its end; 74 random bits.
    """
    global _now  # noqa: PLW0603  (the texts of the millisecond that it is now: writers in a hurry share it)
    millisecond, microsecond = divmod(time.time_ns() // 1000, 1000)
    known, digits, text = _now
    if known != millisecond:
        high = f"{millisecond:012x}"
        digits = f"{high[:8]}-{high[8:]}-"
        text = timestamp_of(millisecond * 1000)[:-4]
        _now = millisecond, digits, text
    try:
        noise = _noise.pop()
    except IndexError:
        noise = _drawn()
    return digits + noise, text + _LAST[microsecond]


def _drawn() -> str:
    """The random digits of an id, version and variant among them; those of the next ids are put by.

    One system call for many: it is what an id costs.
    """
    noise = os.urandom(10 * _DRAWN)
    drawn = []
    for at in range(0, len(noise), 10):
        random = noise[at : at + 10].hex()
        drawn.append(f"7{random[:3]}-{'89ab'[noise[at + 9] & 3]}{random[3:6]}-{random[6:18]}")
    _noise.extend(drawn[1:])
    return drawn[0]


def details_text(details: Mapping[str, Any] | None) -> str | None:
    """`details` as the column holds them: JSON with sorted keys; None for nothing.

    Raises:
        ConfigurationError: not JSON, or a fødselsnummer stands in it: the log never holds personal data.
    """
    if not details:
        return None
    try:
        plain = details if type(details) is dict else dict(details)
        text = _json(plain)
    except (TypeError, ValueError, RecursionError):
        text = ""
    if not text:
        raise ConfigurationError("audit details must be a JSON object: text, numbers, booleans, lists and objects")
    if text not in SEEN:
        check_text("details", text)
        remember(text)
    return text


def remember(what: Hashable) -> None:
    if len(SEEN) >= _MOST_SEEN:
        SEEN.clear()
    SEEN.add(what)


def check_words(action: str, actor: str | None, dataset: str | None) -> None:
    """Refuse what these columns may not hold: see `check_text`. Those that may stand there are put into `SEEN`."""
    if action is None or (isinstance(action, str) and not action.strip()):
        raise ConfigurationError("audit action: missing; say what was done, such as user_login")
    check_text("action", action)
    check_text("actor", actor)
    check_text("dataset", dataset)
    remember((action, actor, dataset))


def _is_plain(text: str) -> bool:
    """One word that is not eleven digits long, as most handles and ids are; or nothing that looks like a number."""
    if text.isalnum():
        return len(text) != 11  # noqa: PLR2004  (the digits of a fødselsnummer)
    return "\0" not in text and _ELEVEN.search(text) is None


def check_text(name: str, text: Any) -> None:
    """Refuse what no column of the log may hold.

    Raises:
        ConfigurationError: not text, a NUL, a lone surrogate, or a fødselsnummer. The text is not quoted.
    """
    if text is None or (type(text) is str and text.isascii() and (text.isidentifier() or _is_plain(text))):
        return
    problem = ""
    if not isinstance(text, str):
        problem = f"expected text, not {type(text).__name__}"
    elif "\0" in text:
        problem = "holds a NUL character, which not every engine can keep"
    elif any(is_fodselsnummer(match) for match in _ELEVEN.findall(text)):
        problem = (
            "holds a fødselsnummer: the audit log keeps names of fields and handles of people, never the data itself"
        )
    elif not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        problem = "holds half a surrogate pair, which is not valid Unicode"
    if problem:
        raise ConfigurationError(f"audit {name}: {problem}")
