"""Datavern's own tables for what must stay: holds, the rows that they keep, and the erasures that wait for these.

The first two are where the data is, the third is in the ledger. As everywhere (docs/decisions/0002-own-tables.md), a
person and a row's key are named by keyed tags, and what must be read again is sealed.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from datavern.contracts.statements import Among, Statement

if TYPE_CHECKING:
    import sqlalchemy as sa

HOLDS = "datavern_holds"
KEPT = "datavern_kept"
COMPLETIONS = "datavern_completions"


@cache
def site_tables() -> sa.MetaData:
    """The tables of every database that holds datasets: what they say commits with the rows that it is about."""
    import sqlalchemy as sa  # noqa: PLC0415  (loaded when the first own table is needed)

    metadata = sa.MetaData()
    sa.Table(
        HOLDS,
        metadata,
        sa.Column("entry", sa.Text, primary_key=True),
        sa.Column("hold", sa.Text, nullable=False),  # a hold of several rows has several entries
        sa.Column("dataset", sa.Text, nullable=False),  # its name, or * for all
        sa.Column("subject_tag", sa.LargeBinary, nullable=False),  # empty: the rows are about nobody
        sa.Column("key_tag", sa.LargeBinary, nullable=False),  # of the row's primary key; empty: all of the subject's
        sa.Column("row_tag", sa.LargeBinary, nullable=False),  # what the sealed values here are bound to
        sa.Column("sealed", sa.LargeBinary, nullable=False),  # whose, and why
        sa.Column("until", sa.Text),  # its last day
        sa.Column("placed_at", sa.Text, nullable=False),
        sa.Column("actor", sa.Text),
        sa.Column("released_at", sa.Text),
        sa.Column("released_by", sa.Text),
        sa.Index("datavern_holds_subject", "subject_tag"),
        sa.Index("datavern_holds_hold", "hold"),
        sa.Index("datavern_holds_standing", "released_at"),
    )
    sa.Table(
        KEPT,  # the rows that an erasure left because of a hold: they end when it does
        metadata,
        sa.Column("entry", sa.Text, primary_key=True),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("dataset", sa.Text, nullable=False),
        sa.Column("key_tag", sa.LargeBinary, nullable=False),
        sa.Index("datavern_kept_request", "request"),
    )
    return metadata


@cache
def ledger_tables() -> sa.MetaData:
    """The table of the ledger database."""
    import sqlalchemy as sa  # noqa: PLC0415  (as above)

    metadata = sa.MetaData()
    sa.Table(
        COMPLETIONS,
        metadata,
        sa.Column("request", sa.Text, primary_key=True),
        sa.Column("subject_tag", sa.LargeBinary, nullable=False),  # empty once the erasure is complete
        sa.Column("row_tag", sa.LargeBinary, nullable=False),
        sa.Column("subject", sa.LargeBinary),  # sealed, and only while it waits
        sa.Column("received", sa.Text, nullable=False),
        sa.Column("due", sa.Text, nullable=False),  # the first day on which something may go
        sa.Column("datasets", sa.Text, nullable=False),
        sa.Column("completed_at", sa.Text),
        sa.Column("certificate", sa.LargeBinary),  # sealed
        sa.Index("datavern_completions_due", "completed_at", "due"),
        sa.Index("datavern_completions_subject", "subject_tag"),
    )
    return metadata


def _table(name: str) -> Any:
    return (ledger_tables() if name == COMPLETIONS else site_tables()).tables[name]


def _bind(name: str) -> Any:
    import sqlalchemy as sa  # noqa: PLC0415  (as above)

    return sa.bindparam(name)


def _standing() -> Any:
    """The holds on a dataset that stand on a day."""
    table = _table(HOLDS)
    on = table.c.dataset.in_([_bind("of_dataset"), _bind("every")])
    return on & table.c.released_at.is_(None) & (table.c.until.is_(None) | (table.c.until >= _bind("today")))


def _holds_of(values: list[Any]) -> Any:
    table = _table(HOLDS)
    return table.select().where(_standing() & table.c.subject_tag.in_(values))


def _holds_list() -> Any:
    table = _table(HOLDS)
    return table.select().order_by(table.c.placed_at, table.c.entry)


def _hold_release() -> Any:
    table = _table(HOLDS)
    of_hold = (table.c.hold == _bind("of_hold")) & table.c.released_at.is_(None)
    return table.update().where(of_hold).values(released_at=_bind("at"), released_by=_bind("by"))


def _kept_of() -> Any:
    table = _table(KEPT)
    return table.select().where(table.c.request == _bind("of_request"))


def _kept_delete() -> Any:
    table = _table(KEPT)
    return table.delete().where(table.c.entry == _bind("of_entry"))


def _waiting() -> Any:
    return _table(COMPLETIONS).c.completed_at.is_(None)


def _due() -> Any:
    table = _table(COMPLETIONS)
    due = _waiting() & (table.c.due <= _bind("day")) & (table.c.request > _bind("behind"))
    return table.select().where(due).order_by(table.c.request).limit(_bind("most"))


def _waiting_of(values: list[Any]) -> Any:
    table = _table(COMPLETIONS)
    return table.select().where(_waiting() & table.c.subject_tag.in_(values)).order_by(table.c.request)


def _waiting_among(values: list[Any]) -> Any:
    table = _table(COMPLETIONS)
    return table.select().with_only_columns(table.c.request).where(_waiting() & table.c.request.in_(values))


def _put_off() -> Any:
    table = _table(COMPLETIONS)
    return table.update().where(_waiting() & (table.c.request == _bind("of_request"))).values(due=_bind("day"))


def _hasten(values: list[Any]) -> Any:
    table = _table(COMPLETIONS)
    return table.update().where(_waiting() & table.c.subject_tag.in_(values)).values(due=_bind("day"))


def _complete() -> Any:
    table = _table(COMPLETIONS)
    done = {"completed_at": _bind("at"), "certificate": _bind("signed"), "subject_tag": _bind("nobody")}
    return table.update().where(_waiting() & (table.c.request == _bind("of_request"))).values(**done, subject=None)


def _completion() -> Any:
    table = _table(COMPLETIONS)
    return table.select().where(table.c.request == _bind("of_request"))


def _kept_requests() -> Any:
    table = _table(KEPT)
    return table.select().with_only_columns(table.c.request, table.c.dataset).distinct()


def _reopen() -> Any:
    table = _table(COMPLETIONS)
    again = {"due": _bind("day"), "datasets": _bind("reach"), "subject": _bind("sealed"), "subject_tag": _bind("tag")}
    done = (table.c.request == _bind("of_request")) & table.c.completed_at.is_not(None)
    return table.update().where(done).values(**again, completed_at=None)


HOLD_INSERT = Statement(lambda: _table(HOLDS).insert())
HOLDS_OF = Among(_holds_of)
HOLDS_OF_ALL = Statement(lambda: _table(HOLDS).select().where(_standing()))
HOLDS_LIST = Statement(_holds_list)
HOLD_RELEASE = Statement(_hold_release)
KEPT_INSERT = Statement(lambda: _table(KEPT).insert())
KEPT_OF = Statement(_kept_of)
KEPT_DELETE = Statement(_kept_delete)
KEPT_REQUESTS = Statement(_kept_requests)
COMPLETION_REOPEN = Statement(_reopen)
COMPLETION_INSERT = Statement(lambda: _table(COMPLETIONS).insert())
COMPLETIONS_DUE = Statement(_due)
COMPLETIONS_OF = Among(_waiting_of)
COMPLETIONS_WAITING = Among(_waiting_among)
COMPLETION_PUT_OFF = Statement(_put_off)
COMPLETIONS_HASTEN = Among(_hasten)
COMPLETION_DONE = Statement(_complete)
COMPLETION = Statement(_completion)
