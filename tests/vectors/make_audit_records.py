"""Writes audit-records-1.json from src/datavern/audit/FORMAT.md (4, 8 to 10), with primitives alone.

What it wrote is kept for ever, so it refuses to write over a file that is there.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from make_audit import COLUMNS, KEY, NAME, ORIGIN, ROWS, b64, canonical, root, sha256

TARGET = Path(__file__).with_name("audit-records-1.json")


def note(text: str) -> str:
    """A C2SP signed note."""
    public = b"\x01" + KEY.public_key().public_bytes_raw()
    key_id = sha256(NAME.encode() + b"\n" + public)[:4]
    return f"{text}\n\N{EM DASH} {NAME} {b64(key_id + KEY.sign(text.encode()))}\n"


def frontier(leaves: list[bytes]) -> list[bytes]:
    """Section 4: the roots of the perfect subtrees, from the largest to the smallest."""
    nodes, at = [], 0
    for height in reversed(range(len(leaves).bit_length())):
        if len(leaves) >> height & 1:
            nodes.append(root(leaves[at : at + (1 << height)]))
            at += 1 << height
    return nodes


def main() -> None:
    """Write the file."""
    if TARGET.exists():
        sys.exit(f"{TARGET.name} is there: what was written once is kept")
    leaves = [sha256(b"\x00" + canonical(row)) for row in ROWS]
    end = note(f"{ORIGIN}\n5\n{b64(root(leaves))}\ntime 2026-11-23T02:41:05.000000Z\n")
    exports, records = [], []
    for cut in range(6):
        lines: list[dict[str, object]] = []
        nodes = frontier(leaves[:cut])
        if cut:
            record = note(f"{ORIGIN}\ntruncated\n{cut}\n{b64(root(leaves[:cut]))}\ntime 2031-01-01T02:40:00.000000Z\n")
            records.append({"size": cut, "root": root(leaves[:cut]).hex(), "note": record})
            encoded = [b64(node) for node in nodes]
            lines.append({"origin": ORIGIN, "truncated": cut, "frontier": encoded, "note": record})
        for position in range(cut, 5):
            entry = dict(zip(COLUMNS, ROWS[position], strict=True))
            lines.append({"origin": ORIGIN, "position": position, **entry})
        exports.append({"frontier": b"".join(nodes).hex(), "lines": [*lines, {"origin": ORIGIN, "checkpoint": end}]})
    whole = {
        "origin": ORIGIN,
        "records": records,
        "exports": exports,
        "published": {
            "origin": "datavern/0123æ/main database",
            "name": "datavern-0123-main-database-"
            + hashlib.sha256("datavern/0123æ/main database".encode()).hexdigest()[:8],
        },
    }
    TARGET.write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
