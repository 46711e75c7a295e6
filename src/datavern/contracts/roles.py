"""What a server says of its own role, for those who must know where writes may go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from datavern.contracts.errors import ProviderError

__all__ = ["Roles", "Standing", "Watch"]


@dataclass(frozen=True, slots=True)
class Standing:
    """One answer of a server about itself.

    Attributes:
        writable: whether it takes writes, by its own word.
        told: False where the engine has no roles of its own (SQLite): then the label in the configuration decides.
        system: what tells this set of copies from every other (PostgreSQL's system identifier, the replica set's name);
            None where the engine has no such thing.
        timeline: a number that grows with every promotion; None where the engine has none.
        position: how far its history goes: of a primary what is written, of a replica what can be read there. Grows
            within a timeline; None where the engine has none.
        began: the position at which its present timeline began, as far as it knows.
        replica: whether the server itself sees to it that nothing is written (a standby in recovery), and not a
            setting that a session may change.
        following: of a replica: whether it is connected to a primary; None where that cannot be told.
        version: the server's version.
        facts: what else it said, for people.
    """

    writable: bool
    told: bool = True
    system: str | None = None
    timeline: int | None = None
    position: int | None = None
    began: int | None = None
    replica: bool = False
    following: bool | None = None
    version: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def role(self) -> str:
        """Primary or secondary, as `Health.role` says it."""
        return "primary" if self.writable else "secondary"


class Watch(Protocol):
    """Somebody who asks one server, on a connection that no caller ever gets. Made by `Roles.watch`."""

    @property
    def shut(self) -> bool:
        """Whether the provider was closed, or never opened: then there is no use in waiting for it."""
        ...

    async def ask(self) -> Standing:
        """Ask, connecting first where need be. May be cancelled: the next call begins with a new connection.

        Raises:
            DatavernError: no answer.
        """
        ...

    def close(self) -> None:
        """Let go of the connection, at once. Idempotent."""
        ...


class Roles(Protocol):
    """An engine whose servers have roles that change: what a failover group stands on."""

    def watch(self, lost: Callable[[], None]) -> Watch:
        """Somebody who asks this server. Does no I/O.

        Args:
            lost: called from the loop when the watching connection breaks: the server may be gone.
        """
        ...

    async def ask(self) -> Standing:
        """Ask as a caller does, on a connection of the pool. Raises as a session."""
        ...

    def reads(self, sql: str) -> bool:
        """Whether a statement that was run already certainly changes nothing. No I/O."""
        ...

    def refused_write(self, error: ProviderError) -> bool:
        """Whether an error of a statement says that the server takes no writes. No I/O."""
        ...

    def sever(self) -> None:
        """Send nothing to this server any more, until `mend`: it was superseded.

        What callers wait for ends at once: reads with `ConnectionFailed`, what may have been done with
        `OutcomeUnknown`. What comes is refused with `ConnectionFailed`.
        """
        ...

    def hold(self) -> None:
        """Make no new connection to this server, until `mend`: it may not be what it was. Those that are open go on."""
        ...

    def mend(self) -> None:
        """Let callers use it again. Idempotent."""
        ...
