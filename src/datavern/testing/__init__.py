"""Ephemeral real servers and synthetic people, for the tests of Datavern and of those who use it."""
