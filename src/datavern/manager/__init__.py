"""The one place where the parts are wired together, and the only one that loads an engine, by its name."""
