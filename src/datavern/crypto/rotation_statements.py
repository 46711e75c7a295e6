"""What a rotation of the keys says to the key store's database. Loads SQLAlchemy, like `datavern.crypto.tables`."""

from __future__ import annotations

import sqlalchemy as sa

from datavern.contracts.statements import Statement
from datavern.crypto.tables import epochs, inserted, keys, lookup_keys, recoveries, rotations, store, tombstones

__all__ = ["RotationStatements"]


class RotationStatements:
    """Its statements: of its steps, of who is at it, of recovery shares, of what is still under an older epoch."""

    def __init__(self) -> None:
        k, s, e, r, lk = keys.c, store.c, epochs.c, rotations.c, lookup_keys.c
        rec, t = recoveries.c, tombstones.c
        p = sa.bindparam
        self.unknown_epoch = Statement(lambda: sa.update(store).where(s.id == 1).values(epoch=-1))
        self.rotations = Statement(lambda: sa.select(rotations).order_by(r.epoch))
        self.rotation = Statement(lambda: sa.select(rotations).where(r.epoch == p("of")))
        self.insert_rotation = inserted(rotations)
        self.claim = Statement(
            lambda: (
                sa.update(rotations)
                .where(r.epoch == p("of"), r.beats == p("seen"))
                .values(holder=p("by"), beats=r.beats + 1)
            )
        )
        held = (r.epoch == p("of")) & (r.holder == p("by"))
        self.beat = Statement(lambda: sa.update(rotations).where(held).values(beats=r.beats + 1))
        self.release = Statement(lambda: sa.update(rotations).where(held).values(holder=None, beats=r.beats + 1))
        self.step = Statement(
            lambda: (
                sa.update(rotations)
                .where(held)
                .values(state=p("to"), details=p("said"), keys=p("wrapped_anew"), beats=r.beats + 1)
            )
        )
        # Only what is still wrapped under an older epoch: a key that was destroyed meanwhile is under none.
        self.rewrap = Statement(
            lambda: (
                sa.update(keys).where(k.key_id == p("id"), k.epoch < p("to")).values(wrapped=p("anew"), epoch=p("to"))
            )
        )
        self.rewrap_lookup = Statement(
            lambda: (
                sa.update(lookup_keys)
                .where(lk.key_id == p("id"), lk.epoch < p("to"))
                .values(wrapped=p("anew"), epoch=p("to"))
            )
        )
        self.old_lookups = Statement(
            lambda: (
                sa.select(lk.key_id, lk.dataset, lk.field, lk.state, lk.wrapped)
                .where(lk.epoch < p("to"))
                .order_by(lk.dataset, lk.field, lk.state)
            )
        )
        self.close = Statement(
            lambda: sa.update(rotations).where(r.epoch == p("of"), r.closed_at.is_(None)).values(closed_at=p("at"))
        )
        self.destroyed = Statement(
            lambda: (
                sa.update(rotations).where(r.epoch == p("of"), r.destroyed_at.is_(None)).values(destroyed_at=p("at"))
            )
        )
        self.gone = Statement(
            lambda: sa.update(rotations).where(r.epoch == p("of"), r.gone_at.is_(None)).values(gone_at=p("at"))
        )

        self.done = Statement(
            lambda: sa.update(rotations).where(r.epoch == p("of"), r.state == "purge").values(state="done")
        )

        self.turn = Statement(
            lambda: (
                sa.update(store)
                .where(s.id == 1, s.epoch < p("to"))
                .values(epoch=p("to"), tag_key=p("wrapped_tag_key"), changes=s.changes + 1)
            )
        )
        self.of_epoch = Statement(
            lambda: (
                sa.select(k.key_id, k.dataset, k.subject_tag, k.wrapped)
                .where(k.key_id > p("after"), k.epoch < p("to"))
                .order_by(k.key_id)
                .limit(p("many"))
            )
        )
        self.all_keys = Statement(
            lambda: (
                sa.select(k.key_id, k.dataset, k.subject_tag, k.wrapped)
                .where(k.key_id > p("after"), k.epoch.is_not(None))
                .order_by(k.key_id)
                .limit(p("many"))
            )
        )
        self.count = Statement(
            lambda: sa.select(k.epoch, sa.func.count()).where(k.epoch.is_not(None)).group_by(k.epoch).order_by(k.epoch)
        )
        self.close_epoch = Statement(lambda: sa.delete(epochs).where(e.epoch < p("to")))
        self.first_erasure = Statement(lambda: sa.select(sa.func.min(k.destroyed_at)).where(k.changed >= p("begun")))
        self.keys_of = Statement(
            lambda: (
                sa.select(k.key_id, k.dataset, k.state, k.destroyed_at, k.changed)
                .where(k.subject_tag == p("tag"))
                .order_by(k.destroyed_at, k.key_id)
            )
        )
        self.tombstone = Statement(lambda: sa.select(t.changed, t.erased_at).where(t.subject_tag == p("tag")))
        self.recoveries = Statement(lambda: sa.select(recoveries).order_by(rec.created_at, rec.id))
        self.insert_recovery = inserted(recoveries)
        self.end_recovery = Statement(
            lambda: (
                sa.update(recoveries)
                .where(rec.id == p("of"), rec.ended_at.is_(None))
                .values(ended_at=p("at"), ended_by=p("by"))
            )
        )
