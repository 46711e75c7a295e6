"""The database file: may it be opened at all, and made so that nobody else can read it."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from datavern.contracts.errors import ConfigurationError, ConnectionFailed

__all__ = ["MOUNTS", "file_system", "prepare_file"]

log = logging.getLogger("datavern.sqlite")

MOUNTS = Path("/proc/self/mounts")

# Their locks do not hold between machines, or a memory map is not shared: https://sqlite.org/wal.html, "All processes
# using a database must be on the same host computer"; https://sqlite.org/howtocorrupt.html, section 2.1.
_NETWORK = frozenset(
    {"nfs", "nfs3", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "ncpfs", "afs", "coda", "ceph", "fuse.ceph"}
    | {"fuse.sshfs", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse", "fuse.blobfuse", "fuse.glusterfs", "glusterfs"}
    | {"fuse.davfs", "davfs", "lustre", "gpfs", "beegfs", "fuse.smbnetfs", "fuse.curlftpfs", "pvfs2", "ocfs2", "gfs2"}
)


def file_system(path: Path) -> str | None:
    """The type of the file system that `path` is on, or None where the system does not tell."""
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    best, kind = -1, None
    for line in mounts.splitlines():
        parts = line.split(" ")
        if len(parts) < 3:  # noqa: PLR2004  (device, mount point, type, …)
            continue
        point = parts[1].replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
        depth = len(Path(point).parts)
        if depth >= best and path.is_relative_to(point):  # of two mounts on one point the later one is seen
            best, kind = depth, parts[2]
    return kind


def prepare_file(name: str, provider: str) -> None:
    """Check where the database is to be, and make an empty file with mode 0600 where there is none.

    SQLite gives the write-ahead log and its index the database file's own mode.

    Raises:
        ConfigurationError: a folder, a device, a path without its folder, or a network file system.
        ConnectionFailed: the system does not let this user read and write it.
    """
    path = Path(name)
    folder = path.parent
    if path.is_dir():
        raise ConfigurationError(f"{provider}: path is a folder, {path}: expected a file")
    if not folder.is_dir():
        raise ConfigurationError(f"{provider}: path is {path}, and there is no folder {folder}: make it first")
    kind = file_system(path.resolve())
    if kind in _NETWORK:
        raise ConfigurationError(
            f"{provider}: path is on a network file system ({kind}), where SQLite's write-ahead log is not safe: its "
            "processes must share memory, and locks are not kept. Use a local disk, or a database server"
        )
    problem: ConfigurationError | ConnectionFailed | None = None
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if not path.exists() or not stat.S_ISREG(path.stat().st_mode):
            problem = ConfigurationError(f"{provider}: path is {path}: expected a regular file")
        elif not os.access(path, os.R_OK | os.W_OK):
            problem = _not_permitted(provider, path)
        else:
            _look_at_mode(provider, path)
    except PermissionError:
        problem = _not_permitted(provider, path)
    except OSError as error:
        problem = ConnectionFailed(
            f"{provider}: {path} cannot be made: {os.strerror(error.errno or 0)}", provider=provider, retry="never"
        )
    if problem is not None:
        raise problem


def _look_at_mode(provider: str, path: Path) -> None:
    """A file that was there keeps the mode that it has: who may read it was somebody's decision, or nobody's."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & stat.S_IRWXO:
        log.warning(
            "%s: every user of this machine may read or write %s (mode %04o), and its write-ahead log gets the same "
            "mode: chmod 600, unless that is meant", provider, path, mode,
        )  # fmt: skip


def _not_permitted(provider: str, path: Path) -> ConnectionFailed:
    return ConnectionFailed(
        f"{provider}: this user may not read and write {path}: check the permissions of the file and of its folder",
        provider=provider,
        retry="never",
    )
