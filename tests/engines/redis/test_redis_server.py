"""The servers that the tests run: they answer, come back, and outlive nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datavern.contracts.errors import ConfigurationError
from datavern.testing.valkey import ValkeyCluster, ValkeyServer
from datavern.testing.valkey_processes import binary

PROGRAM = """
import sys, time
from datavern.testing.valkey import ValkeyCluster, ValkeyServer
server = ValkeyServer().start()
print(server.pid, server._servers._supervisor.pid, server._servers._folder, flush=True)
time.sleep(600)
"""


def gone(pid: int) -> bool:
    """Whether no process of that number runs; a zombie is not gone."""
    return not Path(f"/proc/{pid}").exists()


def wait(holds, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_server_starts_is_killed_comes_back_and_leaves_nothing():
    with ValkeyServer(password="word", durable=True) as server:
        folder, first = server._servers._folder, server.pid
        assert server.command("PING") == "+PONG\r\n"
        assert server.command("SET", "k", "v") == "+OK\r\n"
        server.kill()
        wait(lambda: gone(first))
        assert server.pid == 0
        server.restart()
        assert server.command("GET", "k") == "$1\r\nv\r\n"
        assert "Valkey" in server.log
        second, supervisor = server.pid, server._servers._supervisor.pid
    assert gone(second)
    assert gone(supervisor)
    assert not folder.exists()
    server.stop()
    with pytest.raises(ConfigurationError, match="not started"):
        server.kill()


def test_two_servers_have_ports_and_folders_of_their_own():
    with ValkeyServer() as one, ValkeyServer() as two:
        assert one.port != two.port
        one.command("SET", "k", "1")
        assert two.command("EXISTS", "k") == ":0\r\n"


def test_a_setting_that_the_server_refuses_is_shown():
    with pytest.raises(ConfigurationError, match=r"(?s)did not start; the end of its log.*nonsense"):
        ValkeyServer(settings={"nonsense": "1"}).start()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_program_that_goes_away_takes_its_servers_with_it(how):
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with program:
        server, supervisor, folder = program.stdout.readline().split()
        assert not gone(int(server))
        program.send_signal(how)
        program.wait()
        wait(lambda: gone(int(server)) and not Path(folder).exists())
        wait(
            lambda: gone(int(supervisor)) or "Z" in Path(f"/proc/{supervisor}/stat").read_text().rpartition(")")[2][:3]
        )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_it_needs_no_root(tmp_path):
    somebody = {"user": 65534, "group": 65534, "extra_groups": [], "cwd": "/", "capture_output": True, "text": True}
    for program in ([str(binary()), "--version"], [sys.executable, "--version"]):
        try:
            reached = subprocess.run(program, check=False, **somebody).returncode == 0
        except PermissionError:
            reached = False
        if not reached:
            pytest.skip(f"the user nobody may not enter the folder of {Path(program[0]).name}")
    script = "from datavern.testing.valkey import ValkeyServer\nwith ValkeyServer() as s: print(s.command('PING'))"
    plain = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", script], check=False, env=plain, **somebody)
    assert done.stdout.strip() == "+PONG", done.stderr


def test_a_cluster_is_whole_when_it_has_started(cluster: ValkeyCluster):
    assert len(set(cluster.nodes)) == 6
    for number in range(6):
        assert "cluster_slots_ok:16384" in cluster.command(number, "CLUSTER", "INFO")
        assert cluster.command(number, "CLUSTER", "NODES").count("slave") == 3
