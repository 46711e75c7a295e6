"""What a process remembers of the key store: unwrapped keys and handles, and until when it may use them unasked."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, Final, TypeVar

from datavern.crypto.lookup_keys import LookupKey
from datavern.crypto.sealed import DataKey

__all__ = ["FRESH", "LIFETIME", "REMEMBERED", "Remembered"]

REMEMBERED: Final = 10_000
"""At most so many of each kind."""

FRESH: Final = 5.0
"""Seconds for which one answer of the store holds: an erasure stops reads in every process within them."""

LIFETIME: Final = 900.0
"""Seconds after which a key is dropped, used or not: at the latest, and after half of them at the earliest."""

K = TypeVar("K")
V = TypeVar("V")


class Remembered:
    """Bounded, good only while it is fresh, and dropped after a while.

    Attributes:
        changes: the number of the store's last change that was taken into account here.
        fresh_until: on the monotonic clock; what is remembered is used before that moment only.
        of_subject: dataset and subject → key; only keys that take new values.
        by_id: key id → key.
        of_dataset: dataset → key.
        lookup_keys: dataset and field → keys.
        renewed: one more whenever lookup keys are found to have changed.
        handles: subject → tag and handle.
    """

    __slots__ = (
        "_marked",
        "_timer",
        "by_id",
        "changes",
        "fresh_until",
        "handles",
        "lookup_keys",
        "of_dataset",
        "of_subject",
        "renewed",
    )

    def __init__(self) -> None:
        self.changes = 0
        self.fresh_until = 0.0
        self.of_subject: dict[tuple[str, str], DataKey] = {}
        self.by_id: dict[bytes, DataKey] = {}
        self.of_dataset: dict[str, DataKey] = {}
        self.lookup_keys: dict[tuple[str, str], LookupKey] = {}
        self.renewed = 0
        self._timer: asyncio.TimerHandle | None = None
        self._marked: list[tuple[dict[Any, Any], list[Any]]] = []
        self.handles: dict[str, tuple[bytes, str]] = {}

    def __repr__(self) -> str:
        return f"Remembered({len(self.by_id)} keys)"

    @property
    def stale(self) -> bool:
        """Whether the store is to be asked first."""
        return monotonic() >= self.fresh_until

    def answered(self, changes: int, asked: float) -> None:
        """The store said what its last change is, when it was asked at that moment of the monotonic clock."""
        self.changes = changes
        self.fresh_until = asked + FRESH

    def keep(self, kind: dict[K, V], name: K, value: V, seen: int | None) -> None:
        """Remember a value.

        Args:
            kind: the dict of this object that it belongs into.
            name: its key there.
            value: what was read.
            seen: what `changes` was before it was read: if an erasure was noticed since, it is not kept, because it
                may be what the erasure destroyed. None: not to be kept (read in a transaction that may roll back).
        """
        if seen == self.changes:
            if len(kind) >= REMEMBERED:
                del kind[next(iter(kind))]
            kind[name] = value
            if self._timer is None:
                self._wait()

    def _wait(self) -> None:
        """Drop what is there in a while, whether anybody asks for anything meanwhile or not."""
        with suppress(RuntimeError):  # outside of an event loop nothing is kept for long
            self._timer = asyncio.get_running_loop().call_later(LIFETIME / 2, self.expire)

    def expire(self) -> None:
        """Drop the keys that were there the last time: each lives for between half the lifetime and all of it."""
        for kind, names in self._marked:
            for name in names:
                kind.pop(name, None)
        kinds: tuple[dict[Any, Any], ...] = (self.of_subject, self.by_id, self.of_dataset, self.lookup_keys)
        self._marked = [(kind, list(kind)) for kind in kinds if kind]
        self._timer = None
        if self._marked:
            self._wait()

    def forget(self) -> None:
        """Everything."""
        for kind in (self.of_subject, self.by_id, self.of_dataset, self.lookup_keys, self.handles):
            kind.clear()
        self._marked = []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.renewed += 1

    def renew(self, states: Mapping[tuple[str, str], frozenset[tuple[bytes, str]]]) -> None:
        """Forget the lookup keys of which a rotation made something else.

        Args:
            states: as the store has them now.
        """
        changed = [name for name, key in self.lookup_keys.items() if states.get(name) != key.states]
        for name in changed:
            del self.lookup_keys[name]
        self.renewed += bool(changed)

    def drop(self, *, closed: Container[bytes], destroyed: Container[bytes], erased: Container[bytes]) -> None:
        """What an erasure touched.

        Args:
            closed: ids of keys that take no new values.
            destroyed: ids of keys that are gone.
            erased: tags of subjects whose handles are unlinked.
        """
        for name in [name for name, key in self.of_subject.items() if key.id in closed]:
            del self.of_subject[name]
        for key_id in [key_id for key_id in self.by_id if key_id in destroyed]:
            del self.by_id[key_id]
        for subject in [subject for subject, (tag, _) in self.handles.items() if tag in erased]:
            del self.handles[subject]
