"""What is said of erasures that have ended. Loads SQLAlchemy, like `datavern.crypto.tables`."""

from __future__ import annotations

import sqlalchemy as sa

from datavern.contracts.statements import Among, Statement
from datavern.crypto.key_rows import DESTROYED
from datavern.crypto.tables import erasure_order, erasures, heard, inserted, keys, store, tombstones

__all__ = ["ErasedStatements"]


class ErasedStatements:
    """What is said of erasures that have ended."""

    def __init__(self) -> None:
        e, k, s, o, h, t = erasures.c, keys.c, store.c, erasure_order.c, heard.c, tombstones.c
        p = sa.bindparam
        current = sa.select(s.changes).where(s.id == 1).scalar_subquery()
        self.changes = Statement(lambda: sa.select(s.changes).where(s.id == 1))
        self.every = Statement(lambda: sa.select(e.request, e.datasets, e.erased_at, e.subject_tag))
        self.since = Statement(
            lambda: (
                sa.select(e.request, e.datasets, e.erased_at, e.subject_tag)
                .join(erasure_order, o.request == e.request)
                .where(o.changed > p("reached"))
            )
        )
        # A person's keys are destroyed in the transaction that writes down that the erasure has ended; the end of those
        # of retained rows is no erasure of its own.
        last = sa.select(sa.func.coalesce(sa.func.max(o.changed), 0)).scalar_subquery()
        self.lost_key = Statement(
            lambda: (
                sa.select(k.key_id)
                .where(k.changed > last, k.state == DESTROYED, k.dataset.not_like("%#retention"))
                .limit(1)
            )
        )
        self.lost_end = Statement(
            lambda: sa.select(o.request).where(o.changed == last, ~sa.exists().where(e.request == o.request)).limit(1)
        )
        # What an erasure leaves in one table tells that another has lost it. All that ever were are gone through.
        ended = keys.outerjoin(erasures, e.subject_tag == k.subject_tag)
        stones = keys.outerjoin(tombstones, t.subject_tag == k.subject_tag)
        gone = (k.changed > 0, k.state == DESTROYED, k.subject_tag.is_not(None))  # a living key's `changed` is 0
        every = erasures.outerjoin(tombstones, t.subject_tag == e.subject_tag)
        ordered = erasures.outerjoin(erasure_order, o.request == e.request)
        unordered = erasure_order.outerjoin(erasures, e.request == o.request)
        searches = {
            "tombstones": [
                sa.select(k.key_id).select_from(stones).where(*gone, t.subject_tag.is_(None)),
                sa.select(e.request).select_from(every).where(t.subject_tag.is_(None)),
            ],
            "erasures": [
                sa.select(k.key_id)
                .select_from(ended)
                .where(*gone, k.dataset.not_like("%#retention"), e.request.is_(None)),
                sa.select(e.request).select_from(ordered).where(o.request.is_(None)),
                sa.select(o.request).select_from(unordered).where(e.request.is_(None)),
            ],
        }
        self.gaps = {
            lost: [Statement(lambda search=search: search.limit(p("most"))) for search in of]  # type: ignore[misc]
            for lost, of in searches.items()
        }
        self.insert_order = Statement(lambda: sa.insert(erasure_order).values(request=p("request"), changed=current))
        self.heard = Statement(lambda: sa.select(h.token, h.reach).where(h.scope == p("of_scope")))
        self.hear_again = Statement(
            lambda: sa.update(heard).where(h.scope == p("of_scope")).values(token=p("of_token"), reach=p("reached"))
        )
        self.hear = Statement(
            lambda: sa.insert(heard).values(scope=p("of_scope"), token=p("of_token"), reach=p("reached"))
        )
        self.known = Among(lambda values: sa.select(e.request).where(e.request.in_(values)))
        self.insert = inserted(erasures)
        self.keys_of = Among(
            lambda values: sa.select(k.subject_tag, k.key_id).where(k.subject_tag.in_(values), k.state == DESTROYED)
        )
