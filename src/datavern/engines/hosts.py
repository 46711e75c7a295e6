"""What a host is to this machine."""

from __future__ import annotations

__all__ = ["is_this_machine"]


def is_this_machine(host: str) -> bool:
    """Whether a host is this machine: ``localhost``, or a loopback address."""
    if host.lower() == "localhost":
        return True
    import ipaddress  # noqa: PLC0415  (not needed to import Datavern)

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
