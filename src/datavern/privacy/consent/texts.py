"""The texts that people agree to: registered once, with their hash, and never changed (GDPR Art. 7(1)-(2))."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datavern.contracts.capabilities import needs
from datavern.contracts.errors import ConfigurationError, ConstraintViolated
from datavern.contracts.values import current_actor, timestamp
from datavern.privacy.consent import tables

if TYPE_CHECKING:
    from datavern.audit.log import AuditLog
    from datavern.contracts.capabilities import Provider, Session

__all__ = ["ConsentText"]

_LONGEST_NAME = 100
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class ConsentText:
    """A registered text.

    Attributes:
        purpose: what is agreed to.
        version: its name.
        language: of the text.
        content: the text.
        hash: SHA-256 of its UTF-8, in hexadecimal.
        number: its place among the purpose's versions, from 1 on.
        registered_at: when.
        actor: who registered it, or None.
    """

    purpose: str
    version: str
    language: str
    content: str
    hash: str
    number: int
    registered_at: dt.datetime
    actor: str | None = None


async def register(
    provider: Provider, log: AuditLog, purpose: str, version: str, content: str, *, language: str
) -> ConsentText:
    """See `datavern.privacy.consent.consent.Consents.text`."""
    for what, name in (("purpose", purpose), ("version", version), ("language", language)):
        if not isinstance(name, str) or not name.strip() or "\0" in name or len(name) > _LONGEST_NAME:
            raise ConfigurationError(f"{what}: expected text of up to {_LONGEST_NAME} characters")
    if not isinstance(content, str) or not content.strip() or "\0" in content:
        raise ConfigurationError("text: expected what people read, as text")
    found = hashlib.sha256(content.encode()).hexdigest()
    dialect = needs(provider, "ledger").dialect
    for _ in range(_ATTEMPTS):
        known = await texts_of(needs(provider, "session"), dialect, purpose)
        for text in known:
            if (text.version, text.language) == (version, language):
                if text.hash == found:
                    return text
                raise ConfigurationError(
                    f"version {version} of the text for {purpose} is registered, and is another text: what people "
                    "agreed to does not change. Give the new one a version of its own"
                )
        number = next((text.number for text in known if text.version == version), None)
        if number is None:
            number = max((text.number for text in known), default=0) + 1
        row = {
            "purpose": purpose,
            "version": version,
            "language": language,
            "number": number,
            "hash": found,
            "content": content,
            "registered_at": timestamp(),
            "actor": current_actor(),
        }
        details = {"purpose": purpose, "version": version, "language": language, "hash": found}
        try:
            async with needs(provider, "transactions").transaction() as tx:
                await tx.execute(*tables.TEXT_INSERT.bind(dialect, **row))
                await log.append(tx, action="consent_text_registered", details=details)
        except ConstraintViolated:
            continue  # somebody registered one at the same moment: look again
        return _text(row)
    raise ConfigurationError(f"the texts for {purpose} change all the time: try again")


async def texts_of(session: Session, dialect: Any, purpose: str | None) -> list[ConsentText]:
    """The registered texts of a purpose, or of all, the oldest first."""
    statement = (
        tables.ALL_TEXTS.bind(dialect) if purpose is None else tables.TEXTS_OF.bind(dialect, for_purpose=purpose)
    )
    return [_text(row) for row in await session.query(*statement)]


async def agreed_text(
    session: Session, dialect: Any, purpose: str, version: str | None, language: str | None
) -> ConsentText | None:
    """The text that somebody agreed to; None where no text of the purpose is registered at all.

    Raises:
        ConfigurationError: others are, and this one is not, or it is not said in which language.
    """
    known = await texts_of(session, dialect, purpose)
    if not known:
        return None
    found = [text for text in known if text.version == version]
    if not found:
        versions = ", ".join(dict.fromkeys(text.version for text in known))
        raise ConfigurationError(f"version: no such text is registered for {purpose}; there are: {versions}")
    if language is not None:
        found = [text for text in found if text.language == language]
    if len(found) != 1:
        languages = ", ".join(text.language for text in known if text.version == version)
        raise ConfigurationError(f"language: which of them was read? version {version} is registered in {languages}")
    return found[0]


def _text(row: Any) -> ConsentText:
    at = dt.datetime.fromisoformat(row["registered_at"])
    return ConsentText(
        row["purpose"],
        row["version"],
        row["language"],
        row["content"],
        row["hash"],
        row["number"],
        at,
        row["actor"],
    )
