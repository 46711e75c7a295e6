"""Signed notes: text that carries its signatures (https://c2sp.org/signed-note). `Signer.sign_note` makes them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from datavern.contracts.errors import LogTampered
from datavern.crypto.signing import Verifier

__all__ = ["check_text", "open_note"]

_MARK = "\N{EM DASH} "
_MOST_SIGNATURES = 64
_LONGEST = 1 << 20


def check_text(text: str) -> bytes:
    """The text of a note as the bytes that are signed.

    Raises:
        ValueError: it does not end with a newline, or holds another control character or a lone surrogate.
    """
    if not text.endswith("\n"):
        raise ValueError("the text of a note ends with a newline")
    if any(c < " " and c != "\n" for c in text):
        raise ValueError("the text of a note holds no control character but newlines")
    return text.encode()


def open_note(note: str, verifiers: Iterable[str]) -> str:
    """The text of a note that one of the verifiers signed.

    Signatures of unknown keys are passed over; a wrong signature in the name of a known one spoils the note.

    Args:
        note: text, an empty line, and signatures.
        verifiers: the trusted keys, a line each.

    Raises:
        LogTampered: it is no signed note, no trusted key signed it, or a signature does not fit.
        ConfigurationError: a verifier is none.
    """
    known = {(v.name, v.key_id): v for v in map(Verifier.parse, verifiers)}
    text, lines = _split(note)
    body = text.encode()
    signed = False
    for line in lines:
        name, key_id, signature = _signature(line)
        verifier = known.get((name, key_id))
        if verifier is None:
            continue
        if not verifier.valid(body, signature):
            raise LogTampered(None, f"the signature of {name} does not fit the note")
        signed = True
    if not signed:
        raise LogTampered(None, "no trusted key signed the note")
    return text


def _split(note: str) -> tuple[str, list[str]]:
    head, gap, tail = note.rpartition("\n\n")
    text = head + "\n"
    lines = tail.split("\n")
    problem = ""
    if len(note) > _LONGEST or len(lines) > _MOST_SIGNATURES + 1:
        problem = "the note is too long"
    elif not gap or lines.pop() or not lines:
        problem = "not a signed note: text, an empty line and signatures were expected"
    else:
        try:
            check_text(text)
        except ValueError:
            problem = "not a signed note: its text holds what no note may hold"
    if problem:
        raise LogTampered(None, problem)
    return text, lines


def _signature(line: str) -> tuple[str, bytes, bytes]:
    name, space, encoded = line.removeprefix(_MARK).partition(" ")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        blob = b""
    if base64.b64encode(blob).decode() != encoded:  # one spelling for each signature: unused bits are zero
        blob = b""
    if not line.startswith(_MARK) or not space or not name or len(blob) <= 4:  # noqa: PLR2004  (a key id and more)
        raise LogTampered(None, "not a signed note: a line of its signatures is none")
    return name, blob[:4], blob[4:]
