"""Where the parts are wired together."""
