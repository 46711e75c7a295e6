"""Whether the breach register is as it was written: each of its entries against its audit entry."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from datavern.audit.log import AuditLog

__all__ = ["WRITTEN", "digest_of", "verify_register"]

WRITTEN: Final = "breach_"
"""How the actions of the register's audit entries begin."""


def digest_of(row: Mapping[str, Any]) -> str:
    """What the audit log keeps of an entry: a digest of all of it, sealed as it is."""
    columns = json.dumps([row["id"], row["version"], row["at"], row["actor"]], ensure_ascii=False)
    return sha256(columns.encode("utf-8", "surrogatepass") + bytes(row["row_tag"]) + bytes(row["body"])).hexdigest()


async def verify_register(log: AuditLog, rows: Sequence[Any], *, whole: bool) -> list[str]:
    """What is wrong, one line each.

    Args:
        log: the ledger's.
        rows: every entry, by breach and in order.
        whole: read the whole log, too: the last entries of a breach may have been removed.
    """
    cut = await log.truncated() is not None
    problems: list[str] = []
    there: set[tuple[str, int]] = set()
    last: dict[str, tuple[int, str, bool]] = {}  # breach → version, digest, and whether the log spoke of it
    for row in rows:
        breach, version = place = row["id"], row["version"]
        digest = digest_of(row)
        entry = await log.entry_of(row["entry"])
        said = {} if entry is None else json.loads(entry["details"] or "{}")
        known = (said.get("breach"), said.get("version")) == place
        if not known and (entry is not None or not cut):
            problems.append(f"{breach}: entry {version} stands in no audit log")
            continue
        there.add(place)
        if known and said.get("digest") != digest:
            problems.append(f"{breach}: entry {version} was changed")
        earlier, before, spoken = last.get(breach, (0, "", True))
        for missing in range(earlier + 1, version):
            there.add((breach, missing))
            problems.append(f"{breach}: entry {missing} was removed")
        if not spoken and earlier == version - 1 and said.get("before", before) != before:
            problems.append(f"{breach}: entry {earlier} was changed")
        last[breach] = version, digest, known
    if whole:
        async for entry in log.entries():
            if entry["action"].startswith(WRITTEN):
                said = json.loads(entry["details"] or "{}")
                if "digest" in said and (said["breach"], said["version"]) not in there:
                    problems.append(f"{said['breach']}: entry {said['version']} was removed")
    return problems
