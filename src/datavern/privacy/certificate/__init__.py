"""Signed statements of what was done with a person's data, and how they read: text, web page, PDF."""
