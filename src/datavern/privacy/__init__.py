"""Data map, residency, consent, personal data and subject requests."""
