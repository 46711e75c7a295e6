"""Azure SQL and SQL Server."""
