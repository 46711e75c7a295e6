"""Which data may be where, and where it is."""
