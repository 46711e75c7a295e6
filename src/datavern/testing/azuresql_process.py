"""The process of `datavern.testing.azuresql`: serves until whoever started it goes away."""

from __future__ import annotations

import os
import sys
import threading


def main() -> None:
    """Serve the tables of a configuration: its file, a certificate, its key, and a port (0: a free one)."""
    from pysqlbridge.catalog import load as load_catalog  # noqa: PLC0415  (a package for tests alone)
    from pysqlbridge.certificate import load as load_certificate  # noqa: PLC0415  (the same)
    from pysqlbridge.logins import load as load_logins  # noqa: PLC0415  (the same)
    from pysqlbridge.server import BridgeServer  # noqa: PLC0415  (the same)

    config, certificate, key, port = sys.argv[1:]
    server = BridgeServer(
        "127.0.0.1",
        int(port),
        load_certificate(certificate, key),
        load_catalog(config).answer,
        logins=load_logins(config),
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.address[1], flush=True)  # noqa: T201  (what the other side waits for)
    sys.stdin.read()  # ends with the process at its other end
    os._exit(0)


if __name__ == "__main__":
    main()
