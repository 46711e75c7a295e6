"""Certificates: signed statements of what was done with a person's data, store by store (GDPR Arts. 5(2) and 17).

A certificate is JSON that verifies offline, with nothing but the organisation's public key. What is signed is the
canonical form of the statement: UTF-8, keys sorted, no spaces, and no number but whole ones, so that every JSON library
writes the same bytes (RFC 8785 says the same of such data).

Beside what is signed stand the proofs that its audit entries are in the sealed log: each verifies by itself.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

from datavern.contracts.errors import PrivacyError
from datavern.crypto.signing import Verifier, verify

__all__ = ["ERASED_CLAIMS", "ERASED_LIMITS", "RECORDS_CLAIM", "Certificate", "canonical"]

_FORMAT = "datavern-certificate"
_VERSION = 1
_DOMAIN = b"datavern-certificate\x00\x01"

ERASED_CLAIMS = (
    "What was found was treated as listed, and all of that had been done when this was signed.",
    "The listed keys were destroyed: no copy of the key store made from now on can open what was sealed under them.",
    "New data under the destroyed keys is refused in every process.",
)
"""What an erasure certificate says, and is signed for."""
RECORDS_CLAIM = "Stores without tables were looked through again when no write under the listed keys could come."
"""What it says too, where documents, files or keys and values were among the stores."""
ERASED_LIMITS = (
    "Backups made earlier, and replicas that lag, hold older copies of values that were never sealed, until pruned.",
    "They hold sealed values and their wrapped keys too, which open until the epoch key of that time is destroyed.",
    "A second statement, shredded, says from when not even those can bring the data back; this one does not.",
    "Columns that the data map does not name are listed as left, where the rows themselves stayed.",
)
"""What it does not say."""


class _Signs(Protocol):
    @property
    def verifier(self) -> str: ...
    def sign(self, data: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Certificate:
    """A signed statement.

    Attributes:
        body: what is stated, as plain JSON values.
        signature: 64 bytes, Ed25519 (RFC 8032) over the canonical body.
        key: name of the signing key: a hint which public key to take, not a proof.
        proofs: of the erasure's audit entries, as `datavern.audit.proof.Proof.to_json` writes them; none while the log
            is not sealed.
    """

    body: Mapping[str, Any]
    signature: bytes
    key: str
    proofs: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def issue(cls, signer: _Signs, statement: str, contents: Mapping[str, Any]) -> Self:
        """Sign a statement.

        Args:
            signer: the organisation's signing key.
            statement: what kind of statement it is: "erased" or "shredded".
            contents: what is stated; text, whole numbers, booleans, None, lists and mappings of these.
        """
        body = {"format": _FORMAT, "version": _VERSION, "statement": statement, **contents}
        data = canonical(body)
        # What is kept is what was signed: read back, so that a tuple or a str subclass in `contents` does not linger.
        return cls(json.loads(data), signer.sign(_DOMAIN + data), Verifier.parse(signer.verifier).name)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` wrote. It is not verified yet.

        Raises:
            PrivacyError: it is no certificate, or one of a later version.
        """
        found: Any = None
        body: Any = None
        signature = b""
        proofs: tuple[Any, ...] = ()
        try:
            found = json.loads(text)
            body = found["certificate"]
            signature = base64.b64decode(found["signature"]["value"], validate=True)
            key = str(found["signature"]["key"])
            proofs = tuple(found.get("proofs", ()))
        except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
            body = None
        if not isinstance(body, dict) or body.get("format") != _FORMAT:
            raise PrivacyError("not a certificate: expected the JSON that Datavern wrote")
        if body.get("version") != _VERSION:
            raise PrivacyError("a certificate of another version: a later Datavern reads it")
        return cls(body, signature, key, proofs)

    def to_json(self) -> str:
        """The certificate as JSON, in UTF-8, for files and for `from_json`."""
        whole: dict[str, Any] = {
            "certificate": self.body,
            "signature": {"key": self.key, "value": base64.b64encode(self.signature).decode()},
        }
        if self.proofs:
            whole["proofs"] = list(self.proofs)
        return json.dumps(whole, ensure_ascii=False, indent=2) + "\n"

    def to_html(self, language: Literal["nb", "en"] = "nb") -> str:
        """A page for people, that stands by itself and has the signed file in it.

        Raises:
            ConfigurationError: no such language.
        """
        from datavern.privacy.certificate.html import page  # noqa: PLC0415  (only where one is wanted)

        return page(self, language)

    def to_pdf(self, language: Literal["nb", "en"] = "nb") -> bytes:
        """The same as PDF, with the signed file attached.

        Raises:
            ConfigurationError: the extra ``datavern[pdf]`` is not installed, or no such language.
        """
        from datavern.privacy.certificate.pdf import document  # noqa: PLC0415  (as above)

        return document(self, language)

    def verify(self, verifier: str) -> bool:
        """Whether that key signed exactly this. Needs nothing else: no database, no network, no private key.

        The proofs are for `datavern subject verify`, or ``datavern-verify``, which looks at all of it.

        Args:
            verifier: the public key, as `Keyring` writes it beside the ring (a C2SP "vkey").

        Raises:
            ConfigurationError: the verifier is none.
        """
        try:
            data = canonical(self.body)
        except (TypeError, ValueError, RecursionError):
            data = None  # what no certificate of ours holds: the answer is no, for a verifier that is one
        return verify(verifier, _DOMAIN + (data or b""), self.signature) and data is not None

    def __str__(self) -> str:
        """The certificate as a person reads it."""
        return "\n".join(_lines(self.body, self.key))


def canonical(body: Any) -> bytes:
    """The bytes that are signed.

    Raises:
        TypeError: something in it has no canonical form: a float, bytes, a mapping with keys that are no text.
    """
    _check(body)
    return json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _check(value: Any) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError("a certificate's keys are text")
            _check(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check(inner)
    elif not (value is None or isinstance(value, str | int)):
        raise TypeError(f"a certificate holds no {type(value).__name__}")


def _lines(body: Mapping[str, Any], key: str) -> Iterator[str]:
    kind = str(body.get("statement", ""))
    yield f"Certificate: {kind}"
    for label, name in (
        ("Organisation", "organisation"),
        ("Request", "request"),
        ("Subject", "subject"),
        ("Received", "received"),
        ("Completed", "completed"),
        ("Since", "since"),
        ("Audit entry", "audit"),
    ):
        if body.get(name):
            yield f"  {label + ':':<14}{body[name]}"
    identity = body.get("identity")
    if identity:
        by = f" ({identity['verified_by']})" if identity.get("verified_by") else ""
        yield f"  {'Identity:':<14}{identity['method']}{by}, {identity['at']}"
    yield ""
    for store in body.get("stores", ()):
        yield from _store_lines(store)
    for label, names in (body.get("recipients") or {}).items():
        yield f"  to be told of it, of {label}: {', '.join(names)}"
    keys = body.get("keys", ())
    yield f"  {len(keys)} key{'' if len(keys) == 1 else 's'} destroyed"
    for destroyed in keys:
        yield f"    {destroyed['id']} ({destroyed['dataset']}) {destroyed['at']}"
    for recovery in body.get("recoveries", ()):
        yield f"  recovery {recovery['id']}: destroyed {recovery['destroyed']}, says {recovery['said']}"
    for title, name in (("What this states", "claims"), ("What it does not state", "limits")):
        yield ""
        yield f"  {title}:"
        for line in body.get(name, ()):
            yield f"  - {line}"
    yield ""
    yield f"  Signed with {key}"


def _store_lines(store: Mapping[str, Any]) -> Iterator[str]:
    yield f"  {store['dataset']}: {_count(store['found'])} found"
    for done, number in store.get("done", {}).items():
        yield f"    {done}: {number}"
    for kept in store.get("kept", ()):
        yield f"    kept: {kept['rows']}, {kept['why']}, until {kept['until']}"
    if store.get("left"):
        yield f"    columns left as they were: {', '.join(store['left'])}"
    for note in store.get("notes", ()):
        yield f"    {note}"


def _count(number: int) -> str:
    return "nothing" if number == 0 else "1 row" if number == 1 else f"{number} rows"
