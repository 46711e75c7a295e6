"""The retention run: what is past its time ends."""
