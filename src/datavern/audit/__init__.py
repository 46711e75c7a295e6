"""The audit log that proves it was not changed. Its format is written in FORMAT.md."""
