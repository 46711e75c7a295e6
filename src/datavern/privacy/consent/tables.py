"""Datavern's own tables for consent and for what stands against the use of data; all in the ledger.

As in `datavern.privacy.journal.tables`: text, bytes and 64-bit integers only, time as RFC 3339 text, people by a keyed
tag.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from datavern.contracts.statements import Among, Statement

if TYPE_CHECKING:
    import sqlalchemy as sa

CONSENTS = "datavern_consents"
TEXTS = "datavern_consent_texts"
RESTRICTIONS = "datavern_restrictions"
STANDING = "datavern_standing"


@cache
def consent_tables() -> sa.MetaData:
    """The tables, all of the ledger database."""
    import sqlalchemy as sa  # noqa: PLC0415  (loaded when the first own table is needed)

    metadata = sa.MetaData()
    sa.Table(
        CONSENTS,
        metadata,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("subject_tag", sa.LargeBinary, nullable=False),
        sa.Column("handle", sa.Text),  # the subject's in the audit log: a withdrawal by id is recorded under it
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("text_version", sa.Text),
        sa.Column("text_number", sa.BigInteger),  # of a registered text: its place among the purpose's versions
        sa.Column("text_language", sa.Text),
        sa.Column("text_hash", sa.Text),
        sa.Column("granted_at", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Text),
        sa.Column("withdrawn_at", sa.Text),
        sa.Column("explicit", sa.BigInteger, nullable=False),  # 1: as Art. 9(2)(a) asks
        sa.Column("source", sa.Text),
        sa.Column("guardian_tag", sa.LargeBinary),  # empty once the guardian is erased
        sa.Column("of_age_on", sa.Text),  # of a guardian's consent: the day from which the child consents itself
        sa.Column("row_tag", sa.LargeBinary),
        sa.Column("proof", sa.LargeBinary),  # sealed under the person's key
        sa.Column("entry", sa.Text),  # the audit entry of the grant
        sa.Column("actor", sa.Text),
        sa.Index("datavern_consents_subject", "subject_tag", "purpose"),
        sa.Index("datavern_consents_guardian", "guardian_tag"),
    )
    sa.Table(
        TEXTS,
        metadata,
        sa.Column("purpose", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("language", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("registered_at", sa.Text, nullable=False),
        sa.Column("actor", sa.Text),
        sa.Index("datavern_consent_texts_number", "purpose", "number", "language", unique=True),
    )
    sa.Table(
        RESTRICTIONS,
        metadata,
        sa.Column("id", sa.Text, primary_key=True),  # the request's
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject_tag", sa.LargeBinary, nullable=False),
        sa.Column("handle", sa.Text),
        sa.Column("reach", sa.Text, nullable=False),  # JSON: the datasets, and which purposes there
        sa.Column("ground", sa.Text),
        sa.Column("since", sa.Text, nullable=False),
        sa.Column("lifted_at", sa.Text),
        sa.Column("informed_on", sa.Text),
        sa.Column("reason", sa.Text),  # why it was lifted
        sa.Column("actor", sa.Text),
        sa.Index("datavern_restrictions_subject", "subject_tag"),
        sa.Index("datavern_restrictions_standing", "lifted_at"),
    )
    sa.Table(
        STANDING,
        metadata,
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("changes", sa.BigInteger, nullable=False),  # counts what was restricted and lifted
    )
    return metadata


def _table(name: str) -> Any:
    return consent_tables().tables[name]


def _bind(name: str) -> Any:
    import sqlalchemy as sa  # noqa: PLC0415  (as above)

    return sa.bindparam(name)


def _consents_of() -> Any:
    table = _table(CONSENTS)
    return table.select().where(table.c.subject_tag == _bind("subject_tag")).order_by(table.c.granted_at, table.c.id)


def _consent_by_id() -> Any:
    table = _table(CONSENTS)
    return table.select().where(table.c.id == _bind("id"))


def _consents_held(values: list[Any]) -> Any:
    # A withdrawal that is under way is waited for, and one that came after the snapshot of a transaction is not missed:
    # there the lock fails, and the transaction is one to run again.
    table = _table(CONSENTS)
    return table.select().where(table.c.id.in_(values)).order_by(table.c.id).with_for_update(read=True)


def _consent_holds(*, purpose: bool) -> Any:
    table = _table(CONSENTS)
    own = (table.c.id == _bind("consent")) & (table.c.subject_tag == _bind("tag")) & table.c.withdrawn_at.is_(None)
    holds = own & (table.c.expires_at.is_(None) | (table.c.expires_at > _bind("moment")))
    if purpose:
        holds &= table.c.purpose == _bind("for_purpose")
    # A withdrawal that is under way is waited for, and then seen.
    return table.select().with_only_columns(table.c.id).where(holds).with_for_update(read=True)


def _consent_withdraw() -> Any:
    table = _table(CONSENTS)
    living = (table.c.id == _bind("consent")) & table.c.withdrawn_at.is_(None)
    return table.update().where(living).values(withdrawn_at=_bind("at"))


def _consents_tags(values: list[Any]) -> Any:
    table = _table(CONSENTS)
    return table.select().with_only_columns(table.c.subject_tag).where(table.c.subject_tag.in_(values))


def _consents_delete(values: list[Any]) -> Any:
    table = _table(CONSENTS)
    return table.delete().where(table.c.subject_tag.in_(values))


def _consent_holds_strictly() -> Any:
    import sqlalchemy as sa  # noqa: PLC0415  (as above)

    table = _table(CONSENTS)
    own = (table.c.id == _bind("consent")) & (table.c.subject_tag == _bind("tag")) & table.c.withdrawn_at.is_(None)
    holds = own & (table.c.expires_at.is_(None) | (table.c.expires_at > _bind("moment")))
    holds &= table.c.purpose == _bind("for_purpose")
    holds &= (sa.func.coalesce(table.c.text_number, 0) >= _bind("least")) & (table.c.explicit >= _bind("expressly"))
    return table.select().with_only_columns(table.c.id).where(holds).with_for_update(read=True)


def _consents_standing(values: list[Any]) -> Any:
    table = _table(CONSENTS)
    names = ("subject_tag", "purpose", "expires_at", "text_number", "explicit")
    standing = table.c.subject_tag.in_(values) & table.c.withdrawn_at.is_(None)
    return table.select().with_only_columns(*(table.c[name] for name in names)).where(standing)


def _consents_by_guardian() -> Any:
    table = _table(CONSENTS)
    return table.select().where(table.c.guardian_tag == _bind("tag")).order_by(table.c.granted_at, table.c.id)


def _consents_of_age() -> Any:
    table = _table(CONSENTS)
    due = (table.c.of_age_on <= _bind("day")) & table.c.withdrawn_at.is_(None)
    return table.select().where(due).order_by(table.c.of_age_on, table.c.id)


def _guardians_forget(values: list[Any]) -> Any:
    table = _table(CONSENTS)
    return table.update().where(table.c.guardian_tag.in_(values)).values(guardian_tag=_bind("nobody"))


def _texts() -> Any:
    table = _table(TEXTS)
    return table.select().order_by(table.c.purpose, table.c.number, table.c.language)


def _texts_of() -> Any:
    table = _table(TEXTS)
    return table.select().where(table.c.purpose == _bind("for_purpose")).order_by(table.c.number, table.c.language)


def _restrictions_of() -> Any:
    table = _table(RESTRICTIONS)
    return table.select().where(table.c.subject_tag == _bind("tag")).order_by(table.c.since, table.c.id)


def _restrictions_standing() -> Any:
    table = _table(RESTRICTIONS)
    return table.select().where(table.c.lifted_at.is_(None)).order_by(table.c.since, table.c.id)


def _restrictions_among(values: list[Any]) -> Any:
    table = _table(RESTRICTIONS)
    theirs = table.c.subject_tag.in_(values) & table.c.lifted_at.is_(None) & (table.c.kind == "restriction")
    return table.select().with_only_columns(table.c.subject_tag, table.c.id).where(theirs)


def _restriction_by_id() -> Any:
    table = _table(RESTRICTIONS)
    return table.select().where(table.c.id == _bind("request"))


def _restriction_lift() -> Any:
    table = _table(RESTRICTIONS)
    standing = (table.c.id == _bind("request")) & table.c.lifted_at.is_(None)
    return (
        table.update().where(standing).values(lifted_at=_bind("at"), informed_on=_bind("informed"), reason=_bind("why"))
    )


def _restrictions_delete(values: list[Any]) -> Any:
    table = _table(RESTRICTIONS)
    return table.delete().where(table.c.subject_tag.in_(values))


def _standing_changes() -> Any:
    table = _table(STANDING)
    return table.select().with_only_columns(table.c.changes).where(table.c.id == _bind("row"))


def _standing_changed() -> Any:
    table = _table(STANDING)
    return table.update().where(table.c.id == _bind("row")).values(changes=table.c.changes + 1)


CONSENT_BY_ID = Statement(_consent_by_id)
CONSENTS_HELD = Among(_consents_held)
CONSENTS_BY_ID = Among(lambda values: _table(CONSENTS).select().where(_table(CONSENTS).c.id.in_(values)))
CONSENTS_OF = Statement(_consents_of)
CONSENT_HOLDS = Statement(lambda: _consent_holds(purpose=False))
CONSENT_HOLDS_FOR = Statement(lambda: _consent_holds(purpose=True))
CONSENT_HOLDS_STRICTLY = Statement(_consent_holds_strictly)
CONSENTS_STANDING = Among(_consents_standing)
CONSENTS_BY_GUARDIAN = Statement(_consents_by_guardian)
CONSENTS_OF_AGE = Statement(_consents_of_age)
GUARDIANS_FORGET = Among(_guardians_forget)
TEXT_INSERT = Statement(lambda: _table(TEXTS).insert())
ALL_TEXTS = Statement(_texts)
TEXTS_OF = Statement(_texts_of)
RESTRICTION_INSERT = Statement(lambda: _table(RESTRICTIONS).insert())
RESTRICTIONS_OF = Statement(_restrictions_of)
RESTRICTIONS_STANDING = Statement(_restrictions_standing)
RESTRICTIONS_AMONG = Among(_restrictions_among)
RESTRICTION_BY_ID = Statement(_restriction_by_id)
RESTRICTION_LIFT = Statement(_restriction_lift)
RESTRICTIONS_DELETE = Among(_restrictions_delete)
STANDING_INSERT = Statement(lambda: _table(STANDING).insert())
STANDING_CHANGES = Statement(_standing_changes)
STANDING_CHANGED = Statement(_standing_changed)
CONSENT_INSERT = Statement(lambda: _table(CONSENTS).insert())
CONSENT_WITHDRAW = Statement(_consent_withdraw)
CONSENTS_TAGS = Among(_consents_tags)
CONSENTS_DELETE = Among(_consents_delete)
