"""PostgreSQL, on asyncpg's connections."""
