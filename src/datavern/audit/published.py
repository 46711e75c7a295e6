"""The table of published checkpoints, and its statements."""

from __future__ import annotations

import sqlalchemy as sa

from datavern.contracts.statements import Statement

__all__ = ["Published"]


class Published:
    """One row for each checkpoint that was published here."""

    def __init__(self) -> None:
        self.metadata = sa.MetaData()
        table = sa.Table(
            "datavern_audit_published",
            self.metadata,
            sa.Column("origin", sa.Text, primary_key=True),
            sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
            sa.Column("at", sa.Text, nullable=False),
            sa.Column("note", sa.Text, nullable=False),
        )
        self.insert = Statement(lambda: sa.insert(table))
        self.latest = Statement(
            lambda: (
                sa.select(table.c.note)
                .where(table.c.origin == sa.bindparam("of"))
                .order_by(table.c.size.desc())
                .limit(1)
            )
        )
