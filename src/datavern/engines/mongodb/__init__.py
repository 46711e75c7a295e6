"""MongoDB, on PyMongo's asyncio client."""
