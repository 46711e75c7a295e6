"""Commands that are gathered, and sent in a single write."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import hiredis

from datavern.contracts.errors import QueryRejected
from datavern.engines.redis.errors import rejected
from datavern.engines.redis.retention import Seconds
from datavern.engines.redis.steps import Key, Step, Steps, names_of_step

if TYPE_CHECKING:
    from datavern.engines.redis.commands import Commands

__all__ = ["Pipeline"]


class Pipeline:
    """Commands for one trip. `execute` sends what was gathered, and may be called again.

    Without `execute` leaving the block sends nothing: an exception on the way leaves nothing half done.
    """

    def __init__(self, commands: Commands, steps: Steps, *, transaction: bool) -> None:
        self._commands, self._steps, self._transaction = commands, steps, transaction
        self._gathered: list[Callable[[], Awaitable[Step]]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._gathered.clear()

    def __len__(self) -> int:
        return len(self._gathered)

    def get(self, key: Key, *, subject: object = None) -> Self:
        """As `RedisProvider.get`."""
        return self._add(partial(self._steps.get, key, subject=subject))

    def set(
        self, key: Key, value: Any, *, ex: Seconds | None = None, nx: bool = False, xx: bool = False,
        subject: object = None,
    ) -> Self:  # fmt: skip
        """As `RedisProvider.set`."""
        return self._add(partial(self._steps.set, key, value, ex=ex, nx=nx, xx=xx, subject=subject))

    def delete(self, key: Key) -> Self:
        """As `RedisProvider.delete`, of one key."""
        return self._add(partial(self._steps.delete, key))

    def exists(self, key: Key) -> Self:
        """As `RedisProvider.exists`, of one key."""
        return self._add(partial(self._steps.exists, key))

    def expire(self, key: Key, ex: Seconds) -> Self:
        """As `RedisProvider.expire`."""
        return self._add(partial(self._steps.expire, key, ex))

    def ttl(self, key: Key) -> Self:
        """As `RedisProvider.ttl`."""
        return self._add(partial(self._steps.ttl, key))

    def incr(self, key: Key, by: int = 1) -> Self:
        """As `RedisProvider.incr`."""
        return self._add(partial(self._steps.incr, key, by))

    def decr(self, key: Key, by: int = 1) -> Self:
        """As `RedisProvider.decr`."""
        return self._add(partial(self._steps.incr, key, -by))

    def publish(self, channel: Key, value: Any, *, subject: object = None) -> Self:
        """As `RedisProvider.publish`."""
        return self._add(partial(self._steps.publish, channel, value, subject=subject))

    def xadd(self, key: Key, fields: Mapping[str, Any], *, maxlen: int | None = None, subject: object = None) -> Self:
        """As `RedisProvider.xadd`."""
        return self._add(partial(self._steps.xadd, key, fields, maxlen=maxlen, subject=subject))

    def _add(self, make: Callable[[], Awaitable[Step]]) -> Self:
        self._gathered.append(make)
        return self

    async def execute(self, *, raise_on_error: bool = True) -> list[Any]:
        """Send what was gathered; the results in order.

        Args:
            raise_on_error: raise the first error; False: errors stand among the results, in their places. What could
                not be sent at all, or a transaction that was refused as a whole, is raised in any case.

        Raises:
            ProviderError: as the commands themselves do.
        """
        gathered, self._gathered = self._gathered, []
        steps = [await make() for make in gathered]
        if not steps:
            return []
        run = self._as_transaction if self._transaction else self._one_by_one
        results = await run(steps)
        if raise_on_error:
            for result in results:
                if isinstance(result, BaseException):
                    raise result
        return results

    async def _one_by_one(self, steps: list[Step]) -> list[Any]:
        run = self._commands._run  # noqa: SLF001  (a pipeline is a part of it)
        return list(await asyncio.gather(*[run(step) for step in steps], return_exceptions=True))

    async def _as_transaction(self, steps: list[Step]) -> list[Any]:
        commands = self._commands
        slots = {commands._router.slot(step.key) for step in steps}  # noqa: SLF001  (the same)
        if len(slots) > 1:
            raise QueryRejected(
                f"{commands.name}: in a cluster a transaction has keys of one slot: one {{hash tag}} (CROSSSLOT)",
                provider=commands.name,
                code="CROSSSLOT",
            )
        watched = commands._watched  # noqa: SLF001  (the same)
        if watched is not None and watched.due():
            for step in steps:
                await watched.admit(names_of_step(step) or (step.key,), writing=not step.read)
        if commands._audited is not None:  # noqa: SLF001  (the same)
            await commands._audited.note(name for step in steps for name in names_of_step(step))  # noqa: SLF001  (the same)
        parts = [part for step in steps for part in step.parts]
        replies = await commands._transact(parts, steps[0].key)  # noqa: SLF001  (the same)
        results: list[Any] = []
        at = 0
        for step in steps:
            mine = replies[at : at + len(step.parts)]
            at += len(step.parts)
            reply = next((each for each in mine if isinstance(each, hiredis.ReplyError)), mine[0])
            if isinstance(reply, hiredis.ReplyError):
                results.append(rejected(str(reply), commands.name, reply))
            elif step.finish is None:
                results.append(reply)
            else:
                results.append(await _finished(step, reply))
        return results


async def _finished(step: Step, reply: Any) -> Any:
    assert step.finish is not None  # noqa: S101  (for the type checker: the caller looked)
    try:
        return await step.finish(reply)
    except Exception as error:  # noqa: BLE001  (it stands among the results)
        return error
