"""The breach register's own table: an entry is added, and none is ever changed."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from datavern.contracts.statements import Statement

if TYPE_CHECKING:
    import sqlalchemy as sa

BREACHES = "datavern_breaches"


@cache
def breach_tables() -> sa.MetaData:
    """The table, in the ledger database."""
    import sqlalchemy as sa  # noqa: PLC0415  (loaded when the register is first used)

    metadata = sa.MetaData()
    sa.Table(
        BREACHES,
        metadata,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("actor", sa.Text),
        sa.Column("entry", sa.Text, nullable=False),  # of the audit log, which holds the digest of the sealed body
        sa.Column("row_tag", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),  # sealed
    )
    return metadata


def _table() -> Any:
    return breach_tables().tables[BREACHES]


def _bind(name: str) -> Any:
    import sqlalchemy as sa  # noqa: PLC0415  (as above)

    return sa.bindparam(name)


INSERT = Statement(lambda: _table().insert())
OF = Statement(lambda: _table().select().where(_table().c.id == _bind("breach")).order_by(_table().c.version))
ALL = Statement(lambda: _table().select().order_by(_table().c.id, _table().c.version))
