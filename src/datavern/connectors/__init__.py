"""Pools, health, failover, retries and routing: independent of any engine."""
