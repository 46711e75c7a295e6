"""What belongs to people in engines that hold none of Datavern's own tables: documents, files, keys and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

__all__ = ["Holding", "Lack", "Records", "Whose"]


@dataclass(frozen=True, slots=True)
class Holding:
    """A dataset, as far as the engine has to know it.

    Attributes:
        store: a collection, or a pattern of keys.
        subject: the path that says whose a record is; None for data about nobody.
        keyed: whether the store is a pattern of keys.
        erasure: the data map's policy.
        fields: paths of its fields.
        sealed: those of them that are sealed one by one.
        linked: whether what stands at `subject` is no person's id, but leads to one.
    """

    store: str
    subject: str | None
    keyed: bool
    erasure: str
    fields: tuple[str, ...] = ()
    sealed: tuple[str, ...] = ()
    linked: bool = False


@dataclass(frozen=True, slots=True)
class Whose:
    """Whom a record is about.

    Attributes:
        theirs: whether it is about the person who was asked for.
        shared: whether it is about somebody else too.
    """

    theirs: bool
    shared: bool = False


class Lack(NamedTuple):
    """What a live store lacks.

    Attributes:
        detail: for people.
        wrong: False where nothing may be wrong: a cache is empty now and then.
    """

    detail: str
    wrong: bool = True


class Records(Protocol):
    """The records of an engine that is not relational: what the data map needs of it beside `Subjects`.

    There are no transactions here that a key or an audit entry could commit with. So whoever changes records does it
    in steps that may be done again, and writes down in the ledger what is to be done and what was.
    """

    def check(self, holding: Holding) -> None:
        """Refuse a dataset that could not be found, or not be ended as its policy says. No I/O.

        Raises:
            ConfigurationError: why, and what to say instead; without the dataset's own name.
        """
        ...

    def writes(self, holding: Holding) -> str | None:
        """How such records are written, where `Subjects` cannot: the call's name. None: it can."""
        ...

    async def missing(self, holding: Holding) -> Lack | None:
        """What the live store lacks of what the dataset says; None when nothing was found wanting."""
        ...

    async def whose(self, record: Mapping[str, Any], path: str, subject: str) -> Whose:
        """Whether a record that a query for the subject found is about that very person, and about others."""
        ...

    async def cap(
        self, holding: Holding, seconds: float, *, fix: bool, spares: Callable[[str], bool]
    ) -> tuple[int, int]:
        """In a store of keys: how many live longer than that from now on, and how many were given that life.

        Idempotent. Elsewhere there are none: (0, 0).

        Args:
            holding: the dataset.
            seconds: the longest life.
            fix: give them that life.
            spares: whether a person's keys are left alone.
        """
        ...

    async def take_out(self, holding: Holding, record: Mapping[str, Any], subject: str) -> bool:
        """Take one person out of a record that is about several; False where that cannot be said of its form.

        Idempotent.
        """
        ...

    async def opened(self, store: str, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Records as the engine itself sealed them, opened; of those whose key is destroyed, what is in the clear.

        Raises:
            DecryptionFailed: something was changed, or moved.
        """
        ...
