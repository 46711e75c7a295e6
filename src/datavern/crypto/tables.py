"""The tables of the key store and of the life of keys, and the statements on them (FORMAT.md, 4).

This module loads SQLAlchemy, so it is itself loaded when the first store opens.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from datavern.contracts.statements import Among, Statement
from datavern.crypto.key_rows import DESTROYED, ERASING, LIVING

__all__ = ["LifeStatements", "StoreStatements", "key_life", "key_store"]

key_store = sa.MetaData()
"""The key store: in the ledger database."""

key_life = sa.MetaData()
"""The life of keys: in every database that holds datasets."""


def _text(name: str, **more: Any) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=more.pop("nullable", False), **more)


def _bytes(name: str, **more: Any) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=more.pop("nullable", False), **more)


def _number(name: str, **more: Any) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, autoincrement=False, **more)


_store = sa.Table(
    "datavern_store",
    key_store,
    _number("id", primary_key=True),  # 1: there is one row
    _number("version"),
    _text("ring"),
    _number("epoch"),
    _bytes("tag_key"),
    _number("changes"),  # one more with each erasure step, so that every process sees that there was one
    _text("created_at"),
)
_keys = sa.Table(
    "datavern_keys",
    key_store,
    _bytes("key_id", primary_key=True),
    _bytes("slot", unique=True),  # what makes it one living key for each dataset and subject, on every engine
    _text("dataset"),
    _bytes("subject_tag", nullable=True, index=True),
    _text("state"),
    _bytes("wrapped"),
    _number("epoch"),
    _number("changed", index=True),  # the store's `changes` when the state last changed
    _text("created_at"),
    _text("destroyed_at", nullable=True),
)
_handles = sa.Table(
    "datavern_handles",
    key_store,
    _bytes("subject_tag", primary_key=True),
    _text("handle", unique=True),
    _text("state"),
    _text("created_at"),
)
_lookup_keys = sa.Table(
    "datavern_lookup_keys",
    key_store,
    _text("dataset", primary_key=True),
    _text("field", primary_key=True),
    _bytes("wrapped"),
    _number("epoch"),
    _text("created_at"),
)
_tombstones = sa.Table(
    "datavern_tombstones",
    key_store,
    _bytes("subject_tag", primary_key=True),
    _number("changed", index=True),
    _text("erased_at"),
)
_life = sa.Table(
    "datavern_key_life",
    key_life,
    _bytes("key_id", primary_key=True),
    _number("dead"),  # 0 or 1
    _text("changed_at"),
)


def _rows(table: sa.Table) -> Statement:
    return Statement(lambda: sa.insert(table))


class StoreStatements:
    """What the key store says to its database."""

    def __init__(self) -> None:
        k, h, s, t, lk = _keys.c, _handles.c, _store.c, _tombstones.c, _lookup_keys.c
        p = sa.bindparam
        current = sa.select(s.changes).where(s.id == 1).scalar_subquery()
        self.store = Statement(lambda: sa.select(s.version, s.ring, s.epoch, s.tag_key, s.changes).where(s.id == 1))
        self.insert_store = _rows(_store)
        self.any_key = Statement(lambda: sa.select(k.key_id).limit(1))
        self.changes = Statement(lambda: sa.select(s.changes).where(s.id == 1))
        self.count_change = Statement(lambda: sa.update(_store).where(s.id == 1).values(changes=s.changes + 1))
        self.changed_keys = Statement(lambda: sa.select(k.key_id, k.state).where(k.changed > p("seen")))
        self.changed_subjects = Statement(lambda: sa.select(t.subject_tag).where(t.changed > p("seen")))

        self.keys_in_slots = Among(
            lambda values: sa.select(k.key_id, k.subject_tag, k.state, k.wrapped).where(k.slot.in_(values))
        )
        self.keys_by_id = Among(
            lambda values: sa.select(k.key_id, k.dataset, k.subject_tag, k.state, k.wrapped).where(k.key_id.in_(values))
        )
        self.keys_of = Statement(
            lambda: (
                sa.select(k.key_id, k.dataset, k.state, k.destroyed_at)
                .where(k.subject_tag == p("tag"))
                .order_by(k.destroyed_at, k.created_at, k.key_id)
            )
        )
        self.insert_key = _rows(_keys)
        self.erase_keys = Statement(
            lambda: (
                sa.update(_keys)
                .where(k.subject_tag == p("tag"), k.state == LIVING)
                .values(state=ERASING, changed=current)
            )
        )
        self.destroy_key = Statement(
            lambda: (
                sa.update(_keys)
                .where(k.key_id == p("id"), k.state == ERASING)
                .values(
                    state=DESTROYED, wrapped=p("gone"), slot=p("own_slot"), changed=current, destroyed_at=p("moment")
                )
            )
        )

        # FOR SHARE: an erasure that starts waits for keys that are being made, and they for it.
        self.handles_held = Among(
            lambda values: (
                sa.select(h.subject_tag, h.handle, h.state)
                .where(h.subject_tag.in_(values))
                .order_by(h.subject_tag)
                .with_for_update(read=True)
            )
        )
        self.handle = Statement(lambda: sa.select(h.handle).where(h.subject_tag == p("tag")))
        self.insert_handle = _rows(_handles)
        self.erase_handle = Statement(
            lambda: sa.update(_handles).where(h.subject_tag == p("tag")).values(state=ERASING)
        )
        self.delete_handle = Statement(lambda: sa.delete(_handles).where(h.subject_tag == p("tag"), h.state == ERASING))

        self.tombstone = Statement(lambda: sa.select(t.erased_at).where(t.subject_tag == p("tag")))
        self.insert_tombstone = Statement(
            lambda: sa.insert(_tombstones).values(subject_tag=p("tag"), erased_at=p("moment"), changed=current)
        )
        self.renew_tombstone = Statement(
            lambda: (
                sa.update(_tombstones).where(t.subject_tag == p("tag")).values(erased_at=p("moment"), changed=current)
            )
        )

        self.lookup_key = Statement(
            lambda: sa.select(lk.wrapped).where(lk.dataset == p("in_dataset"), lk.field == p("of_field"))
        )
        self.insert_lookup_key = _rows(_lookup_keys)


class LifeStatements:
    """What a write says to its own database about the key that it uses."""

    def __init__(self) -> None:
        c = _life.c
        # FOR SHARE: writers do not wait for one another, and `end` waits for all of them. In the order of the ids, so
        # that two of them never wait for each other in a circle. An engine with one writer at a time needs no lock, and
        # its dialect writes none.
        self.hold = Among(
            lambda values: (
                sa.select(c.key_id, c.dead).where(c.key_id.in_(values)).order_by(c.key_id).with_for_update(read=True)
            )
        )
        self.living = Statement(
            lambda: (
                sa.select(c.key_id)
                .where(c.key_id == sa.bindparam("id"), c.dead == sa.literal_column("0"))
                .with_for_update(read=True)
            )
        )
        self.insert = _rows(_life)
        self.end = Statement(
            lambda: (
                sa.update(_life).where(c.key_id == sa.bindparam("id")).values(dead=1, changed_at=sa.bindparam("moment"))
            )
        )
