"""The data layer for organisations that must keep people's data safe and lawful."""
