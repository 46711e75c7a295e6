"""SQLAlchemy over a provider: what its dialects share."""
