"""Breaches: the register, its clocks, whom it touched, and what the authority is told."""
