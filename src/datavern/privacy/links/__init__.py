"""Rows that name no person themselves, and are found through the rows of another dataset."""
