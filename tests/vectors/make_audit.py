"""Writes audit-1.json from src/datavern/audit/FORMAT.md, with primitives alone and without Datavern's own code.

What it wrote is kept for ever, so it refuses to write over a file that is there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

TARGET = Path(__file__).with_name("audit-1.json")
NAME = "datavern/vectors"
ORIGIN = "datavern/vectors/main"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(0xC0, 0xE0)))
COLUMNS = ("seq", "entry_id", "era", "stamp", "at", "action", "actor", "handle", "dataset", "details")
ID = "0191e0a4-7c2f-7b3a-9c51-2f6d8f1e0a0"
ROWS = [
    (1, ID + "1", 1, 0, "2026-11-23T02:39:51.123456Z", "user_login", "case-worker-7", None, None, None),
    (2, ID + "2", 1, 0, "2026-11-23T02:39:51.200000Z", "inserted", None, "ab" * 16, "users", '{"fields":["name"]}'),
    (7, ID + "3", 1, 7890123, "2026-11-23T02:39:52.000000Z", "æøå 🌲 čđŋšŧž", None, None, None, '{"q":"\\"\\\\"}'),
    (8, ID + "4", 1, 7890123, "2026-11-23T02:39:52.000001Z", "\t\n\r\b\f\x01\x1f\x7f\u2028/", "", "", "", ""),
    (5, ID + "5", 2, 2**64 - 1, "2026-11-23T02:40:00.000000Z", "case_closed", "null", "null", "null", "null"),
]


def sha256(data: bytes) -> bytes:
    """FIPS 180-4."""
    return hashlib.sha256(data).digest()


def canonical(row: tuple[object, ...]) -> bytes:
    """Section 1."""
    return b"\x01" + json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()


def split(n: int) -> int:
    """The largest power of two below n."""
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256(b"")
    k = split(len(leaves))
    return sha256(b"\x01" + root(leaves[:k]) + root(leaves[k:]))


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962 section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), root(leaves[k:])]
    return [*path(m - k, leaves[k:]), root(leaves[:k])]


def b64(data: bytes) -> str:
    """Standard base64."""
    return base64.b64encode(data).decode()


def main() -> None:
    """Write the file."""
    if TARGET.exists():
        sys.exit(f"{TARGET.name} is there: what was written once is kept")
    public = b"\x01" + KEY.public_key().public_bytes_raw()
    key_id = sha256(NAME.encode() + b"\n" + public)[:4]
    leaves = [sha256(b"\x00" + canonical(row)) for row in ROWS]
    checkpoints, proofs = [], []
    for size in range(len(ROWS) + 1):
        top = root(leaves[:size])
        text = f"{ORIGIN}\n{size}\n{b64(top)}\ntime 2026-11-23T02:41:0{size}.000000Z\n"
        note = f"{text}\n\N{EM DASH} {NAME} {b64(key_id + KEY.sign(text.encode()))}\n"
        checkpoints.append({"size": size, "root": top.hex(), "note": note})
        proofs += [
            {
                "format": "datavern-audit-proof",
                "version": 1,
                "entry": dict(zip(COLUMNS, ROWS[position], strict=True)),
                "position": position,
                "path": [b64(node) for node in path(position, leaves[:size])],
                "checkpoint": note,
            }
            for position in range(size)
        ]
    whole = {
        "comment": "The audit log, format version 1: these verify for ever.",
        "verifier": f"{NAME}+{key_id.hex()}+{b64(public)}",
        "origin": ORIGIN,
        "entries": [
            {"columns": dict(zip(COLUMNS, row, strict=True)), "canonical": canonical(row).hex(), "leaf": leaf.hex()}
            for row, leaf in zip(ROWS, leaves, strict=True)
        ],
        "checkpoints": checkpoints,
        "proofs": proofs,
    }
    TARGET.write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
