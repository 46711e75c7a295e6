"""Keyed hashes of many short values under one key: HMAC-SHA-256 (RFC 2104)."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["keyed_hash"]


def keyed_hash(key: bytes, begin: bytes) -> Callable[[bytes], bytes]:
    """What gives the HMAC of `begin` and a message, 32 bytes.

    Key and beginning are taken in once, and each message goes on from there (RFC 2104, section 4): a third of what
    `hmac.digest` takes, which fetches the algorithm anew with each call.
    """
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415  (loaded when the first key is used)
    from cryptography.hazmat.primitives.hmac import HMAC  # noqa: PLC0415

    begun = HMAC(key, SHA256())
    begun.update(begin)
    copy = begun.copy

    def of(message: bytes) -> bytes:
        made = copy()
        made.update(message)
        return made.finalize()

    return of
