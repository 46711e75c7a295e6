"""The organisation's signature on checkpoints and certificates: Ed25519 (RFC 8032)."""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["Signer", "Verifier", "verify"]

_PLAIN = b"datavern-signature\x00\x01"  # a note holds no NUL, so no plain signature passes for a note's
_ED25519 = b"\x01"


class Verifier(NamedTuple):
    """A public key, as it is handed to auditors.

    Attributes:
        name: the key's name; no spaces, no plus sign.
        key_id: the first four bytes of a hash of name and key: a hint, not a proof.
        public_key: 32 bytes (RFC 8032).
    """

    name: str
    key_id: bytes
    public_key: bytes

    @classmethod
    def of(cls, name: str, public_key: bytes) -> Verifier:
        """The verifier of a name and a public key.

        Raises:
            ConfigurationError: the name is empty, or holds a space, a control character or a plus sign.
        """
        if not name or "+" in name or not name.isprintable() or any(c.isspace() for c in name):
            raise ConfigurationError("the name of a signing key must be printable, without spaces and plus signs")
        return cls(name, sha256(name.encode() + b"\n" + _ED25519 + public_key).digest()[:4], public_key)

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """Read the one line that `str` writes (a C2SP "vkey").

        Raises:
            ConfigurationError: it is not one, or not of an Ed25519 key.
        """
        parts = text.strip().split("+", 2)
        if len(parts) == 3:  # noqa: PLR2004  (name, key id, key)
            name, key_id, encoded = parts
            try:
                raw = base64.b64decode(encoded, validate=True)
            except binascii.Error:
                raw = b""
            if len(raw) == 33 and raw[:1] == _ED25519:  # noqa: PLR2004  (type and key)
                found = cls.of(name, raw[1:])
                if str(found) == f"{name}+{key_id}+{encoded}":  # the key id fits, and there is one spelling
                    return found
        raise ConfigurationError("not a verifier: expected name+key id+base64 of an Ed25519 key (c2sp.org/signed-note)")

    def __str__(self) -> str:
        """The one line to publish."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_ED25519 + self.public_key).decode()}"

    def valid(self, data: bytes, signature: bytes) -> bool:
        """Whether this key made that bare Ed25519 signature over the data."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  (loaded when something is verified)
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True


class Signer:
    """A signing key. It signs, and never shows itself.

    Args:
        name: the key's name in signed notes.
        seed: the 32-byte private key (RFC 8032).

    Attributes:
        name: as given.
        verifier: the public half, as one line of text (a C2SP "vkey").
    """

    __slots__ = ("_key", "_verifier", "name", "verifier")

    def __init__(self, name: str, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415  (as above)

        self._key: Ed25519PrivateKey = Ed25519PrivateKey.from_private_bytes(seed)
        self._verifier = Verifier.of(name, self._key.public_key().public_bytes_raw())
        self.name = name
        self.verifier = str(self._verifier)

    def __repr__(self) -> str:
        return f"Signer({self.verifier!r})"

    def sign(self, data: bytes) -> bytes:
        """A plain signature of 64 bytes over any data; `verify` checks it. It never passes for that of a note."""
        return self._key.sign(_PLAIN + data)

    def sign_note(self, text: str) -> str:
        """The text as a signed note (c2sp.org/signed-note), to be read with `datavern.crypto.notes.open_note`.

        Raises:
            ValueError: the text does not end with a newline, or holds another control character.
        """
        from datavern.crypto.notes import check_text  # noqa: PLC0415  (notes builds on this module)

        body = check_text(text)
        blob = base64.b64encode(self._verifier.key_id + self._key.sign(body)).decode()
        return f"{text}\n\N{EM DASH} {self.name} {blob}\n"


def verify(verifier: str, data: bytes, signature: bytes) -> bool:
    """Whether the signature is one that `Signer.sign` made over the data with the verifier's key.

    Raises:
        ConfigurationError: the verifier is none.
    """
    return Verifier.parse(verifier).valid(_PLAIN + data, signature)
