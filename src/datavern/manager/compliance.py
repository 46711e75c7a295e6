"""What contradicts the rule sets that a manager's databases are to follow (`DatabaseManager.compliance_problems`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from datavern.contracts.capabilities import Provider

if TYPE_CHECKING:
    from datavern.privacy.datamap.datamap import DataMap

__all__ = ["problems"]


def problems(databases: Mapping[str, Provider], *, data_map: DataMap | None, keyring: str | None) -> list[str]:
    """One line for each problem, with the path of the setting and what to do; empty when all is well."""
    found: list[str] = []
    for name, provider in databases.items():
        where = f"databases.{name}: compliance"
        if "nsm" in provider.compliance:
            found += [f"{where} nsm {problem}" for problem in _nsm(name, provider, data_map, keyring)]
        if "gdpr" in provider.compliance and data_map is None:
            found.append(
                f"{where} gdpr asks for a data map: say which personal data lies where (data_map=, or [datasets] "
                "in the configuration file), or that there is none (data_map=DataMap(), or an empty [datasets])"
            )
        elif "gdpr" in provider.compliance and data_map is not None:
            found += data_map.without_basis(name)
    return found


def _nsm(name: str, provider: Provider, data_map: DataMap | None, keyring: str | None) -> Iterator[str]:
    if not provider.encrypted:
        yield "refuses an unencrypted or unverified connection beyond this machine (NSM 2.7.4): use tls verify full"
    if keyring is not None and keyring.startswith("env:"):
        yield "refuses keys in the environment (NSM 2.7.1): use file:"
    if keyring is None and data_map is not None and data_map.of_database(name):
        yield (
            "refuses writes to personal data that leave no audit entry (NSM 3.2.4), and without a keyring there is "
            "no audit log: give the manager keyring='file:keys'"
        )
