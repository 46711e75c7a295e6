"""Sealing fields, rows, batches and streams, against AES-256-GCM alone (a cached `AESGCM` of cryptography) and Fernet.

*AESGCM alone* is what a program would write that kept nothing but confidentiality: a random nonce before the
ciphertext, text in and text out, bound to nothing. *Its bare call* has the nonce and the ciphertext apart already, and
gives bytes. Datavern's fields are measured in rows of three, with what the two leave out: the type of the value, the
key's id, and the associated data that binds dataset, field, row and person. Fernet (AES-128-CBC with HMAC) binds
nothing either.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import time
from collections.abc import Callable
from typing import Any

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks import Figure, Run, interleave
from datavern.crypto.documents import Labels
from datavern.crypto.lookup import indexer
from datavern.crypto.sealed import DataKey, RowSealer, new_row_tag
from datavern.crypto.segments import StreamOpener, StreamSealer

FIELDS = ("a", "b", "c")
NAME = "Ådne Sæther Øyvindsen, Bodø, 42"[:28].ljust(28)  # 32 bytes of UTF-8
KIB = "Etternavn; adresse; merknad. " * 35 + "slutt...."  # 1024
MIB = 1 << 20
N = 3000
ALONE, BARE, FERNET = "AESGCM alone", "its bare call", "Fernet"


def loop(one: Callable[[], object], each: int = 1, share: int = 1) -> Run:
    """A run of a call that does `each` operations; of slow ones only a share of the turns are taken."""

    async def run(n: int) -> None:
        for _ in range(n // each // share):
            one()

    return run


async def measured(title: str, variants: dict[str, Run], **promises: Any) -> Figure:
    """A figure whose Fernet took a tenth of the turns."""
    times = await interleave(variants, N)
    if FERNET in times:
        times[FERNET] = [10 * seconds for seconds in times[FERNET]]
    return Figure(title, "Datavern", times, **promises)


async def fields(size: str, text: str) -> list[Figure]:
    """Seal and open one size of value."""
    raw, subject, tag = os.urandom(32), os.urandom(32), new_row_tag()
    key, sealer = DataKey(os.urandom(16), "users", subject, raw), RowSealer("users", FIELDS)
    row = dict.fromkeys(FIELDS, text)
    sealed, keys = sealer.seal_row(key, tag, row), {key.id: key}
    gcm, plain, nonce = AESGCM(raw), text.encode(), os.urandom(12)
    bare = gcm.encrypt(nonce, plain, None)
    stored = nonce + bare
    fernet = Fernet(Fernet.generate_key())
    token = fernet.encrypt(plain)
    batch = [(key, tag, row)] * 100

    def alone() -> bytes:
        drawn = os.urandom(12)
        return drawn + gcm.encrypt(drawn, text.encode(), None)

    seal = {
        "Datavern": loop(lambda: sealer.seal_row(key, tag, row), 3),
        "in batches of 100 rows": loop(lambda: sealer.seal_rows(batch), 300),
        ALONE: loop(alone),
        BARE: loop(lambda: gcm.encrypt(nonce, plain, None)),
        FERNET: loop(lambda: fernet.encrypt(text.encode()), share=10),
    }
    opened = {
        "Datavern": loop(lambda: sealer.open_row(tag, sealed, keys, subject), 3),
        ALONE: loop(lambda: gcm.decrypt(stored[:12], stored[12:], None).decode()),
        BARE: loop(lambda: gcm.decrypt(nonce, bare, None)),
        FERNET: loop(lambda: fernet.decrypt(token).decode(), share=10),
    }
    note = "Per field, in rows of three. A fixed nonce in the bare call: it may be used once only."
    return [
        await measured(f"Seal a field of {size}", seal, at_most={ALONE: 2.5}, at_least={FERNET: 4}, note=note),
        await measured(f"Open a field of {size}", opened, at_most={ALONE: 1.7}, at_least={FERNET: 4}, note=WHERE),
    ]


WHERE = (
    "Where the rest of the time goes, against the bare call at 32 bytes: the associated data inside the cipher 0.2 "
    "of its time; cutting nonce and ciphertext from the value 0.2; its head and the associated data 0.2; "
    "text from bytes, with its type, 0.3; the row around the fields (call, dictionary, checks of key, dataset and "
    "person) 0.4. Each is an object that Python makes; the cipher itself cannot be asked for less."
)


async def lookups() -> list[Figure]:
    """Indexes, by the kind of their values."""
    key = os.urandom(32)
    found = []
    for kind, value, promised in (
        (None, "person@example.no", True),
        ("email", "person@example.no", True),
        ("fodselsnummer", "10915596784", True),
        ("phone", "+4722222222", True),
        ("name", "Kari Nordmann", True),
        ("phone", "22 22 22 22", False),
        ("name", "Ådne Sæther Øyvindsen", False),
    ):
        of, message = indexer(key, "field", kind), b"\x01" + value.encode()
        variants = {
            "Datavern": loop(lambda of=of, value=value: of(value)),
            "hmac.digest": loop(lambda message=message: hmac.digest(key, message, "sha256")),
        }
        found.append(
            await measured(
                f"Lookup index of {value!r} ({kind or 'no kind'})",
                variants,
                at_most={"hmac.digest": 1.3} if promised else {},
                note="" if promised else "It has to be rewritten first: no promise.",
            )
        )
    return found


async def streams() -> list[Figure]:
    """A stream of 1 MiB, and a longer one; and how long the loop waits meanwhile."""
    tag = os.urandom(32)
    key = DataKey(os.urandom(16), "files", tag, os.urandom(32))
    labels = Labels(
        classification="SECRET", location="norway", created_at=0, created_by=None, subject_tag=tag, identity=b"1"
    )
    data, gcm, nonce = os.urandom(MIB), AESGCM(os.urandom(32)), os.urandom(12)
    cipher = gcm.encrypt(nonce, data, None)

    def seal(pieces: int) -> list[bytes]:
        stream = StreamSealer("files", key, labels)
        for _ in range(pieces):
            for _ in stream.segments(data):
                pass
        return [stream.header, stream.finish()]

    whole = StreamSealer("files", key, labels)
    sealed = b"".join([whole.header, whole.update(data), whole.finish()])

    def open_() -> bytes:
        stream = StreamOpener("files", labels)
        stream.begin(key, sealed)
        for _ in stream.segments():
            pass
        return stream.finish()

    async def figure(title: str, ours: Run, theirs: Run) -> Figure:
        times = await interleave({"Datavern": ours, "AESGCM": theirs}, 160)
        return Figure(title, "Datavern", times, at_least={"AESGCM": 0.9}, note="Per MiB. AESGCM has it in one piece.")

    seal_gcm = loop(lambda: gcm.encrypt(os.urandom(12), data, None))
    return [
        await figure("Seal a stream of 1 MiB", loop(lambda: seal(1)), seal_gcm),
        await figure("Seal a stream of 16 MiB", loop(lambda: seal(16), 16), seal_gcm),
        await figure("Open a stream of 1 MiB", loop(open_), loop(lambda: gcm.decrypt(nonce, cipher, None))),
        await held_up(key, labels),
    ]


async def held_up(key: DataKey, labels: Labels) -> Figure:
    """The longest that the loop waits while streams are sealed, as files are: in pieces of 256 KiB."""
    piece, longest = os.urandom(MIB // 4), []

    async def ticks(gaps: list[float]) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    for _ in range(15):
        gaps: list[float] = []
        ticking = asyncio.create_task(ticks(gaps))
        stream = StreamSealer("files", key, labels)
        for _ in range(64):
            stream.update(piece)
            await asyncio.sleep(0)
        ticking.cancel()
        longest.append(max(gaps))
    return Figure(
        "The longest that the event loop waits while 16 MiB are sealed",
        "Datavern",
        {"Datavern": longest, "five milliseconds": [0.005] * len(longest)},
        at_most={"five milliseconds": 1},
    )


async def figures() -> list[Figure]:
    """Fields, lookups, streams."""
    return [*await fields("32 bytes", NAME), *await fields("1 KiB", KIB), *await lookups(), *await streams()]
