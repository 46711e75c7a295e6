"""An audit entry that is not written yet: it goes with the change that it tells of, in one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from datavern.audit.entry import SEEN, check_text, check_words, details_text, new_id_and_time
from datavern.contracts.capabilities import Provider
from datavern.contracts.values import current_actor

if TYPE_CHECKING:
    from datavern.audit.log import AuditLog

__all__ = ["Entry", "Values", "entry_values"]

Values: TypeAlias = tuple[str, str, str, str | None, str | None, str | None, str | None]
"""What the client gives of an entry, in the order of `datavern.audit.entry.GIVEN`."""


class Logs(Protocol):
    """Where entries may be written: a database's log, or those of a manager."""

    def log_for(self, provider: Provider) -> AuditLog:
        """The log of that database.

        Raises:
            ConfigurationError: it has none here.
        """
        ...


class Entry:
    """What is to be written, and by whom it was said. It is written once: a second time its id is refused.

    Its time is that of its making; its place in the log is given when it is written.

    Args:
        logs: where it may be written.
        values: its columns.
    """

    __slots__ = ("_logs", "_values")

    def __init__(self, logs: Logs, values: Values) -> None:
        self._logs = logs
        self._values = values

    def __repr__(self) -> str:
        return f"Entry({self.action}, {self.id})"

    @property
    def id(self) -> str:
        """What it will be known by: `prove` takes it."""
        return self._values[0]

    @property
    def action(self) -> str:
        """What was done."""
        return self._values[2]

    def statement(self, provider: Provider, *, source: str | None = None) -> tuple[str, Sequence[Any]]:
        """The insert that writes it into that database's log, and its parameters: see `contracts.fused.Entry`.

        Raises:
            ConfigurationError: that database has no log with whoever made the entry.
        """
        return self._logs.log_for(provider).insert(self._values, source=source)


def entry_values(
    action: str, handle: str | None, actor: str | None, dataset: str | None, details: Mapping[str, Any] | None
) -> Values:
    """The columns of a new entry, as the caller has them to give.

    Raises:
        ConfigurationError: something in it may not stand in the log (a fødselsnummer, what is not JSON).
    """
    if actor is None:
        actor = current_actor()
    try:  # an application says few words, and says them again and again
        known = (action, actor, dataset) in SEEN
    except TypeError:
        known = False
    if not known:
        check_words(action, actor, dataset)
    if handle is not None:
        check_text("handle", handle)
    entry_id, at = new_id_and_time()
    return entry_id, at, action, actor, handle, dataset, details_text(details) if details else None
