"""Where the audit log's checkpoints are published, from what the settings say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from datavern.contracts.capabilities import Provider
from datavern.contracts.errors import ConfigurationError

if TYPE_CHECKING:
    from datavern.audit.publishing import Publisher

__all__ = ["check_checkpoints", "publisher"]


def check_checkpoints(
    checkpoints: Sequence[str | Publisher], databases: Mapping[str, Provider], ledger: str | None, keyring: str | None
) -> None:
    """See that checkpoints can be published where they are to be.

    Raises:
        ConfigurationError: not there, or not without keys.
    """
    if checkpoints and keyring is None:
        raise ConfigurationError("checkpoints: without a keyring there is no audit log: keyring='file:keys'")
    for one in checkpoints:
        if not isinstance(one, str):
            continue
        kind, _, rest = one.partition(":")
        if kind not in {"file", "database"} or not rest:
            raise ConfigurationError(f"checkpoints: {one}: expected file:folder or database:name")
        if kind == "database" and rest not in databases:
            raise ConfigurationError(f"checkpoints: no database is named {rest}; there are: {', '.join(databases)}")
        if kind == "database" and rest == ledger:
            raise ConfigurationError(
                f"checkpoints: {rest} is the ledger: whoever can set its log back can set them back too; take another"
            )


def publisher(one: str | Publisher, databases: Mapping[str, Provider]) -> Publisher:
    """What publishes there."""
    if not isinstance(one, str):
        return one
    from datavern.audit.publishing import DatabasePublisher, FilePublisher  # noqa: PLC0415  (few managers have one)

    kind, _, rest = one.partition(":")
    return FilePublisher(rest) if kind == "file" else DatabasePublisher(databases[rest])
