"""Verify a proof, an exported log, or a certificate, with nothing but the files and the public key.

    datavern-verify proof.json --verifier verifier.txt --checkpoint kept.txt
    datavern-verify log.jsonl --verifier verifier.txt --checkpoint kept.txt
    datavern-verify certificate.json --verifier verifier.txt --checkpoint kept.txt

It shares no code with what made the proof, so that a mistake there is not repeated here, and this file alone is enough:
an auditor may copy it, read it, and run ``python offline.py …``. It needs Python 3.11 and the package `cryptography`,
which checks the signatures (Ed25519). What is verified is written down in FORMAT.md, sections 1 and 4 to 9.

`--checkpoint` is the copy of a checkpoint that the auditor has kept: without it, that the proof's own checkpoint is one
of the log that others saw is not checked, and the answer says so.
"""

from __future__ import annotations

import argparse
import base64
import datetime as dt
import html
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["NotValid", "main", "verify_certificate", "verify_export", "verify_proof"]

COLUMNS = ("seq", "entry_id", "era", "stamp", "at", "action", "actor", "handle", "dataset", "details")
ED25519 = 1
KEY_ID = 4
HASH = 32
LONGEST = 1 << 26  # characters of a line of an export, or of a file that is no export: 64 million
NUMBER = re.compile("0|[1-9][0-9]{0,18}")
PLAIN = b"datavern-signature\0\1datavern-certificate\0\1"  # what stands before a certificate when it is signed
ENTRIES = ("erased", "erasure_completed")
PAGE = re.compile(r'<pre id="certificate" lang="en">(.*?)</pre>', re.DOTALL)


class NotValid(Exception):
    """What was to be verified is not what was sealed, or is no such thing."""


@dataclass(frozen=True)
class Head:
    """A checkpoint whose signature fits."""

    origin: str
    size: int
    root: bytes
    at: str


# ---- signatures (c2sp.org/signed-note) and checkpoints (c2sp.org/tlog-checkpoint) ------------------------------------


def signed_text(note: Any, verifiers: str) -> list[str]:
    """The lines of a note that one of the verifiers signed."""
    keys = [key for line in verifiers.splitlines() if line.strip() for key in [_key(line.strip())]]
    text, gap, signatures = note.rpartition("\n\n") if isinstance(note, str) else ("", "", "")
    if not gap:
        raise NotValid("a signed note was expected")
    try:
        body = f"{text}\n".encode()
    except UnicodeEncodeError:
        raise NotValid("a signed note is not valid Unicode") from None
    signed = False
    for line in signatures.splitlines():
        mark, name, blob = (*line.split(" "), "", "")[:3]
        raw = _decoded(blob)
        if mark != "\N{EM DASH}" or len(raw) <= KEY_ID:
            raise NotValid("a signed note was expected: a line of its signatures is none")
        for known, key_id, key in keys:
            if (known, key_id) == (name, raw[:KEY_ID]):
                try:
                    key.verify(raw[KEY_ID:], body)
                except InvalidSignature:
                    raise NotValid(f"the signature of {name} does not fit") from None
                signed = True
    if not signed:
        raise NotValid("no key of the verifier signed it")
    return text.split("\n")


def _key(line: str) -> tuple[str, bytes, Ed25519PublicKey]:
    """Name, key id and key of ``name+hex(key id)+base64(0x01 || public key)``."""
    name, key_id, encoded = ([*line.split("+", 2), "", ""])[:3]
    raw = _decoded(encoded)
    if not name or len(raw) != 33 or raw[0] != ED25519:  # noqa: PLR2004  (the algorithm and 32 bytes)
        raise NotValid("the verifier is no public key: name+id+key was expected")
    if sha256(name.encode() + b"\n" + raw).digest()[:KEY_ID].hex() != key_id:
        raise NotValid("the verifier is damaged: its key id does not fit its key")
    return name, bytes.fromhex(key_id), Ed25519PublicKey.from_public_bytes(raw[1:])


def checkpoint(note: Any, verifiers: str) -> Head:
    """A checkpoint, once its signature was checked."""
    lines = signed_text(note, verifiers)
    if len(lines) < 3 or not NUMBER.fullmatch(lines[1]) or len(_decoded(lines[2])) != HASH:  # noqa: PLR2004  (three lines)
        raise NotValid("a checkpoint was expected: origin, size and root")
    at = next((line[5:] for line in lines[3:] if line.startswith("time ")), "")
    return Head(lines[0], int(lines[1]), _decoded(lines[2]), at)


def kept_checkpoints(text: str, verifiers: str) -> list[Head]:
    """The checkpoints of a file: notes, with an empty line between them."""
    notes, lines = list[str](), list[str]()
    for line in [*text.replace("\r\n", "\n").split("\n"), "."]:
        if lines and lines[-1].startswith("\N{EM DASH} ") and not line.startswith("\N{EM DASH} "):
            notes.append("\n".join(lines).lstrip("\n") + "\n")
            lines = []
        lines.append(line)
    return [checkpoint(note, verifiers) for note in notes]


def kept_checkpoint(text: str, verifiers: str, origin: str) -> Head:
    """The checkpoint of that log among those of a file."""
    found = [head for head in kept_checkpoints(text, verifiers) if head.origin == origin]
    if not found:
        raise NotValid(f"the checkpoint that was kept is not of this log, {origin}")
    return max(found, key=lambda head: head.size)


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except ValueError:
        return b""


def _hashes(found: Any) -> list[bytes]:
    """A list of hashes in base64."""
    decoded = [_decoded(one) for one in found] if isinstance(found, list) else [b""]
    if any(len(one) != HASH for one in decoded):
        raise NotValid("what should be a list of hashes is none")
    return decoded


# ---- the tree (RFC 6962 and RFC 9162) --------------------------------------------------------------------------------


def leaf_of(entry: dict[str, Any]) -> bytes:
    """The leaf hash of an entry: H(0x00 || 0x01 || its ten columns as RFC 8785 writes them)."""
    row = [entry.get(name) for name in COLUMNS]
    numbers, texts = [row[0], row[2], row[3]], [row[1], *row[4:]]
    if not all(type(n) is int for n in numbers) or not all(t is None or type(t) is str for t in texts):
        raise NotValid("a column of the entry holds what no entry holds")
    form = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    try:
        return sha256(b"\0\1" + form.encode()).digest()
    except UnicodeEncodeError:
        raise NotValid("a column of the entry is not valid Unicode") from None


def node(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return sha256(b"\1" + left + right).digest()


def root_by_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that an audit path leads to (RFC 9162 section 2.1.3.2)."""
    at, last, found = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise NotValid("the proof is longer than its tree is high")
        if at % 2 or at == last:
            found = node(sibling, found)
            while at % 2 == 0 and at:
                at, last = at // 2, last // 2
        else:
            found = node(found, sibling)
        at, last = at // 2, last // 2
    if last:
        raise NotValid("the proof is shorter than its tree is high")
    return found


class Tree:
    """A tree that grows at its right edge: the roots of its perfect subtrees, by height."""

    def __init__(self, size: int = 0, nodes: Sequence[bytes] = ()) -> None:
        heights = [h for h in reversed(range(size.bit_length())) if size >> h & 1]
        if len(heights) != len(nodes):
            raise NotValid("what stands for the removed entries does not fit their number")
        self.size = size
        self._nodes = dict(zip(heights, nodes, strict=True))

    def append(self, leaf: bytes) -> None:
        """Append a leaf hash."""
        height = 0
        while self.size >> height & 1:
            leaf = node(self._nodes.pop(height), leaf)
            height += 1
        self._nodes[height] = leaf
        self.size += 1

    def root(self) -> bytes:
        """Its root."""
        found = None
        for height in sorted(self._nodes):
            found = self._nodes[height] if found is None else node(self._nodes[height], found)
        return sha256().digest() if found is None else found


# ---- what is verified ------------------------------------------------------------------------------------------------


def verify_proof(text: str, verifiers: str, kept: str | None = None) -> str:
    """Verify the proof of one entry; what it says.

    Args:
        text: the proof's file.
        verifiers: the public key, or several, a line each.
        kept: a checkpoint that was kept, or several.

    Raises:
        NotValid: it is not.
    """
    try:
        found = json.loads(text)
        entry, position, note, path = found["entry"], found["position"], found["checkpoint"], found["path"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NotValid("the file is no proof") from None
    if found.get("format") != "datavern-audit-proof" or found.get("version") != 1:
        raise NotValid("the file is no proof, or one of a later version")
    if not isinstance(entry, dict) or set(entry) != set(COLUMNS) or type(position) is not int:
        raise NotValid("the proof's entry is none")
    head = checkpoint(note, verifiers)
    if not 0 <= position < head.size:
        raise NotValid("the checkpoint does not cover the entry")
    if root_by_path(leaf_of(entry), position, head.size, _hashes(path)) != head.root:
        raise NotValid("the entry is not the one that the checkpoint covers")
    if kept is not None:
        _same(head, kept_checkpoint(kept, verifiers, head.origin))
    compared = "the checkpoint that was kept" if kept is not None else "its own checkpoint (none that was kept)"
    return f"VALID: entry {position} of {head.origin}, sealed by {head.at}, is in {compared}, of {head.size} entries"


def _same(head: Head, kept: Head) -> None:
    if (head.size, head.root) == (kept.size, kept.root):
        return
    if head.size == kept.size:
        raise NotValid(f"another log: the checkpoint that was kept has another root for the same {head.size} entries")
    raise NotValid(
        f"the proof is of {head.size} entries, and the checkpoint that was kept of {kept.size}: ask for the proof in "
        "that one (datavern audit prove --within)"
    )


def verify_export(lines: Iterator[str], verifiers: str, kept: str | None = None) -> list[str]:
    """Verify exported logs, in constant memory; what each says.

    Args:
        lines: of the file.
        verifiers: the public key, or several, a line each.
        kept: a checkpoint that was kept, or several: that of each log in the file must be covered, and a log that is
            not in the file is told of.

    Raises:
        NotValid: an entry is not what was sealed, or the file is no export.
    """
    answers: list[str] = []
    log: _Log | None = None
    missing = {head.origin for head in kept_checkpoints(kept or "", verifiers)}
    for number, line in enumerate(lines, 1):
        try:
            found = json.loads(line)
            origin = found["origin"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise NotValid(f"line {number} is none of an exported log") from None
        if log is None:
            log = _Log(origin, verifiers, kept)
        if origin != log.origin:
            raise NotValid(f"line {number}: {log.origin} has no checkpoint at its end: the file was cut, or mixed up")
        if "checkpoint" in found:
            answers.append(log.end(found["checkpoint"]))
            missing.discard(log.origin)
            log = None
        elif "truncated" in found:
            log.begin(found, number)
        else:
            log.entry(found, number)
    if log is not None:
        raise NotValid(f"{log.origin} has no checkpoint at its end: the file was cut")
    if not answers:
        raise NotValid("the file holds no exported log")
    return answers + [
        f"NOT CHECKED: {origin}: a checkpoint of it was kept, and the file does not hold that log"
        for origin in sorted(missing)
    ]


class _Log:
    """One log of an export, while it is read."""

    def __init__(self, origin: str, verifiers: str, kept: str | None) -> None:
        self.origin = origin
        self._verifiers = verifiers
        self._kept = None if kept is None else kept_checkpoint(kept, verifiers, origin)
        self._tree = Tree()
        self._removed = 0
        self._compared = self._kept is not None and self._kept.size == 0

    def begin(self, found: dict[str, Any], number: int) -> None:
        """Take the record of what was removed."""
        lines = signed_text(found.get("note"), self._verifiers)
        size, nodes = found.get("truncated"), _hashes(found.get("frontier"))
        if type(size) is not int or self._tree.size or lines[:3] != [self.origin, "truncated", str(size)]:
            raise NotValid(f"line {number} is no record of what was removed")
        self._tree, self._removed = Tree(size, nodes), size
        if lines[3:4] != [base64.b64encode(self._tree.root()).decode()]:
            raise NotValid(f"line {number}: what stands for the removed entries is not what was signed")
        self._compare()

    def entry(self, found: dict[str, Any], number: int) -> None:
        """Take an entry."""
        if found.get("position") != self._tree.size:
            raise NotValid(f"line {number}: entry {self._tree.size} was expected: one is missing, or out of its place")
        self._tree.append(leaf_of(found))
        self._compare()

    def _compare(self) -> None:
        kept = self._kept
        if kept is not None and kept.size == self._tree.size:
            self._compared = True
            if self._tree.root() != kept.root:
                raise NotValid(f"the first {kept.size} entries are not those that the kept checkpoint covers")

    def end(self, note: Any) -> str:
        """Take the checkpoint; what was verified."""
        head = checkpoint(note, self._verifiers)
        if head.origin != self.origin or (head.size, head.root) != (self._tree.size, self._tree.root()):
            raise NotValid(f"{self.origin}: the entries are not those that the checkpoint covers")
        if self._kept is not None and self._kept.size > head.size:
            raise NotValid(f"{self.origin}: the kept checkpoint covers {self._kept.size} entries: the log was set back")
        if self._kept is not None and not self._compared and self._kept.size > self._removed:
            raise NotValid(f"{self.origin}: the kept checkpoint was not reached")
        removed = f", {self._removed} of them removed when their retention ended" if self._removed else ""
        against = "" if self._compared else " (no kept checkpoint was compared)"
        return f"VALID: {self.origin}: {head.size} entries{removed}, sealed by {head.at}{against}"


# ---- certificates: what was done with a person's data ----------------------------------------------------------------


def verify_certificate(text: str, verifiers: str, kept: str | None = None) -> tuple[list[str], list[str]]:
    """Verify a certificate: what was checked of it, and what was not.

    Args:
        text: the file: JSON, or the page with the JSON in it.
        verifiers: the public key, or several, a line each.
        kept: a checkpoint that was kept, or several.

    Raises:
        NotValid: it is not what was signed, contradicts itself, or a proof in it does not hold.
    """
    page = PAGE.search(text)
    try:
        found = json.loads(text if page is None else html.unescape(page[1]))
        body, signature, proofs = found["certificate"], found["signature"]["value"], found.get("proofs", [])
        statement, version = body["statement"], (body["format"], body["version"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NotValid("the file is no certificate") from None
    if version != ("datavern-certificate", 1) or not isinstance(proofs, list):
        raise NotValid("the file is no certificate, or one of a later version")
    name = _signed(body, signature, verifiers)
    organisation = body.get("organisation") or "no organisation named"
    checked = [f"the signature: {name} ({organisation}) signed exactly this, as {statement}"]
    unchecked = ["whether the databases hold what it says: that takes the databases"]
    if page is not None:
        unchecked.append("whether the page says what the signed file in it says: read the file, not the page")
    if statement == "erased":
        _erased(body)
        more = _proven(body, proofs, verifiers, kept)
        checked += more[0]
        unchecked += more[1]
        unchecked.append("whether old backups still open: the statement shredded says that, once it holds")
    elif statement == "shredded":
        _shredded(body)
        checked.append("its order: the keys were destroyed, then the rotation began, and the old epoch key is gone")
        unchecked.append("whether every copy of the epoch key was where the organisation says")
    else:
        unchecked.append(f"what it states: this version knows no statement {statement}")
    return checked, unchecked


def _signed(body: Any, signature: Any, verifiers: str) -> str:
    """The name of the key that signed it."""
    keys = [_key(line.strip()) for line in verifiers.splitlines() if line.strip()]
    try:
        form = json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        data = PLAIN + form.encode()
    except (UnicodeEncodeError, RecursionError):
        raise NotValid("it is not valid Unicode, or nested too deeply") from None
    for name, _, key in keys:
        try:
            key.verify(_decoded(signature), data)
        except InvalidSignature:
            continue
        return name
    raise NotValid("no key of the verifier signed this, or it was changed since")


def _erased(body: dict[str, Any]) -> None:
    late = [key for key in body.get("keys", []) if _at(key.get("at")) > _at(body.get("completed"))]
    if late:
        raise NotValid("it contradicts itself: a key was destroyed after it was completed")


def _shredded(body: dict[str, Any]) -> None:
    rotation = body.get("rotation")
    if not isinstance(rotation, dict):
        raise NotValid("it names no rotation of the keys, and rests on one")
    times = [_at(rotation.get(name)) for name in ("started", "destroyed", "gone")]
    ends = [*(_at(key.get("at")) for key in body.get("keys", [])), *times[:1]]
    if times != sorted(times) or max(ends) > times[0] or _at(body.get("since")) < times[2]:
        raise NotValid("it contradicts itself: the order of the keys' end, the rotation and its end is not kept")


def _at(text: Any) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(str(text))
    except ValueError:
        raise NotValid("a time in it is none") from None
    if moment.tzinfo is None:
        raise NotValid("a time in it has no time zone")
    return moment


def _proven(body: dict[str, Any], proofs: list[Any], verifiers: str, kept: str | None) -> tuple[list[str], list[str]]:
    """Its entries in the sealed log: what was checked, and what was not."""
    stores = {s["audit"]: s for s in body.get("stores", []) if isinstance(s, dict) and s.get("audit")}
    expected = {*stores, body.get("audit")} - {None}
    answers: dict[str, str] = {}
    for proof in proofs:
        text = json.dumps(proof, ensure_ascii=False)
        answer = verify_proof(text, verifiers, kept)
        entry = proof["entry"]
        store = stores.get(entry["entry_id"], {})
        try:
            details = json.loads(entry["details"] or "{}")
        except (ValueError, RecursionError):
            details = {}
        if not isinstance(details, dict):
            details = {}
        if entry["entry_id"] not in expected or entry["action"] not in ENTRIES:
            raise NotValid("a proof in it is of another entry")
        same = all(details.get(name) == store.get(name) for name in ("policy", "found", "done", "left"))
        if details.get("request") != body.get("request") or (store and not same):
            raise NotValid("an entry of the log says something else than the certificate does")
        if entry["dataset"] != store.get("dataset"):
            raise NotValid("a proof in it is of another dataset's entry")
        answers[entry["entry_id"]] = answer.removeprefix("VALID: ")
    checked = [f"the audit log: {answer}" for answer in answers.values()]
    missing = len(expected) - len(answers)
    unchecked = []
    if missing:
        unchecked.append(
            f"{missing} of its {len(expected)} audit entries: no proof is in the file (the log was not sealed then; "
            "the organisation can give it again, with them)"
        )
    if answers and kept is None:
        unchecked.append("whether others saw the same log: that takes a checkpoint that was kept (--checkpoint)")
    return checked, unchecked


def _is_certificate(start: str) -> bool:
    """Whether a file that begins so is a certificate, or the page of one."""
    return start.lstrip()[:9].lower() == "<!doctype" or '"certificate"' in start[:64]


def _lines(file: TextIO) -> Iterator[str]:
    while line := file.readline(LONGEST):
        if len(line) == LONGEST:
            raise NotValid("a line of the file is longer than those of an exported log")
        yield line


def _whole(file: TextIO) -> str:
    text = file.read(LONGEST)
    if len(text) == LONGEST:
        raise NotValid("the file is longer than a proof or a certificate")
    return text


def _shown(text: str) -> str:
    """A line of the answer: what a file says of itself makes no lines of its own, and commands no terminal."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    encoding = sys.stdout.encoding or "utf-8"
    return plain.encode(encoding, "backslashreplace").decode(encoding)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0 valid, 1 not valid, 2 a file cannot be read."""
    parser = argparse.ArgumentParser(
        prog="datavern-verify", description="Verify a proof, an exported audit log, or a certificate, offline."
    )
    parser.add_argument("file", help="a proof or a certificate (JSON, or its page), or an exported log (JSON lines)")
    parser.add_argument("--verifier", required=True, help="the public key: verifier.txt")
    parser.add_argument("--checkpoint", help="a checkpoint that you have kept")
    given = parser.parse_args(arguments)
    try:
        verifiers = Path(given.verifier).read_text(encoding="utf-8")
        kept = None if given.checkpoint is None else Path(given.checkpoint).read_text(encoding="utf-8")
        with Path(given.file).open(encoding="utf-8") as file:
            first = file.read(1 << 16)
            file.seek(0)
            if '"datavern-audit-proof"' in first.partition("\n")[0] + first[:200]:
                answers = [verify_proof(_whole(file), verifiers, kept)]
            elif _is_certificate(first):
                checked, unchecked = verify_certificate(_whole(file), verifiers, kept)
                answers = [f"VALID: {line}" for line in checked] + [f"NOT CHECKED: {line}" for line in unchecked]
            else:
                answers = verify_export(_lines(file), verifiers, kept)
    except NotValid as error:
        print(_shown(f"NOT VALID: {error}"))  # noqa: T201  (a command)
        return 1
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        print(f"cannot be read: {reason}", file=sys.stderr)  # noqa: T201  (a command)
        return 2
    print("\n".join(map(_shown, answers)))  # noqa: T201  (a command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
