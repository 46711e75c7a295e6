"""SQLite, in lanes."""
