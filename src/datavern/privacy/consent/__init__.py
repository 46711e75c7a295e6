"""Consents, the texts that people agreed to, and what stands against the use of their data."""
