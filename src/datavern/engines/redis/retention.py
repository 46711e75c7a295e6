"""How long a key may live: nothing outlives the retention."""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError, QueryRejected
from datavern.engines.redis.values import shown
from datavern.engines.redis.wire import pack

if TYPE_CHECKING:
    from datavern.engines.redis.router import Router

__all__ = ["Lives", "RetentionCut", "RetentionReport", "Seconds", "audit", "written_keys"]

Seconds = float | dt.timedelta
"""A time to live."""

_BATCH = 500
_LONGEST = 100 * 365 * 86_400 * 1000


class RetentionCut(UserWarning):
    """A key was given a longer life than the retention allows, and got the retention's."""


@dataclass(frozen=True, slots=True)
class RetentionReport:
    """What `audit_retention` found.

    Attributes:
        keys: how many keys were looked at.
        without: how many of them have no expiry.
        longer: how many have one beyond the retention.
        fixed: how many of both were given the retention's (with ``fix=True``).
        examples: some of both, by name. Names may say who somebody is: this is not for a log.
    """

    keys: int = 0
    without: int = 0
    longer: int = 0
    fixed: int = 0
    examples: tuple[str | bytes, ...] = field(default=(), repr=False)

    @property
    def ok(self) -> bool:
        """Whether every key ends within the retention."""
        return self.without + self.longer == self.fixed


class Lives:
    """How long keys of one provider live.

    Args:
        provider: its name, for messages.
        retention: seconds; None: no bound.

    Attributes:
        cap: the bound in milliseconds, or None.
        default: what a key without an expiry of its own gets: the arguments of SET.
    """

    __slots__ = ("_provider", "cap", "default")

    def __init__(self, provider: str, retention: float | None) -> None:
        self._provider = provider
        self.cap = None if retention is None else max(1, int(retention * 1000))
        self.default: tuple[Any, ...] = () if self.cap is None else (b"PX", self.cap)

    def milliseconds(self, ex: Seconds | None) -> int | None:
        """The life that a key gets; warns (`RetentionCut`) when that is shorter than what was asked for.

        Raises:
            ConfigurationError: no time to live is that, or longer than a hundred years.
        """
        if ex is None:
            return self.cap
        seconds = ex.total_seconds() if isinstance(ex, dt.timedelta) else ex
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds * 1000 <= _LONGEST:
            raise ConfigurationError(
                f"{self._provider}: ex is how long a key lives: seconds or a timedelta, more than 0, at most 100 years"
            )
        wanted = max(1, round(seconds * 1000))
        if self.cap is not None and wanted > self.cap:
            warnings.warn(
                f"{self._provider}: a key was given {_told(wanted)} to live, and the retention cuts it to "
                f"{_told(self.cap)}",
                RetentionCut,
                stacklevel=_outside(),
            )
            return self.cap
        return wanted


def _told(milliseconds: int) -> str:
    return str(dt.timedelta(milliseconds=milliseconds))


def _outside() -> int:
    """The level of the first caller outside Datavern: a warning names the line that asked."""
    level, frame = 1, sys._getframe(1)  # noqa: SLF001  (warnings does the same; Python 3.12 has skip_file_prefixes)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("datavern."):
        level, frame = level + 1, frame.f_back
    return level


async def audit(
    router: Router,
    cap: int | None,
    *,
    fix: bool,
    limit: int,
    glob: bytes | None = None,
    wanted: Callable[[bytes], bool] | None = None,
) -> RetentionReport:
    """Look at every key's expiry; see `RedisProvider.audit_retention`.

    Args:
        router: where to ask.
        cap: the longest life, in milliseconds.
        fix: give keys that live longer that life.
        limit: so many are named in the report.
        glob: only of keys that match; None: of all.
        wanted: only of keys of which it says so.
    """
    keys = without = longer = fixed = 0
    examples: list[str | bytes] = []
    found: AsyncIterator[list[bytes]] = router.scan(glob, _BATCH)
    async for every in found:
        batch = every if wanted is None else [key for key in every if wanted(key)]
        lives = await asyncio.gather(*[router.call(pack((b"PTTL", key)), key, True) for key in batch])
        for key, life in zip(batch, lives, strict=True):
            if life == -2:  # noqa: PLR2004  (PTTL: gone since the scan saw it)
                continue
            keys += 1
            if life == -1:
                without += 1
            elif cap is not None and life > cap:
                longer += 1
            else:
                continue
            if len(examples) < limit:
                examples.append(shown(key))
            if fix and cap is not None:
                fixed += await router.call(pack((b"PEXPIRE", key, cap)), key, False)
    return RetentionReport(keys, without, longer, fixed, tuple(examples))


async def written_keys(router: Router, words: tuple[Any, ...], route: bytes) -> list[bytes]:
    """The keys that a command writes, as the server itself reads the command (COMMAND GETKEYSANDFLAGS).

    Args:
        router: where it is to go.
        words: the command.
        route: by which a cluster routes it.

    Raises:
        QueryRejected: the server does not let this user ask (ACL: ``+command``).
    """
    refused = ""
    try:
        found = await router.call(pack((b"COMMAND", b"GETKEYSANDFLAGS", *words)), route, True)
    except QueryRejected as error:
        if error.code != "ERR":
            raise
        refused = error.code
    if refused:  # without keys there is nothing to bound (PING, FLUSHALL); what is wrong with it, the command will say
        return []
    return [key for key, flags in found if b"RO" not in flags]
