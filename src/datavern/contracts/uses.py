"""What data is used for now: a purpose that somebody named, a ground on which restricted data is used all the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from datavern.contracts.errors import ConfigurationError

__all__ = ["RestrictedUse", "current_purpose", "current_restricted_use", "purpose", "restricted_use"]

_purpose: ContextVar[str | None] = ContextVar("datavern_purpose", default=None)


@contextmanager
def purpose(name: str) -> Iterator[None]:
    """Say what the data is used for in this block: ``with datavern.purpose("newsletter"):``.

    What is then written or read is for this one of the dataset's purposes: its consent is needed, and no other; an
    objection to it stops it, though other purposes of the dataset may go on. Holds for this task and for those that it
    starts.

    Raises:
        ConfigurationError: that is no name.
    """
    if not isinstance(name, str) or not name.strip():
        raise ConfigurationError("purpose: expected one of the data map's purposes")
    token = _purpose.set(name)
    try:
        yield
    finally:
        _purpose.reset(token)


def current_purpose() -> str | None:
    """What the data is used for now, or None when nobody said."""
    return _purpose.get()


_GROUNDS = ("consent", "legal_claims", "rights_of_others", "public_interest")


@dataclass(frozen=True, slots=True)
class RestrictedUse:
    """On what ground restricted data is used. See `restricted_use`."""

    ground: str
    reason: str
    consent: Any = None


_restricted_use: ContextVar[RestrictedUse | None] = ContextVar("datavern_restricted_use", default=None)


@contextmanager
def restricted_use(ground: str, *, reason: str, consent: Any = None) -> Iterator[None]:
    """Use restricted data, on a ground of GDPR Art. 18(2): ``with datavern.restricted_use("legal_claims", reason=…):``.

    Each read and write of a restricted person's data in the block is audited, with the ground and the reason. Holds for
    this task and for those that it starts. An objection is not passed by it: `SubjectRequests.lift` ends one.

    Args:
        ground: "consent" (the person's, to this use), "legal_claims", "rights_of_others" or "public_interest".
        reason: why, for the audit log: a case number, not a name.
        consent: of the ground "consent": the consent, or its id. It has to hold, and be the person's.

    Raises:
        ConfigurationError: no such ground, no reason, or the ground "consent" without one.
    """
    if ground not in _GROUNDS:
        raise ConfigurationError(f"ground: expected one of {', '.join(_GROUNDS)} (GDPR Art. 18(2))")
    if not isinstance(reason, str) or not reason.strip():
        raise ConfigurationError("reason: missing; it is written to the audit log: a case number, not a name")
    if (ground == "consent") != (consent is not None):
        raise ConfigurationError("consent: the ground consent names the consent, and no other ground does")
    token = _restricted_use.set(RestrictedUse(ground, reason, consent))
    try:
        yield
    finally:
        _restricted_use.reset(token)


def current_restricted_use() -> RestrictedUse | None:
    """On what ground restricted data is used now, or None."""
    return _restricted_use.get()
