"""Where else data gets: `Place`, for ``DatabaseManager(places=…)``."""

from datavern.privacy.residency.places import Place

__all__ = ["Place"]
