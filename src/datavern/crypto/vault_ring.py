"""A key ring in a vault (FORMAT.md, 14): each epoch key, and the signing key, wrapped by a key that never leaves it.

The vault's key of an epoch unwraps the epoch key when the ring is opened; destroying it destroys the epoch. What a
vault must offer is `Vault`; its calls are synchronous, run in a thread, and end within a deadline.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

from datavern.contracts.errors import ConfigurationError, DatavernError, KeyUnavailable
from datavern.contracts.values import timestamp
from datavern.crypto.keyring import Destruction, Secrets
from datavern.crypto.ring import KEY, Ring, RingProvider, fingerprint, new_secrets, signing_name
from datavern.crypto.signing import Signer
from datavern.crypto.xaes import XAESGCM

__all__ = ["DEADLINE", "Vault", "VaultProvider"]

T = TypeVar("T")

DEADLINE: Final = 30.0
"""Seconds for all that one call does in the vault."""

_SIGNING = "signing"
_VERSION = "1"
_NO_ANSWERS = (LookupError, TypeError, ValueError, AttributeError)
"""What a client makes of an answer that is none: a proxy's page, a service that stands at the address by mistake."""


class Vault(Protocol):
    """What a vault does for a ring. Synchronous; each call may be made again after it failed.

    A *name* is ``signing`` or ``epoch-N``; the vault puts the ring's own name before it. A *record* is a mapping from
    short names to short texts, kept beside the key: no secret without it.
    """

    def records(self) -> Mapping[str, Mapping[str, str]]:
        """Name → record, of every key that has one and was not deleted."""
        ...

    def wrap(self, name: str, secret: bytes) -> bytes:
        """The secret, encrypted under that key, which does not leave the vault and is made where it is missing."""
        ...

    def unwrap(self, name: str, wrapped: bytes) -> bytes:
        """The secret again."""
        ...

    def keep(self, name: str, record: Mapping[str, str], over: Mapping[str, str] | None) -> bool:
        """Keep the record of a key in the place of `over`, or where there is none (None).

        False: somebody else has kept another one meanwhile, and that stays. What was wrapped under its epoch key would
        be lost with it.
        """
        ...

    def settle(self) -> None:
        """Wait until what somebody else kept at the same moment is among the records, where `keep` may not see it."""
        ...

    def withdraw(self, name: str, record: Mapping[str, str]) -> None:
        """Take a record away that this process kept, and beside which somebody else's was first. Nothing used it."""
        ...

    def destroy(self, name: str) -> Destruction:
        """Delete a key and its record, for good where the vault lets it; how far that is by now. Idempotent."""
        ...

    def close(self) -> None:
        """Let go of the connections. Idempotent."""
        ...

    def problem(self, error: Exception) -> str | None:
        """What an error of the vault's client means, without anything that it quotes; None: it is not one."""
        ...


class VaultProvider(RingProvider):
    """A `KeyProvider` over a vault.

    Args:
        place: what stands in messages: the vault's address and the ring's name.
    """

    __slots__ = ("_made", "_place")

    def __init__(self, place: str) -> None:
        super().__init__()
        self._place = place
        self._made: Vault | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._place!r})"

    def _vault(self) -> Vault:
        """The vault's client; made in the thread that calls it first."""
        raise NotImplementedError

    async def _do(self, work: Callable[[Vault], T]) -> T:
        def run() -> T:
            if self._made is None:
                self._made = self._vault()
            problem = ""
            try:
                return work(self._made)
            except DatavernError:
                raise
            except Exception as error:
                told = self._made.problem(error)
                if told is None and not isinstance(error, _NO_ANSWERS):
                    raise
                problem = told or f"what answered is no such vault ({type(error).__name__})"
            raise KeyUnavailable(f"{self._place}: {problem}")

        try:
            return await asyncio.wait_for(asyncio.to_thread(run), DEADLINE)
        except TimeoutError:
            pass
        raise KeyUnavailable(f"{self._place}: the vault did not answer within {DEADLINE:g} seconds")

    async def close(self) -> None:
        """Drop the keys, and the connections."""
        await super().close()
        made, self._made = self._made, None
        if made is not None:
            await asyncio.to_thread(made.close)

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def _load(self) -> Ring:
        secrets = await self._do(self._read)
        ciphers = {number: XAESGCM(key) for number, key in secrets.epochs.items()}
        signer = Signer(secrets.signing_name, secrets.signing_seed)
        return Ring(secrets.ring_id, secrets.generation, max(ciphers), ciphers, signer)

    def _read(self, vault: Vault) -> Secrets:
        records = vault.records()
        signing = records.get(_SIGNING)
        if signing is None:
            raise ConfigurationError(
                f"there is no key ring in {self._place}. If it was moved or lost, put it back: from a recovery with "
                "`datavern keys import-recovery` (a new one opens nothing that is sealed already). For a new project, "
                "make one: Keyring.create"
            )
        ring_id = self._ring_id(signing)
        epochs: dict[int, bytes] = {}
        created: dict[int, str] = {}
        for name, record in records.items():
            kind, _, number = name.partition("-")
            if kind == "epoch" and number.isdecimal():
                if self._ring_id(record) != ring_id:
                    raise ConfigurationError(f"{self._place}: {name} is of another key ring")
                epochs[int(number)] = self._secret(vault, name, record)
                created[int(number)] = record.get("created", "")
        if not epochs:
            raise ConfigurationError(f"{self._place}: there is no epoch key: restore the vault's keys")
        # Each epoch that was made is a change, and each that was destroyed another.
        generation = 2 * max(epochs) - len(epochs)
        return Secrets(
            ring_id, generation, epochs, created, signing_name(ring_id), self._secret(vault, _SIGNING, signing)
        )

    def _ring_id(self, record: Mapping[str, str]) -> bytes:
        if record.get("version") != _VERSION:
            raise ConfigurationError(f"{self._place}: its records are of another version: install a later Datavern")
        try:
            ring_id = bytes.fromhex(record.get("ring", ""))
        except ValueError:
            ring_id = b""
        return ring_id if len(ring_id) == 16 else self._damaged()  # noqa: PLR2004  (16 bytes)

    def _secret(self, vault: Vault, name: str, record: Mapping[str, str]) -> bytes:
        try:
            wrapped = base64.b64decode(record.get("wrapped", ""), validate=True)
        except (binascii.Error, ValueError):
            wrapped = b""
        key = vault.unwrap(name, wrapped) if wrapped else self._damaged()
        return key if len(key) == KEY and fingerprint(key) == record.get("fingerprint") else self._damaged()

    def _damaged(self) -> Any:
        raise ConfigurationError(f"{self._place}: a record of the key ring is damaged")

    # ---- making -----------------------------------------------------------------------------------------------------

    async def create(self) -> None:
        """Make a ring of one epoch. See `KeyProvider.create`."""
        await self.restore(new_secrets())

    async def restore(self, secrets: Secrets) -> None:
        """Make a ring of what was recovered. See `KeyProvider.restore`."""

        def work(vault: Vault) -> None:
            there = vault.records()  # of a making that was cut off, when there is no signing key
            if _SIGNING in there:
                raise ConfigurationError(f"there is a key ring in {self._place} already: it is never overwritten")
            keys = {f"epoch-{number}": (key, secrets.created[number]) for number, key in secrets.epochs.items()}
            # Last: a ring is one when its signing key has its record.
            for name, (key, created) in {**keys, _SIGNING: (secrets.signing_seed, timestamp())}.items():
                if self._put(vault, name, secrets.ring_id, key, created, there.get(name)) is None:
                    break
            vault.settle()
            if vault.records().get(_SIGNING, {}).get("ring") != secrets.ring_id.hex():
                raise ConfigurationError(f"somebody else made a key ring in {self._place} at this moment")

        await self._do(work)

    @staticmethod
    def _put(  # noqa: PLR0917  (a step of two calls)
        vault: Vault, name: str, ring_id: bytes, key: bytes, created: str, over: Mapping[str, str] | None = None
    ) -> Mapping[str, str] | None:
        """The record as it was kept; None where somebody else's stays."""
        wrapped = base64.b64encode(vault.wrap(name, key)).decode()
        record = {"version": _VERSION, "ring": ring_id.hex(), "created": created, "fingerprint": fingerprint(key)}
        record["wrapped"] = wrapped
        return record if vault.keep(name, record, over) else None

    async def secrets(self) -> Secrets:
        """See `KeyProvider.secrets`."""
        return await self._do(self._read)

    # ---- rotation ---------------------------------------------------------------------------------------------------

    async def add_epoch(self, number: int) -> None:
        """See `KeyProvider.add_epoch`."""
        await self.reload()
        if not self._check_next(number):
            ring_id = self.ring_id
            # Another process's key may be kept, or one of a call that was given up on and came through after all: then
            # that is the epoch's. The ring is read again either way.
            await self._do(lambda vault: self._add(vault, f"epoch-{number}", ring_id))
            await self.reload()

    def _add(self, vault: Vault, name: str, ring_id: bytes) -> None:
        kept = self._put(vault, name, ring_id, os.urandom(KEY), timestamp())
        if kept is not None:
            vault.settle()  # before anything is wrapped under it: all see the same one first from here on
            if vault.records().get(name, {}).get("fingerprint") != kept["fingerprint"]:
                vault.withdraw(name, kept)

    async def destroy_epoch(self, number: int) -> Destruction:
        """See `KeyProvider.destroy_epoch`."""
        await self.reload()
        self._check_past(number)
        done = await self._do(lambda vault: vault.destroy(f"epoch-{number}"))
        await self.reload()
        return done
