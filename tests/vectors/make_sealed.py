"""Writes sealed-1.json from src/datavern/crypto/FORMAT.md (5, 7, 9 to 12), with primitives alone.

What it wrote is kept for ever, so it refuses to write over a file that is there.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from make_crypto import KEY, KEY_ID, ROW_TAG, SUBJECT, block, xaes

TARGET = Path(__file__).with_name("sealed-1.json")

DATASET, MOMENT = "sessions", 1_795_000_000_123
STREAM_KEY = bytes(range(0x70, 0x90))
SEGMENT = 262_144


def text(value: str) -> bytes:
    return block(value.encode())


def gcm(form: int, at: int, plain: bytes, associated: bytes) -> bytes:
    """Nonce, ciphertext and tag: under a subject's key in the odd forms, under a dataset's in the even ones."""
    if form % 2:
        nonce = at.to_bytes(12, "big")
        return nonce + AESGCM(KEY).encrypt(nonce, plain, associated)
    nonce = at.to_bytes(24, "big")
    return nonce + xaes(KEY, nonce, plain, associated)


def tag_of(form: int) -> bytes:
    return SUBJECT if form % 2 else b""


def retained() -> dict[str, str]:
    """Section 5: a row that the law keeps, under the retention key of its dataset."""
    dataset, head = "users#retention", b"\x02" + KEY_ID
    tag = hashlib.sha256(b"retained\x00" + ROW_TAG + SUBJECT).digest()[:16]
    plain = b"\x01" + "Åse".encode()
    sealed = head + gcm(2, 1, plain, text(dataset) + text("name") + head + tag)
    return {"dataset": dataset, "field": "name", "value": "Åse", "tag": tag.hex(), "bytes": sealed.hex()}


def parts() -> dict[str, object]:
    """Section 7: indexes of a beginning and of parts, of a name."""
    normal = "åse bjørn"
    begin = b"\x02" + (3).to_bytes(2, "big") + text("name") + normal[:3].encode()
    pieces = {normal[at : at + 3] for at in range(len(normal) - 2)}
    grams = sorted(
        hmac.digest(KEY, b"\x03" + (3).to_bytes(2, "big") + text("name") + piece.encode(), "sha256")[:6].hex()
        for piece in pieces
    )
    return {
        "field": "name",
        "kind": "name",
        "value": " Åse  BJØRN",
        "n": 3,
        "beginning": "02" + hmac.digest(KEY, begin, "sha256").hex(),
        "parts": " ".join(grams),
    }


def values() -> list[dict[str, object]]:
    """Section 9."""
    found: list[dict[str, object]] = []
    roles = (("value", "user:session:å", ""), ("message", "channel", ""), ("entry", "stream", "field"))
    for at, (role, name, part) in enumerate(roles):
        for form in (3, 4):
            head = bytes([form]) + KEY_ID + MOMENT.to_bytes(8, "big")
            named = len(name.encode()).to_bytes(4, "big") + name.encode() + part.encode()
            associated = text(DATASET) + text(role) + head + block(tag_of(form)) + named
            sealed = head + gcm(form, at, b"\x0c" + '{"user":"Åse"}'.encode(), associated)
            found.append({"form": form, "role": role, "name": name, "part": part, "bytes": sealed.hex()})
    return found


def labels(form: int, by: str | None, identity: bytes) -> bytes:
    """Section 10."""
    author = b"\x00" if by is None else b"\x01" + text(by)
    moment = MOMENT.to_bytes(8, "big", signed=True)
    return text("CONFIDENTIAL") + text("norway") + moment + author + block(tag_of(form)) + identity


def documents() -> list[dict[str, object]]:
    """Section 10."""
    found: list[dict[str, object]] = []
    for by in (None, "case-worker-å"):
        for form in (5, 6):
            head, identity = bytes([form]) + KEY_ID, b"an identity"
            associated = text("cases") + b"\x00\x00" + head + labels(form, by, identity)
            sealed = head + gcm(form, 7, b"the body in its own encoding", associated)
            found.append({"form": form, "created_by": by, "identity": identity.hex(), "bytes": sealed.hex()})
    return found


def streams() -> list[dict[str, object]]:
    """Section 11: the plaintext is the SHA-256 of 0, 1, 2, …, each as four bytes, cut to its length."""
    found: list[dict[str, object]] = []
    for length in (0, 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT):
        count = length // 32 + 1
        plain = b"".join(hashlib.sha256(n.to_bytes(4, "big")).digest() for n in range(count))[:length]
        cut = [plain[at : at + SEGMENT] for at in range(0, length, SEGMENT)] or [b""]
        cipher = AESGCM(STREAM_KEY)
        for form in (7, 8):
            head = bytes([form]) + KEY_ID
            associated = text("files") + b"\x00\x00" + head + labels(form, None, b"a file")
            header = head + gcm(form, 9, STREAM_KEY, associated)
            body = b""
            for number, segment in enumerate(cut):
                flag = b"\x01" if number == len(cut) - 1 else b"\x00"
                body += cipher.encrypt(number.to_bytes(11, "big") + flag, segment, None)
            whole = hashlib.sha256(header + body).hexdigest()
            found.append({"form": form, "length": length, "header": header.hex(), "sha256": whole})
            if length <= 1:
                found[-1]["bytes"] = (header + body).hex()
    return found


def main() -> None:
    material = HKDF(SHA512(), 96, None, b"mongodb-field-encryption\x00" + KEY_ID).derive(KEY)
    vectors = {
        "key": KEY.hex(),
        "key_id": KEY_ID.hex(),
        "row_tag": ROW_TAG.hex(),
        "subject_tag": SUBJECT.hex(),
        "moment": MOMENT,
        "retained": retained(),
        "parts": parts(),
        "values": values(),
        "documents": documents(),
        "stream_key": STREAM_KEY.hex(),
        "streams": streams(),
        "mongodb": {"purpose": "mongodb-field-encryption", "material": material.hex()},
    }
    if TARGET.exists():
        sys.exit(f"{TARGET.name} is there already: released vectors are never written again")
    TARGET.write_text(json.dumps(vectors, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
