"""Whose data somebody read: `Reads`, for ``db.breaches.count``."""

from datavern.privacy.breach.touched import Reads

__all__ = ["Reads"]
