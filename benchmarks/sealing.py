"""Sealing a field of 32 characters, against AES-256-GCM alone (a cached `AESGCM`, with a random nonce) and Fernet.

Per field, in rows of three. What AESGCM alone leaves out: the type of the value, and what binds it to row, column and
person. Fernet (AES-128-CBC with HMAC) binds it to nothing either.
"""

from __future__ import annotations

import os

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks import Figure, interleave
from datavern.crypto.lookup import index
from datavern.crypto.sealed import DataKey, RowSealer, new_row_tag

FIELDS = ("a", "b", "c")
TEXT = "Ådne Sæther Øyvindsen, Bodø, 42"[:28].ljust(28)
N = 3000


async def figures() -> list[Figure]:  # noqa: C901  (a variant is a loop; they share what they measure)
    """Seal, open, and an index."""
    raw, subject, tag = os.urandom(32), os.urandom(32), new_row_tag()
    key, sealer = DataKey(os.urandom(16), "users", subject, raw), RowSealer("users", FIELDS)
    row = dict.fromkeys(FIELDS, TEXT)
    sealed, keys = sealer.seal_row(key, tag, row), {key.id: key}
    gcm, plain, nonce = AESGCM(raw), TEXT.encode(), os.urandom(12)
    cipher = gcm.encrypt(nonce, plain, None)
    fernet = Fernet(Fernet.generate_key())
    token = fernet.encrypt(plain)

    async def seal_rows(n: int) -> None:
        for _ in range(n // 3):
            sealer.seal_row(key, tag, row)

    async def seal_gcm(n: int) -> None:
        for _ in range(n):
            gcm.encrypt(os.urandom(12), plain, None)

    async def seal_fernet(n: int) -> None:
        for _ in range(n // 10):
            fernet.encrypt(plain)

    async def open_rows(n: int) -> None:
        for _ in range(n // 3):
            sealer.open_row(tag, sealed, keys, subject)

    async def open_gcm(n: int) -> None:
        for _ in range(n):
            gcm.decrypt(nonce, cipher, None)

    async def open_fernet(n: int) -> None:
        for _ in range(n // 10):
            fernet.decrypt(token)

    async def indexes(n: int) -> None:
        for _ in range(n):
            index(raw, "email", "person@example.no", "email")

    def tenfold(times: dict[str, list[float]]) -> dict[str, list[float]]:
        times["Fernet"] = [10 * seconds for seconds in times["Fernet"]]  # it ran a tenth of the turns
        return times

    return [
        Figure(
            "Seal a field of 32 bytes",
            "Datavern",
            tenfold(await interleave({"Datavern": seal_rows, "AESGCM alone": seal_gcm, "Fernet": seal_fernet}, N)),
            at_most={"AESGCM alone": 2.5},
            note="rows of three fields; AESGCM alone draws its nonce, and binds nothing",
        ),
        Figure(
            "Open a field of 32 bytes",
            "Datavern",
            tenfold(await interleave({"Datavern": open_rows, "AESGCM alone": open_gcm, "Fernet": open_fernet}, N)),
            note="rows of three fields; the target for later is 1.7 × AESGCM alone",
        ),
        Figure(
            "Lookup index of an address",
            "Datavern",
            await interleave({"Datavern": indexes, "AESGCM alone": seal_gcm}, N),
            note="HMAC-SHA-256 with normalisation, beside an encryption",
        ),
    ]
