"""The calls of a key store that a manager's rotator answers: it alone reaches every dataset."""

from __future__ import annotations

from typing import Any

from datavern.contracts.errors import ConfigurationError

__all__ = ["Rotating"]


class Rotating:
    """The part of a `KeyStore` that rotates its keys, verifies them and hands out copies for recovery."""

    _rotator: Any = None

    @property
    def rotator(self) -> Any:
        """What rotates these keys (`datavern.privacy.sealing.rotation`): a manager's, since it reaches every dataset.

        Raises:
            ConfigurationError: the store belongs to no manager.
        """
        if self._rotator is None:
            raise ConfigurationError("keys are rotated by the manager that reaches every dataset: db.keys.rotate()")
        return self._rotator

    @rotator.setter
    def rotator(self, rotator: Any) -> None:
        self._rotator = rotator

    async def rotate(self, **settings: Any) -> Any:
        """Wrap every living key under a new epoch key, make every lookup index anew, and destroy the old epoch key.

        It runs beside the service, in batches; no writer waits for it. What was cut off, by a crash or because
        something could not be reached, goes on from where it was when it is called again. Of two at once one goes on.

        Args:
            copy: where the copy of the key store goes that is read back before the old key is destroyed: a folder, or
                a `datavern.privacy.sealing.rotation.Saved`; the manager's ``key_copies`` when left out.
            patience: seconds to wait for replicas.
            progress: called with "keys" or "rows" and how many more are done.

        Returns:
            The `datavern.crypto.rotations.Rotation`. Its ``state`` is "done", or "purge" while a vault still keeps the
            old key.

        Raises:
            RotationIncomplete: another process is at it; or something it has to wait for: `reasons` says what.
            ConfigurationError: the ring cannot destroy keys, or nobody said where the copy goes.
            KeyUnavailable: the vault did not answer.
        """
        return await self.rotator.rotate(**settings)

    async def status(self) -> Any:
        """How the keys stand, and until when a rotation is due (`datavern.privacy.sealing.rotation.KeyStatus`)."""
        return await self.rotator.status()

    async def verify(self, **settings: Any) -> list[str]:
        """Unwrap every key of the store, and look whether each erasure stands in all of its tables.

        Returns:
            What does not unwrap, and what one of the tables has lost, one line each; empty when all is well.
        """
        problems: list[str] = await self.rotator.verify(**settings)
        return problems

    async def export_recovery(self, *, threshold: int, shares: int) -> Any:
        """Seal a copy of the key ring for several people, of whom `threshold` together can open it.

        The store remembers that there is one: an erasure is not called shredded while its keys could be brought back.

        Args:
            threshold: how many are needed, 2 at the least.
            shares: how many people get one, 16 at the most.

        Returns:
            A `datavern.crypto.recovery.Export`: its file, to be kept, and a share for each person, to be handed out and
            kept nowhere else. `datavern.crypto.recovery.combine` and `Keyring.restore` make a ring of them.

        Raises:
            ConfigurationError: numbers that make no sense, or the library is not installed.
        """
        return await self.rotator.export_recovery(threshold=threshold, shares=shares)

    async def end_recovery(self, id_: str) -> None:
        """Write down that a recovery's file, or enough of its shares, were destroyed: whoever acts answers for it.

        Args:
            id_: its name.

        Raises:
            ConfigurationError: there is none of that name.
        """
        await self.rotator.end_recovery(id_)
