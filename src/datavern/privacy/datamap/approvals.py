"""What lets data go further than its classification alone would: approvals, and safeguards of transfers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from datavern.config import STRICT, checked
from datavern.contracts.errors import ConfigurationError

__all__ = ["Approval", "Basis", "Safeguard", "approval_of", "safeguard_of"]

Basis = Literal["adequacy", "scc", "bcr", "code", "certification", "authorisation", "derogation", "other"]

_ARTICLES: Mapping[str, str] = {
    "adequacy": "an adequacy decision, GDPR Art. 45",
    "scc": "standard contractual clauses, GDPR Art. 46(2)(c)",
    "bcr": "binding corporate rules, GDPR Art. 47",
    "code": "a code of conduct, GDPR Art. 46(2)(e)",
    "certification": "a certification, GDPR Art. 46(2)(f)",
    "authorisation": "the supervisory authority's authorisation, GDPR Art. 46(3)",
    "derogation": "a derogation, GDPR Art. 49",
    "other": "a safeguard under GDPR Arts. 44-49",
}


@dataclass(frozen=True, slots=True)
class Approval:
    """Who approved that graded information leaves Norway (virksomhetsikkerhetsforskriften § 51).

    Attributes:
        reference: the approval's reference, as it stands on the letter.
        authority: who gave it.
        expires: the last day that it holds; None: no end is written in it.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    reference: str
    authority: str = "NSM"
    expires: dt.date | None = None

    def __post_init__(self) -> None:
        if not self.reference.strip() or not self.authority.strip():
            raise ConfigurationError("an approval has a reference, and an authority that gave it")

    def holds(self, day: dt.date) -> bool:
        """Whether it holds on that day; its last day counts whole."""
        return self.expires is None or day <= self.expires

    def __str__(self) -> str:
        until = "" if self.expires is None else f", until {self.expires.isoformat()}"
        return f"{self.reference}, by {self.authority}{until}"


@dataclass(frozen=True, slots=True)
class Safeguard:
    """On what grounds personal data may be outside of the EEA (GDPR Arts. 44-49).

    Attributes:
        basis: "adequacy" (Art. 45), "scc" (46(2)(c)), "bcr" (47), "code" (46(2)(e)), "certification" (46(2)(f)),
            "authorisation" (46(3)), "derogation" (49); "other", where `reference` says it in words of its own.
        reference: the decision, contract or document.
        country: the third country, or the international organisation.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    basis: Basis
    reference: str = ""
    country: str = ""

    def __post_init__(self) -> None:
        if self.basis not in get_args(Basis):
            raise ConfigurationError(f"no such basis: expected one of {', '.join(get_args(Basis))}")
        if self.basis == "other" and not self.reference.strip():
            raise ConfigurationError("basis other says nothing by itself: give the reference")

    def __str__(self) -> str:
        return _ARTICLES[self.basis] + (f": {self.reference}" if self.reference else "")


def approval_of(value: Approval | Mapping[str, Any] | str | None) -> Approval | None:
    """An approval as the data map may write it: a reference, or a table.

    Raises:
        ConfigurationError: it has no reference, or an unknown key.
    """
    if value is None or isinstance(value, Approval):
        return value
    if isinstance(value, str):
        return Approval(value)
    return checked(Approval, _table(value), path="approval")


def safeguard_of(value: Safeguard | Mapping[str, Any] | str | None) -> Safeguard | None:
    """A safeguard as the data map may write it: a basis by its name, a text of one's own, or a table.

    Raises:
        ConfigurationError: an unknown key or basis, or an empty text.
    """
    if value is None or isinstance(value, Safeguard):
        return value
    if not isinstance(value, str):
        return checked(Safeguard, _table(value), path="transfer")
    basis = value.strip().lower()
    return Safeguard(basis) if basis in _ARTICLES else Safeguard("other", value)  # type: ignore[arg-type]  # it is one


def _table(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError("expected text, or a table")
    return value
