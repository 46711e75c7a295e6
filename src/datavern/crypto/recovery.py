"""A copy of the key ring that several people hold together (FORMAT.md, 16): no one of them can open it.

The ring is sealed under a random recovery key, into a file that may lie anywhere. The recovery key is split by Shamir's
scheme into shares of words, as SLIP-0039 writes them (https://github.com/satoshilabs/slips/blob/master/slip-0039.md):
each has a checksum that finds mistyped words, and what they make together has a digest. Any `threshold` of the shares
open the file; fewer tell nothing.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import secrets as random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidTag

from datavern.contracts.errors import ConfigurationError, DecryptionFailed
from datavern.contracts.values import timestamp
from datavern.crypto.keyring import Secrets
from datavern.crypto.ring import KEY
from datavern.crypto.xaes import XAESGCM

__all__ = ["MOST_SHARES", "Export", "combine", "export"]

MOST_SHARES: Final = 16
_FORMAT: Final = "datavern-recovery"
_VERSION: Final = 1
_NONCE: Final = 24


@dataclass(frozen=True, slots=True)
class Export:
    """A recovery that was made, and opened again before it was handed out.

    Attributes:
        id: its name, as it stands in the key store.
        file: what is kept, as JSON.
        shares: a text of words for each person.
        epochs: whose keys are in it.
        created_at: RFC 3339.
    """

    id: str
    file: str
    shares: tuple[str, ...] = field(repr=False)
    epochs: tuple[int, ...]
    created_at: str


def export(secrets: Secrets, *, threshold: int, shares: int) -> Export:
    """Seal a ring for so many people, of whom `threshold` together open it.

    Raises:
        ConfigurationError: fewer than two are needed, fewer shares than that are asked for, or more than 16; or the
            library that splits is not installed.
    """
    if not 2 <= threshold <= shares <= MOST_SHARES:  # noqa: PLR2004  (one person alone is what it is to prevent)
        raise ConfigurationError(f"a recovery takes 2 to {MOST_SHARES} shares, and at least 2 of them to open it")
    library = _library()
    id_, created, key = os.urandom(8).hex(), timestamp(), os.urandom(KEY)
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "id": id_,
        "ring": secrets.ring_id.hex(),
        "generation": secrets.generation,
        "threshold": threshold,
        "shares": shares,
        "created": created,
    }
    held = {
        "epochs": {str(n): base64.b64encode(k).decode() for n, k in secrets.epochs.items()},
        "created": {str(n): secrets.created[n] for n in secrets.epochs},
        "signing_name": secrets.signing_name,
        "signing_seed": base64.b64encode(secrets.signing_seed).decode(),
    }
    nonce = os.urandom(_NONCE)
    sealed = nonce + XAESGCM(key).encrypt(nonce, _canonical(held), _canonical(header))
    file = json.dumps({**header, "sealed": base64.b64encode(sealed).decode()}, indent=1) + "\n"
    (words,) = library.generate_mnemonics(1, [(threshold, shares)], key, iteration_exponent=0)
    some = random.SystemRandom().sample(list(words), threshold)
    if combine(file, some) != secrets:
        raise ConfigurationError("the recovery that was made does not open again: nothing was handed out")
    return Export(id_, file, tuple(words), tuple(sorted(secrets.epochs)), created)


def combine(file: str, shares: Sequence[str]) -> Secrets:
    """The ring, from a recovery's file and enough of its shares.

    Raises:
        ConfigurationError: it is no recovery's file, a share is mistyped or another recovery's, or there are too few.
        DecryptionFailed: the shares are not this file's, or it was changed.
    """
    header = _header(file)
    sealed = base64.b64decode(header.pop("sealed"))
    library = _library()
    given = list(dict.fromkeys(" ".join(share.lower().split()) for share in shares))
    if len(given) < header["threshold"]:
        raise ConfigurationError(
            f"the recovery {header['id']} takes {header['threshold']} different shares, and there are {len(given)}"
        )
    key, problem = b"", False
    try:
        key = library.combine_mnemonics(given[: header["threshold"]])
    except library.MnemonicError:  # its message may quote words
        problem = True
    if problem:
        raise ConfigurationError("the shares do not fit together: one of them is mistyped, or another recovery's")
    held: Any = None
    with suppress(InvalidTag, ValueError):
        held = json.loads(XAESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], _canonical(header)))
    if held is None:
        raise DecryptionFailed("the recovery did not open: the shares are another one's, or its file was changed")
    return Secrets(
        bytes.fromhex(header["ring"]),
        header["generation"],
        {int(n): base64.b64decode(k) for n, k in held["epochs"].items()},
        {int(n): created for n, created in held["created"].items()},
        held["signing_name"],
        base64.b64decode(held["signing_seed"]),
    )


def _header(file: str) -> dict[str, Any]:
    found: Any = None
    try:
        found = json.loads(file)
        base64.b64decode(found["sealed"], validate=True)
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise ConfigurationError("this is no recovery's file: expected the JSON that `datavern keys` wrote")
    if found.get("version") != _VERSION:
        raise ConfigurationError("a recovery of another version: a later Datavern reads it")
    if type(found.get("threshold")) is not int or not all(isinstance(found.get(n), str) for n in ("id", "ring")):
        raise ConfigurationError("this recovery's file is damaged")
    return found


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _library() -> Any:
    missing = False
    try:
        import shamir_mnemonic  # noqa: PLC0415  (an extra)
    except ModuleNotFoundError:
        missing = True
    if missing:
        raise ConfigurationError("recovery shares need a library: pip install 'datavern[recovery]'")
    return shamir_mnemonic
