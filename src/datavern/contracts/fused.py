"""What goes with a change in one statement: its audit entry, its idempotency key, the conditions it stands under.

Engines write them together; what stands in them is the business of those above (`datavern.audit`, `datavern.crypto`,
`datavern.privacy`). These are the words that both share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from datavern.contracts.errors import ConfigurationError
from datavern.contracts.identity import is_fodselsnummer

if TYPE_CHECKING:
    from datavern.contracts.capabilities import Provider

__all__ = ["Entry", "Guard", "Guarded", "checked_key", "entry_statement"]

Guard: TypeAlias = tuple[str, Sequence[Any]]
"""A SELECT and its parameters: it holds where it gives a row. Rows that it locks stay locked until the commit."""

LONGEST_KEY = 255
"""Characters of an idempotency key."""


class Entry(Protocol):
    """An audit entry that is not written yet. Made by the audit service (``await db.audit.entry(…)``)."""

    @property
    def id(self) -> str:
        """What it will be known by: `datavern.audit.service.Audit.prove` takes it."""
        ...

    def statement(self, provider: Provider, *, source: str | None = None) -> tuple[str, Sequence[Any]]:
        """The insert that writes it, and its parameters, in the provider's own words.

        Args:
            provider: the database that the change is made in, as callers know it.
            source: name of a relation: the entry is written once for each of its rows.

        Raises:
            ConfigurationError: that database has no audit log with whoever made the entry.
        """
        ...


class Guarded(Protocol):
    """Inserts that stand under conditions, as one unit and in one go."""

    async def insert(self, store: str, row: Mapping[str, Any], *, guards: Sequence[Guard], audit: Entry) -> bool:
        """Insert a row and its audit entry, if every guard gives a row; all of it happens, or nothing.

        Not idempotent. May be cancelled: then either all of it happened, or nothing.

        Args:
            store: as `datavern.contracts.stores.Subjects` names it.
            row: column → value.
            guards: the conditions. One that locks what it finds (FOR SHARE) sees it as it stands when the lock is had.
            audit: written with the row.

        Returns:
            False: a guard did not hold, or the store cannot be written to in this way. Nothing was written, and what
            is to be said about it is the caller's to find out.

        Raises:
            ProviderError: as the statements of a session.
        """
        ...


def entry_statement(audit: Any, provider: Provider, *, source: str | None = None) -> tuple[str, Sequence[Any]]:
    """What an engine asks of the `audit` that a call was given: see `Entry.statement`.

    Raises:
        ConfigurationError: it is no entry, or not one for this database.
    """
    statement = getattr(audit, "statement", None)
    if statement is None or not callable(statement):
        raise ConfigurationError(
            f"{provider.name}: audit= takes an entry, not {type(audit).__name__}: "
            'entry = await db.audit.entry("case_closed", subject=…), then execute(…, audit=entry)'
        )
    return statement(provider, source=source)  # type: ignore[no-any-return]  # it is an Entry


def checked_key(key: Any) -> str:
    """An idempotency key, if it may be one.

    Raises:
        ConfigurationError: no text, empty, longer than 255 characters, a NUL, half a surrogate pair, or a
            fødselsnummer: a key is kept as it is. It is not quoted.
    """
    problem = ""
    if not isinstance(key, str):
        problem = f"expected text, not {type(key).__name__}"
    elif not key.strip() or len(key) > LONGEST_KEY:
        problem = f"expected 1 to {LONGEST_KEY} characters, and there are {len(key)}"
    elif "\0" in key:
        problem = "it holds a NUL character, which not every engine can keep"
    elif is_fodselsnummer(key):
        problem = "it is a fødselsnummer, and a key is kept as it is: use a random one, such as uuid.uuid4().hex"
    elif not key.isascii() and any("\ud800" <= c <= "\udfff" for c in key):
        problem = "it holds half a surrogate pair, which is not valid Unicode"
    if problem:
        raise ConfigurationError(f"idempotency_key: {problem}")
    return key if type(key) is str else str.__str__(key)
