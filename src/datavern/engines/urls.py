"""A server's URL, read: who and where, for engines whose driver reads none."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from datavern.config import Secret
from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from urllib.parse import SplitResult

__all__ = ["split_url"]


def split_url(url: str, schemes: Collection[str], *, expected: str) -> tuple[SplitResult, dict[str, Any]]:
    """The parts of a URL, and the settings that stand before its path: host, port, username, password.

    Args:
        url: as it was given.
        schemes: what it may begin with.
        expected: the form of such URLs, for the message.

    Raises:
        ConfigurationError: it is none of that form. The URL itself, which may hold a password, is not in the message.
    """
    from urllib.parse import unquote, urlsplit  # noqa: PLC0415  (not needed to import Datavern)

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = None, None
    if parts is None or parts.scheme not in schemes:
        raise ConfigurationError(f"url: expected {expected}")
    found: dict[str, Any] = {}
    if parts.hostname:
        found["host"] = unquote(parts.hostname)
    if port is not None:
        found["port"] = port
    if parts.username:
        found["username"] = unquote(parts.username)
    if parts.password:
        found["password"] = Secret(unquote(parts.password), origin="url")
    return parts, found
