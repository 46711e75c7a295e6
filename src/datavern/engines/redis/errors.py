"""What a Redis server says as the tree of errors, and nothing of what it quotes.

An error of the server begins with a code (``WRONGTYPE …``). What follows may quote the command with its values, so
only the code travels on, and words of ours.
"""

from __future__ import annotations

from datavern.contracts.errors import (
    ConnectionFailed,
    DriverError,
    NoHealthyConnection,
    OutcomeUnknown,
    PoolTimeout,
    ProviderError,
    QueryRejected,
    Retry,
)

__all__ = ["RETIRING", "Redirect", "code_of", "connecting", "full", "rejected", "unanswered", "unsent"]

_REJECTED = {
    "WRONGTYPE": "the key holds another kind of value than this command is for",
    "OOM": "the server's memory is full (maxmemory), and it takes no more: nothing was written",
    "NOPERM": "this user may not do that: see the server's ACL",
    "CROSSSLOT": "the keys are in different slots of the cluster: give them one {hash tag}, or send them one by one",
    "EXECABORT": "the transaction was refused: one of its commands is not valid; none of them was run",
    "MISCONF": "the server cannot save to its disk, and takes no writes until it can: look at its log",
    "NOREPLICAS": "the server takes no writes without enough replicas (min-replicas-to-write)",
    "BUSYGROUP": "the consumer group exists already",
    "NOGROUP": "no such stream or consumer group",
    "BUSYKEY": "the key exists already",
    "NOSCRIPT": "the server does not know the script: load it first",
    "NOPROTO": "the server does not speak RESP3: Redis 7 or later is needed",
    "UNBLOCKED": "the server ended the wait",
    "DENIED": "the server refuses connections from here (protected mode): set a password there",
}
_PHRASES = (
    ("value is not an integer", "the key's value is not a whole number of 64 bits, or the number given is not"),
    ("value is not a valid float", "the key's value is not a number, or the number given is not"),
    ("increment or decrement would overflow", "the number would leave the range of 64 bits"),
    ("increment would produce", "the number would leave its range"),
    ("syntax error", "the server does not understand the command's arguments"),
    ("wrong number of arguments", "the command has too many or too few arguments"),
    ("unknown command", "the server does not know the command"),
    ("unknown subcommand", "the server does not know the command's subcommand"),
    ("invalid expire time", "the time to live is not one that the server takes"),
    ("no such key", "no such key"),
    ("DB index is out of range", "the server has no database of that number"),
    ("invalid DB index", "the server has no database of that number"),
    ("SELECT is not allowed in cluster mode", "a cluster has no databases but 0: leave database out"),
    ("max number of clients", "the server has no connections left: raise maxclients"),
    ("string exceeds maximum", "the value is longer than the server takes (proto-max-bulk-len)"),
    ("cluster support disabled", "the server is not a cluster: leave cluster out"),
    ("requires the key to exist", "no such stream: create it, or the group with make=True"),
    ("equal or smaller than the target stream top", "the id is not above the stream's last one"),
    ("Invalid stream ID", "not the id of a stream's entry"),
    ("invalid cursor", "the cursor of a scan is not valid"),
)
_UNREADY = {
    "LOADING": "the server is reading its data and takes no commands yet",
    "BUSY": "a script keeps the server busy",
    "MASTERDOWN": "the replica has lost its primary, and does not answer from what it holds",
    "NOAUTH": "the server asks for a password: check username and password",
    "READONLY": "the server takes no writes: it is a replica, or has become one",
}
_UNHEALTHY = {
    "CLUSTERDOWN": "the cluster is down: slots are not served, or most of its primaries cannot be reached",
    "TRYAGAIN": "the keys are being moved to another node",
}
RETIRING = frozenset({"READONLY", "NOAUTH", "MASTERDOWN"})
"""After one of these the server is not what it was when the connection was made: the connection is retired."""


_OTHERS = "MOVED ASK WRONGPASS NOTBUSY UNKILLABLE INPROG NOGOODREPLICA NOGOODSLAVE NOQUORUM IOERR STALE"
_CODES = frozenset([*_REJECTED, *_UNREADY, *_UNHEALTHY, *_OTHERS.split()])


def code_of(text: str) -> str:
    """The code that an error of the server begins with; ERR where it is none that is known: a script says anything."""
    word = text.split(" ", 1)[0]
    return word if word in _CODES else "ERR"


class Redirect(NoHealthyConnection):
    """A node of a cluster says that another has the slot. Followed where the provider knows of the cluster.

    Attributes:
        asking: only for this command (ASK), or from now on (MOVED).
        slot: the slot.
        host: of the other node; empty: as that of the node that said so.
        port: its port.
    """

    def __init__(self, text: str, provider: str) -> None:
        super().__init__(
            f"{provider}: the server is a node of a cluster, and the key is on another: give the provider cluster= "
            f"instead of host ({code_of(text)})",
            provider=provider, code=code_of(text), retry="never",
        )  # fmt: skip
        kind, slot, address = text.split(" ")[:3]
        self.asking = kind == "ASK"
        self.slot = int(slot)
        self.host, _, port = address.rpartition(":")
        self.port = int(port)


def rejected(text: str, provider: str, error: BaseException) -> ProviderError:
    """The server's answer is an error."""
    code = code_of(text)
    raised: ProviderError
    if code in {"MOVED", "ASK"}:
        raised = Redirect(text, provider)
    elif code in _UNREADY:
        retry: Retry = "never" if code == "NOAUTH" else "safe"
        raised = ConnectionFailed(f"{provider}: {_UNREADY[code]} ({code})", provider=provider, code=code, retry=retry)
    elif code in _UNHEALTHY:
        raised = NoHealthyConnection(f"{provider}: {_UNHEALTHY[code]} ({code})", provider=provider, code=code)
    else:
        words = _REJECTED.get(code)
        if words is None:
            words = next((words for phrase, words in _PHRASES if phrase in text), "the server refused the command")
        raised = QueryRejected(f"{provider}: {words} ({code})", provider=provider, code=code)
    raised.__cause__ = DriverError.of(error, code)
    return raised


def unanswered(provider: str, why: str, *, read: bool) -> ProviderError:
    """A command was sent and no answer came."""
    if read:
        return ConnectionFailed(f"{provider}: {why}; the command only reads", provider=provider)
    return OutcomeUnknown(
        f"{provider}: {why}, after the command was sent and before its answer came: it may or may not have happened",
        provider=provider,
    )


def unsent(provider: str, why: str) -> ConnectionFailed:
    """A command was never written to a socket."""
    return ConnectionFailed(f"{provider}: {why}; the command was not sent", provider=provider)


def full(provider: str, most: int) -> PoolTimeout:
    """Too many commands wait."""
    return PoolTimeout(f"{provider}: {most} commands wait for an answer already (max_pending)", provider=provider)


# ---- connecting -----------------------------------------------------------------------------------------------------

_SIGN_IN = {
    "WRONGPASS": "refused the user name or the password: check username and password",
    "NOAUTH": "asks for a password: set password (and username, where it has ACL users)",
    "NOPERM": "does not let this user do what signing in takes (HELLO, CLIENT, SELECT): see its ACL",
    "DENIED": "refuses connections from other machines (protected mode): set a password there",
    "NOPROTO": "does not speak RESP3: Redis 7 or later is needed",
}


def connecting(error: BaseException, *, provider: str, where: str, tls: bool) -> ProviderError:
    """What to make of an error while a connection was made: says what to do about it.

    Args:
        error: of the operating system, of TLS, or the server's answer to the handshake.
        where: host and port.
        tls: whether TLS was tried.
    """
    if isinstance(error, ConnectionFailed) and error.code is None:
        return ConnectionFailed(f"{provider}: the server at {where} closed the connection at once", provider=provider)
    if isinstance(error, ProviderError):
        code = error.code or ""
        message = _SIGN_IN.get(code) or str(error).removeprefix(f"{provider}: ")
        final = code in _SIGN_IN or isinstance(error, QueryRejected)
        raised = ConnectionFailed(
            f"{provider}: the server at {where} {message}" if code in _SIGN_IN else f"{provider}: {where}: {message}",
            provider=provider, code=error.code, retry="never" if final else "safe",
        )  # fmt: skip
        raised.__cause__ = error.__cause__
        return raised
    message, final = _network(error, where)
    if tls and isinstance(error, TimeoutError):
        message += "; does it speak TLS?"
    raised = ConnectionFailed(f"{provider}: {message}", provider=provider, retry="never" if final else "safe")
    raised.__cause__ = DriverError.of(error)
    return raised


def _network(error: BaseException, where: str) -> tuple[str, bool]:
    """The message, and whether trying again is pointless."""
    import socket  # noqa: PLC0415  (asyncio has loaded both)
    import ssl  # noqa: PLC0415

    if isinstance(error, ssl.SSLCertVerificationError):
        reason = str(getattr(error, "verify_message", "") or "it is not valid")
        told = f"the certificate of the server at {where} does not verify: {reason}"
        return told + ": check host, tls.ca_file and tls.server_name", True
    if isinstance(error, ssl.SSLError):
        told = f"TLS with the server at {where} failed ({error.reason or 'no reason given'}): does it speak TLS?"
        return told + " To a server that does not, tls=TLS(verify='off') must be spelled out", True
    if isinstance(error, TimeoutError):
        return f"the server at {where} did not answer in time (connect_timeout)", False
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens at {where}: check host and port, and that the server runs", False
    if isinstance(error, socket.gaierror):
        return f"the host of {where} is not known to the name service: check host", False
    return f"the connection to {where} could not be made", False
