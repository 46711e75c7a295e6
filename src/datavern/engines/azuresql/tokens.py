"""Who we are to Azure: Entra access tokens, asked for before the last one expires."""

from __future__ import annotations

import asyncio
import inspect
import time
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from datavern.contracts.errors import ConfigurationError, ConnectionFailed, DatavernError, DriverError

if TYPE_CHECKING:
    from datavern.config import Secret
    from datavern.engines.azuresql.settings import AzureSQLSettings

__all__ = ["Identity"]

_SCOPE: Final = "https://database.windows.net/.default"
_EARLY: Final = 300.0
"""Seconds before a token expires in which a new one is asked for."""


class Identity:
    """What a connection signs in with: a password, or a token.

    A token matters when a connection is made; the server lets one that is open go on. So it is kept until it is about
    to expire, and fetched anew when the server has refused it.
    """

    def __init__(self, settings: AzureSQLSettings) -> None:
        self._settings = settings
        self._credential: Any = None
        self._token: str | None = None
        self._expires = 0.0
        self._asking = asyncio.Lock()

    @property
    def name(self) -> str:
        """Who signs in, for messages."""
        way = self._settings.signs_in_by
        if way == "sql":
            return self._settings.username or ""
        return {"token": "the token's identity", "managed-identity": "the managed identity"}.get(way, "this identity")

    async def password(self) -> str | None:
        """The SQL login's password; None for every other way.

        Raises:
            ConnectionFailed: its callable raised; what that said is not passed on.
        """
        if self._settings.signs_in_by != "sql" or self._settings.password is None:
            return None
        value = await self._revealed(self._settings.password, "password")
        if not isinstance(value, str):
            raise ConfigurationError(
                f"{self._settings.name}.password: the callable gave {type(value).__name__}, expected str"
            )
        return value

    async def token(self) -> str | None:
        """An access token that lives for some minutes yet; None for a SQL login.

        Raises:
            ConnectionFailed: none could be had; what the other side said is not passed on.
            ConfigurationError: `azure-identity` is not installed.
        """
        if self._settings.signs_in_by == "sql":
            return None
        async with self._asking:
            if self._token is None or time.time() > self._expires - _EARLY:
                self._token, self._expires = await self._fresh()
            return self._token

    def refused(self) -> None:
        """The server did not take it: the next one is fetched anew."""
        self._token = None

    async def _fresh(self) -> tuple[str, float]:
        settings = self._settings
        if settings.token is not None:
            given = await self._revealed(settings.token, "token")
        else:
            given = await self._from_azure()
        text = getattr(given, "token", given)
        expires = getattr(given, "expires_on", None)
        if isinstance(given, tuple) and len(given) == 2:  # noqa: PLR2004  (the token, and when it expires)
            text, expires = given
        if not isinstance(text, str) or not text:
            raise ConfigurationError(
                f"{settings.name}.token: the callable gave {type(given).__name__}, expected the token as a str, or "
                "azure-identity's AccessToken"
            )
        # Of a bare text nobody knows how long it lives: it is asked for anew for each connection.
        return text, float(expires) if isinstance(expires, int | float) else 0.0

    async def _from_azure(self) -> Any:
        if self._credential is None:
            self._credential = _credential(self._settings)
        failed: Exception
        try:
            return await asyncio.to_thread(self._credential.get_token, _SCOPE)
        except Exception as error:  # noqa: BLE001  (what it says may hold what nobody should read)
            failed = error
        raise ConnectionFailed(
            f"{self._settings.name}: no token could be had for {self.name} ({type(failed).__name__}): check that this "
            "machine has an identity, and that it may sign in",
            provider=self._settings.name,
        ) from DriverError.of(failed)

    async def _revealed(self, secret: Secret, what: str) -> Any:
        failed: Exception
        try:
            value = secret.reveal()
            if inspect.isawaitable(value):
                value = await value
        except DatavernError:
            raise
        except Exception as error:  # noqa: BLE001  (what it says may hold the secret: only its type is passed on)
            failed = error
        else:
            return value
        raise ConnectionFailed(
            f"{self._settings.name}: the {what}'s callable raised {type(failed).__name__}", provider=self._settings.name
        ) from DriverError.of(failed)


def _credential(settings: AzureSQLSettings) -> Any:
    """azure-identity's credential.

    Raises:
        ConfigurationError: it is not installed.
    """
    identity: Any = None
    with suppress(ModuleNotFoundError):  # said below, outside of the except block
        identity = import_module("azure.identity")  # only where it is used
    if identity is None:
        raise ConfigurationError(
            f"{settings.name}: authentication={settings.signs_in_by!r} needs azure-identity: "
            "pip install 'datavern[azure-identity]'; or pass token=, a callable that gives one"
        )
    if settings.signs_in_by == "managed-identity":
        return identity.ManagedIdentityCredential(client_id=settings.username)
    return identity.DefaultAzureCredential()
