"""Legal holds: rows that must stay."""
