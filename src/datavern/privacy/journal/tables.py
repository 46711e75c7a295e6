"""Datavern's own tables for subject requests: the journal in the ledger, request steps in every database with data.

Text, bytes and 64-bit integers only, and time as RFC 3339 text (docs/decisions/0002-own-tables.md). A person is named
by a keyed tag; what must be read again is sealed.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from datavern.contracts.statements import Among, Statement

if TYPE_CHECKING:
    import sqlalchemy as sa

REQUESTS = "datavern_requests"
STEPS = "datavern_request_steps"


@cache
def ledger_tables() -> sa.MetaData:
    """The tables of the ledger database."""
    import sqlalchemy as sa  # noqa: PLC0415  (loaded when the first own table is needed)

    metadata = sa.MetaData()
    sa.Table(
        REQUESTS,
        metadata,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject_tag", sa.LargeBinary, nullable=False),  # empty once the person is erased
        sa.Column("subject", sa.LargeBinary),  # sealed, and only while the request is open
        sa.Column("row_tag", sa.LargeBinary, nullable=False),  # what the sealed values here are bound to
        sa.Column("received", sa.Text, nullable=False),
        sa.Column("deadline", sa.Text, nullable=False),
        sa.Column("opened_at", sa.Text, nullable=False),
        sa.Column("completed_at", sa.Text),
        sa.Column("actor", sa.Text),
        sa.Column("datasets", sa.Text),  # what the request must reach, so that a smaller data map does not end it early
        sa.Column("key_ids", sa.Text),  # of the keys that this erasure is to destroy, in hexadecimal
        sa.Column("certificate", sa.LargeBinary),  # sealed
        sa.Column("begun_at", sa.Text),  # empty while the request was only received
        sa.Column("extended_at", sa.Text),
        sa.Column("outcome", sa.Text),  # "done" or "rejected", once it is completed
        sa.Column("waiting", sa.Text),  # dataset → why, of the last time that it was worked on
        sa.Column("details", sa.LargeBinary),  # sealed: identity, what is asked for, extension, answer
        sa.Index("datavern_requests_subject", "subject_tag"),
        sa.Index("datavern_requests_open", "completed_at"),
    )
    return metadata


@cache
def step_tables() -> sa.MetaData:
    """The table of every database that holds datasets: a step commits with the rows that it changed."""
    import sqlalchemy as sa  # noqa: PLC0415  (as above)

    metadata = sa.MetaData()
    sa.Table(
        STEPS,
        metadata,
        sa.Column("request", sa.Text, primary_key=True),
        sa.Column("dataset", sa.Text, primary_key=True),
        sa.Column("outcome", sa.Text),  # canonical JSON: counts and column names, never a value
        sa.Column("done_at", sa.Text, nullable=False),
    )
    return metadata


def _table(name: str) -> Any:
    metadata = step_tables() if name == STEPS else ledger_tables()
    return metadata.tables[name]


def _bind(name: str) -> Any:
    import sqlalchemy as sa  # noqa: PLC0415  (as above)

    return sa.bindparam(name)


def _requests_open() -> Any:
    table = _table(REQUESTS)
    return table.select().where(table.c.completed_at.is_(None)).order_by(table.c.opened_at, table.c.id)


def _requests_open_of(values: list[Any]) -> Any:
    table = _table(REQUESTS)
    theirs = table.c.subject_tag.in_(values) & table.c.completed_at.is_(None)
    return table.select().where(theirs).order_by(table.c.opened_at, table.c.id)


def _requests_held(values: list[Any]) -> Any:
    table = _table(REQUESTS)
    return table.select().where(table.c.id.in_(values)).order_by(table.c.id).with_for_update()


def _request_by_id() -> Any:
    table = _table(REQUESTS)
    return table.select().where(table.c.id == _bind("request"))


def _request_close() -> Any:
    table = _table(REQUESTS)
    is_open = (table.c.id == _bind("request")) & table.c.completed_at.is_(None)
    done = {"completed_at": _bind("at"), "certificate": _bind("sealed"), "outcome": "done"}
    return table.update().where(is_open).values(**done, subject=None, waiting=None)


def _requests_unlink() -> Any:
    import sqlalchemy as sa  # noqa: PLC0415  (as above)

    table = _table(REQUESTS)
    of_subject = (table.c.subject_tag == _bind("tag")) & table.c.completed_at.is_not(None)
    # What was said about the person in earlier requests goes; the erasure's own details stay with its certificate.
    own = sa.case((table.c.id == _bind("own"), table.c.details), else_=sa.null())
    return table.update().where(of_subject).values(subject_tag=_bind("nobody"), details=own)


def _request_open() -> Any:
    table = _table(REQUESTS)
    return (table.c.id == _bind("request")) & table.c.completed_at.is_(None)


def _request_begin() -> Any:
    table = _table(REQUESTS)
    begun = {"begun_at": _bind("at"), "datasets": _bind("reach"), "key_ids": _bind("named"), "waiting": None}
    return table.update().where(_request_open() & table.c.begun_at.is_(None)).values(**begun)


def _request_unbegin() -> Any:
    return _table(REQUESTS).update().where(_request_open()).values(begun_at=None)


def _request_wait() -> Any:
    return _table(REQUESTS).update().where(_request_open()).values(waiting=_bind("why"))


def _request_note() -> Any:
    return _table(REQUESTS).update().where(_request_open()).values(details=_bind("sealed"))


def _request_extend() -> Any:
    table = _table(REQUESTS)
    extended = {"deadline": _bind("until"), "extended_at": _bind("at"), "details": _bind("sealed")}
    return table.update().where(_request_open() & table.c.extended_at.is_(None)).values(**extended)


def _request_complete() -> Any:
    done = {"completed_at": _bind("at"), "outcome": _bind("how"), "details": _bind("sealed")}
    return _table(REQUESTS).update().where(_request_open()).values(**done, subject=None, waiting=None)


def _steps_of(values: list[Any]) -> Any:
    table = _table(STEPS)
    return table.select().where(table.c.request.in_(values))


def _steps_counted(values: list[Any]) -> Any:
    import sqlalchemy as sa  # noqa: PLC0415  (as above)

    table = _table(STEPS)
    count = sa.func.count()
    return (
        table.select()
        .with_only_columns(table.c.request, count)
        .where(table.c.dataset.in_(values))
        .group_by(table.c.request)
    )


def _steps_named(values: list[Any]) -> Any:
    table = _table(STEPS)
    return table.select().with_only_columns(table.c.request, table.c.dataset).where(table.c.request.in_(values))


def _step_delete() -> Any:
    table = _table(STEPS)
    return table.delete().where((table.c.request == _bind("of_request")) & (table.c.dataset == _bind("of_dataset")))


REQUEST_INSERT = Statement(lambda: _table(REQUESTS).insert())
REQUEST_CLOSE = Statement(_request_close)
REQUEST_BY_ID = Statement(_request_by_id)
REQUEST_HELD = Statement(lambda: _request_by_id().with_for_update())
REQUEST_BEGIN = Statement(_request_begin)
REQUEST_UNBEGIN = Statement(_request_unbegin)
REQUEST_WAIT = Statement(_request_wait)
REQUEST_NOTE = Statement(_request_note)
REQUEST_EXTEND = Statement(_request_extend)
REQUEST_COMPLETE = Statement(_request_complete)
REQUESTS_OPEN = Statement(_requests_open)
REQUESTS_OPEN_OF = Among(_requests_open_of)
REQUESTS_BY_IDS = Among(lambda values: _table(REQUESTS).select().where(_table(REQUESTS).c.id.in_(values)))
REQUESTS_HELD = Among(_requests_held)
REQUESTS_UNLINK = Statement(_requests_unlink)
STEP_INSERT = Statement(lambda: _table(STEPS).insert())
STEPS_OF = Among(_steps_of)
STEPS_COUNTED = Among(_steps_counted)
STEPS_NAMED = Among(_steps_named)
STEP_DELETE = Statement(_step_delete)
