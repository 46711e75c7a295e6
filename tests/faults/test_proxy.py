"""The proxy between client and server closes what it opened, whenever it is stopped."""

from __future__ import annotations

import gc
import socket

from datavern.testing.proxy import TCPProxy


def test_whoever_came_a_moment_before_the_end_is_let_go_too():
    """What it forgets is told by the garbage collector, which fails a test here."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        for count in range(40):
            with TCPProxy("127.0.0.1", server.getsockname()[1]) as proxy:
                clients = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(1 + count % 5)]
            for client in clients:
                client.close()
    gc.collect()
