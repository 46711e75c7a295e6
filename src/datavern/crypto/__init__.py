"""Keys, sealed fields and lookup indexes. The formats are written in FORMAT.md."""
