"""The tables of the key store and of the life of keys, and the statements on them (FORMAT.md, 4).

This module loads SQLAlchemy, so it is itself loaded when the first store opens.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from datavern.contracts.statements import Among, Statement
from datavern.crypto.key_rows import DESTROYED, ERASING, LIVING

__all__ = [
    "LifeStatements",
    "StoreStatements",
    "copied",
    "epochs",
    "erasure_order",
    "erasures",
    "heard",
    "inserted",
    "key_life",
    "key_store",
    "keys",
    "lookup_keys",
    "recoveries",
    "restored",
    "rotations",
    "store",
    "tombstones",
]

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


def _epoch(*, nullable: bool = False) -> sa.Column[int]:
    # What is wrapped under an epoch holds the epoch's row. So the row goes when nothing is left, whoever was about to
    # add something waits or is refused, and that it is so is the database's own word.
    return sa.Column("epoch", sa.BigInteger, sa.ForeignKey("datavern_epochs.epoch"), nullable=nullable)


epochs = sa.Table(
    "datavern_epochs",  # the epochs that keys may be wrapped under
    key_store,
    _number("epoch", primary_key=True),
    _text("created_at"),
)
store = sa.Table(
    "datavern_store",
    key_store,
    _number("id", primary_key=True),  # 1: there is one row
    _number("version"),
    _text("ring"),
    _epoch(),
    _bytes("tag_key"),
    _number("changes"),  # one more with each erasure step, so that every process sees that there was one
    _text("created_at"),
)
keys = sa.Table(
    "datavern_keys",
    key_store,
    _bytes("key_id", primary_key=True),
    _bytes("slot", unique=True),  # what makes it one living key for each dataset and subject, on every engine
    _text("dataset"),
    _bytes("subject_tag", nullable=True, index=True),
    _text("state"),
    _bytes("wrapped"),
    _epoch(nullable=True),  # of a destroyed key none
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
lookup_keys = sa.Table(
    "datavern_lookup_keys",
    key_store,
    _bytes("key_id", primary_key=True),
    _text("dataset"),
    _text("field"),
    _text("state"),  # which of them new indexes are made with: see LookupKeys
    _bytes("wrapped"),
    _epoch(),
    _text("created_at"),
    sa.UniqueConstraint("dataset", "field", "state"),
)
tombstones = sa.Table(
    "datavern_tombstones",
    key_store,
    _bytes("subject_tag", primary_key=True),
    _number("changed", index=True),
    _text("erased_at"),
)
erasures = sa.Table(
    "datavern_erasures",  # each erasure that has ended: a restored database that has no step of one is behind
    key_store,
    _text("request", primary_key=True),
    _bytes("subject_tag"),
    _text("datasets"),  # canonical JSON: the labels of those that have a step of it
    _text("erased_at"),
)
erasure_order = sa.Table(
    "datavern_erasure_order",  # the store's `changes` when each of them ended: who has seen n misses none up to n
    key_store,
    _text("request", primary_key=True),
    _number("changed", index=True),
)
heard = sa.Table(
    "datavern_heard",  # which databases were seen to have a step of each erasure, up to a change
    key_store,
    _bytes("scope", primary_key=True),  # which database, and which datasets of it
    _text("token"),  # what stands in the database since: one that was set back to before has it no more
    _number("reach"),
)
rotations = sa.Table(
    "datavern_rotations",
    key_store,
    _number("epoch", primary_key=True),  # the new one
    _number("previous"),
    _number("begun"),  # the store's `changes` before anything was under the new epoch: it orders rotations and erasures
    _text("state"),
    _text("holder", nullable=True),  # who is at it; random
    _number("beats"),  # one more while somebody is
    _number("keys"),  # that were wrapped anew
    _text("details"),  # canonical JSON: what was re-indexed, what was confirmed; counts and names, never a value
    _text("started_at"),
    _text("closed_at", nullable=True),  # since when nothing in the store is under the previous epoch
    _text("destroyed_at", nullable=True),  # since when the ring does not hold it
    _text("gone_at", nullable=True),  # since when nobody can bring it back: no vault keeps it for a while
)
recoveries = sa.Table(
    "datavern_recoveries",  # copies of the ring that people hold together
    key_store,
    _text("id", primary_key=True),
    _text("epochs"),  # whose keys are in it: numbers, with commas
    _number("threshold"),
    _number("shares"),
    _text("created_at"),
    _text("created_by", nullable=True),
    _text("ended_at", nullable=True),  # since when somebody answers for it that it was destroyed
    _text("ended_by", nullable=True),
)
_life = sa.Table(
    "datavern_key_life",
    key_life,
    _bytes("key_id", primary_key=True),
    _number("dead"),  # 0 or 1
    _text("changed_at"),
)


def inserted(table: sa.Table) -> Statement:
    """The insert of a whole row."""
    return Statement(lambda: sa.insert(table))


def copied() -> dict[str, Statement]:
    """Table → all of its rows, in an order in which they can be put back."""

    def every(table: sa.Table) -> Statement:
        return Statement(lambda: sa.select(table).order_by(*table.primary_key))

    return {table.name: every(table) for table in key_store.sorted_tables}


def restored() -> dict[str, Statement]:
    """Table → the insert of a row as it was."""
    return {table.name: inserted(table) for table in key_store.sorted_tables}


class StoreStatements:
    """What the key store says to its database."""

    def __init__(self) -> None:
        k, h, s, t, lk = keys.c, _handles.c, store.c, tombstones.c, lookup_keys.c
        p = sa.bindparam
        current = sa.select(s.changes).where(s.id == 1).scalar_subquery()
        self.store = Statement(lambda: sa.select(s.version, s.ring, s.epoch, s.tag_key, s.changes).where(s.id == 1))
        self.insert_store = inserted(store)
        self.insert_epoch = inserted(epochs)
        self.epoch = Statement(lambda: sa.select(s.epoch).where(s.id == 1))
        self.any_key = Statement(lambda: sa.select(k.key_id).limit(1))
        self.changes = Statement(lambda: sa.select(s.changes).where(s.id == 1))
        self.count_change = Statement(lambda: sa.update(store).where(s.id == 1).values(changes=s.changes + 1))
        self.changed_keys = Statement(lambda: sa.select(k.key_id, k.state).where(k.changed > p("seen")))
        self.changed_subjects = Statement(lambda: sa.select(t.subject_tag).where(t.changed > p("seen")))

        self.keys_in_slots = Among(
            lambda values: sa.select(k.key_id, k.subject_tag, k.state, k.wrapped).where(k.slot.in_(values))
        )
        self.keys_by_id = Among(
            lambda values: sa.select(k.key_id, k.dataset, k.subject_tag, k.state, k.wrapped).where(k.key_id.in_(values))
        )
        self.keys_of = Among(
            lambda values: (
                sa.select(k.key_id, k.dataset, k.state, k.destroyed_at, k.subject_tag)
                .where(k.subject_tag.in_(values))
                .order_by(k.destroyed_at, k.created_at, k.key_id)
            )
        )
        self.insert_key = inserted(keys)
        self.erase_keys = Among(
            lambda values: (
                sa.update(keys)
                .where(k.subject_tag.in_(values), k.state == LIVING)
                .values(state=ERASING, changed=current)
            )
        )
        self.destroy_key = Statement(
            lambda: (
                sa.update(keys)
                .where(k.key_id == p("id"), k.state == ERASING)
                .values(
                    state=DESTROYED,
                    wrapped=p("gone"),
                    epoch=None,
                    slot=p("own_slot"),
                    changed=current,
                    destroyed_at=p("moment"),
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
        self.tags_of_handles = Among(lambda values: sa.select(h.subject_tag).where(h.handle.in_(values)))
        self.insert_handle = inserted(_handles)
        self.handles_closing = Among(
            lambda values: (
                sa.select(h.subject_tag, h.state)
                .where(h.subject_tag.in_(values))
                .order_by(h.subject_tag)
                .with_for_update()
            )
        )
        self.erase_handles = Among(
            lambda values: sa.update(_handles).where(h.subject_tag.in_(values)).values(state=ERASING)
        )
        self.delete_handles = Among(
            lambda values: sa.delete(_handles).where(h.subject_tag.in_(values), h.state == ERASING)
        )

        self.tombstones = Among(lambda values: sa.select(t.subject_tag).where(t.subject_tag.in_(values)))
        self.tombstone = Statement(lambda: sa.select(t.erased_at).where(t.subject_tag == p("tag")))
        # No erasure destroys keys without leaving a tombstone of the same change; a living key's `changed` is 0.
        last = sa.select(sa.func.coalesce(sa.func.max(t.changed), 0)).scalar_subquery()
        self.lost_tombstone = Statement(
            lambda: sa.select(k.key_id).where(k.changed > last, k.state == DESTROYED).limit(1)
        )
        self.insert_tombstone = Statement(
            lambda: sa.insert(tombstones).values(subject_tag=p("tag"), erased_at=p("moment"), changed=current)
        )
        self.renew_tombstones = Among(
            lambda values: (
                sa.update(tombstones).where(t.subject_tag.in_(values)).values(erased_at=p("moment"), changed=current)
            )
        )

        self.lookup_keys = Statement(
            lambda: sa.select(lk.key_id, lk.state, lk.wrapped).where(
                lk.dataset == p("in_dataset"), lk.field == p("of_field")
            )
        )
        self.insert_lookup_key = inserted(lookup_keys)
        self.lookup_states = Statement(
            lambda: sa.select(lk.key_id, lk.dataset, lk.field, lk.state, lk.epoch).order_by(lk.dataset, lk.field)
        )
        self.lookup_state = Statement(
            lambda: sa.update(lookup_keys).where(lk.key_id == p("id"), lk.state == p("was")).values(state=p("becomes"))
        )
        self.delete_lookup_key = Statement(lambda: sa.delete(lookup_keys).where(lk.key_id == p("id")))


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
        self.all_living = {1: self.living}
        self.insert = inserted(_life)
        self.holding = Among(
            lambda values: sa.select(c.key_id).where(c.key_id.in_(values)).order_by(c.key_id).with_for_update()
        )
        self.end = Among(
            lambda values: (
                sa.update(_life).where(c.key_id.in_(values)).values(dead=1, changed_at=sa.bindparam("moment"))
            )
        )

    def living_of(self, number: int) -> Statement:
        """A row where every one of so many keys lives, each held; the parameters are ``id_0`` and so on."""
        found = self.all_living.get(number)
        if found is None:
            c = _life.c

            def build() -> sa.Executable:
                wanted: list[Any] = [sa.bindparam(f"id_{i}") for i in range(number)]
                held = (
                    sa.select(c.key_id)
                    .where(c.key_id.in_(wanted), c.dead == sa.literal_column("0"))
                    .order_by(c.key_id)
                    .with_for_update(read=True)
                    .subquery()
                )
                return (
                    sa.select(sa.func.count())
                    .select_from(held)
                    .having(sa.func.count() == sa.literal_column(str(number)))
                )

            found = self.all_living[number] = Statement(build)
        return found
