"""What the commands share: their options, how they print, and how they tell that something went wrong.

With ``--json`` the standard output holds one JSON document and nothing else; what is meant for people goes to the
standard error. Text that came from outside is never read as markup, and its control characters print as escapes: a
subject's name cannot move the cursor of the case worker who reads it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from datavern.contracts import errors

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from datavern.contracts.capabilities import Provider
    from datavern.contracts.values import Health
    from datavern.manager.manager import DatabaseManager

__all__ = [
    "CONFIG",
    "DATE",
    "Actor",
    "Config",
    "Json",
    "NewFile",
    "Output",
    "Verbose",
    "Yes",
    "clean",
    "command",
    "jsonable",
    "manager_of",
    "mapped_manager",
    "new_file",
    "probe",
    "require_file",
    "require_new",
    "told",
    "write_new",
]

T = TypeVar("T")
CONFIG = Path("datavern.toml")
DATE: dict[str, Any] = {"formats": ["%Y-%m-%d"], "metavar": "DATE"}  # of an option that is a day
WIDE = 160
Config = Annotated[Path, typer.Option("--config", "-c", metavar="FILE", help="The project's configuration.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="On an error, show where in the code it arose (no values).")]
Actor = Annotated[
    str | None,
    typer.Option("--actor", envvar="DATAVERN_ACTOR", metavar="NAME", help="Who is acting, for the audit log.",
                 show_default="the user of the operating system"),
]  # fmt: skip

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
NewFile = Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this new file.")]

HINTS: tuple[tuple[type[errors.DatavernError], str], ...] = (
    (errors.ConnectionFailed, "`datavern check` says which database does not answer, and why."),
    (errors.PoolTimeout, "Every connection is in use: try again, or raise pool.max."),
    (errors.SerializationConflict, "Somebody changed the same rows: run the command again."),
    (errors.OutcomeUnknown, "It may or may not have happened: look before you run it again."),
    (errors.KeyUnavailable, "The key ring is not the one that sealed this: see keyring in datavern.toml."),
    (errors.ConsentRequired, "`datavern consent grant SUBJECT PURPOSE` records a consent; of a child, --guardian ID."),
    (
        errors.RotationIncomplete,
        "Nothing is lost: run `datavern keys rotate` again; `datavern keys status` shows where it is.",
    ),
    (errors.ErasureIncomplete, "Run the same command again: it goes on where it stopped."),
    (errors.RequestIncomplete, "`datavern subject process REQUEST` goes on with it; `datavern subject list` shows it."),
)


class Output:
    """Where a command prints.

    Args:
        as_json: the standard output is for one JSON document.
        verbose: errors show where in the code they arose.
    """

    def __init__(self, *, as_json: bool = False, verbose: bool = False) -> None:
        self.as_json = as_json
        self.verbose = verbose

    @property
    def console(self) -> Console:
        """What people read: the standard output, or the standard error when that belongs to a program."""
        from rich.console import Console

        stream = sys.stderr if self.as_json else sys.stdout
        # Where nobody watches, a line is as long as it is: what is cut to a terminal's width is hard to search.
        width = None if stream.isatty() or "COLUMNS" in os.environ else WIDE
        return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)

    def say(self, text: str = "", style: str | None = None, *, indent: int = 0) -> None:
        """A paragraph for people; its further lines are indented as the first."""
        console = self.console
        for line in clean(text, keep="\n").split("\n"):
            for part in folded(line, console.width, indent):
                console.print(part, style=style, soft_wrap=True)

    def page(self, text: str) -> None:
        """A page of Markdown as it is, to be put into a file: a table's row that was folded would be two."""
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(clean(text, keep="\n").encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()

    def show(self, what: RenderableType) -> None:
        """Something of rich's for people."""
        self.console.print(what)

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None, whole: Any = ()
    ) -> None:
        """A table for people. Values print as text, whatever they hold; the columns in `whole` are never broken."""
        from rich.text import Text

        from datavern.cli.tables import drawn

        cells = [[c if isinstance(c, Text) else Text(clean(shown(c))) for c in row] for row in rows]
        console = self.console
        console.print(drawn(columns, cells, width=console.width, title=title, whole=whole))

    def document(self, value: Any, *, lines: bool = False) -> None:
        """The one JSON document of a command that was called with ``--json``; nothing without it.

        With `lines` it is one of several, each on a line of its own.
        """
        if self.as_json:
            ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
            sys.stdout.write(json.dumps(jsonable(value), ensure_ascii=ascii_only, indent=None if lines else 2) + "\n")
            sys.stdout.flush()

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar on the standard error while the work lasts, on a terminal alone; what it gives takes each advance."""
        if not sys.stderr.isatty():
            yield lambda _: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda n: bar.update(task, advance=n)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something that cannot be undone. Not within an event loop: Ctrl-C would not end the question.

        Raises:
            ConfigurationError: the answer was no, or there is nobody to ask.
        """
        if yes:
            return
        if not (sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()):
            raise errors.ConfigurationError("nothing was changed: without a terminal to ask on, this needs --yes")
        sys.stderr.write(f"{clean(question)} [y/N] ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
        if not answer.endswith("\n"):  # Ctrl-D leaves the cursor behind the question
            sys.stderr.write("\n")
        if answer.strip().lower() not in {"y", "yes", "j", "ja"}:
            raise errors.ConfigurationError("nothing was changed: the answer was not yes")

    def failed(self, error: BaseException) -> None:
        """Tell of an error: one line, what to do about it, and with ``--verbose`` where it arose."""
        first, *rest = described(error).splitlines() or [type(error).__name__]
        lines = [f"error: {first}", *(f"       {line}" for line in rest)]
        lines += [f"       {hint}" for kind, hint in HINTS if isinstance(error, kind)][:1]
        if self.verbose:
            lines += ["", *trace(error)]
        elif not isinstance(error, errors.DatavernError | OSError):
            lines.append("       This is a fault in Datavern: --verbose shows where, and shows no values.")
        width = shutil.get_terminal_size().columns if sys.stderr.isatty() else 0
        for line in map(clean, lines):
            parts = folded(line, width, hang=7) if width and "File " not in line else [line]
            sys.stderr.write("\n".join(parts) + "\n")
        with suppress(OSError):  # a full disk may be what failed
            self.document({"error": {"kind": type(error).__name__, "message": described(error)}})


@contextmanager
def told(out: Output) -> Iterator[None]:
    """Errors become a message and exit code 1."""
    failure: BaseException
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        raise typer.Exit(130) from None
    except Exception as error:  # noqa: BLE001  (an unexpected error's message may quote a value: it is told without)
        failure = error
    else:
        return
    out.failed(failure)
    raise typer.Exit(1)


def command(out: Output, work: Callable[[], Coroutine[Any, Any, T]], *, actor: str | None = None) -> T:
    """Run a command's work to its end.

    Args:
        out: where it prints.
        work: makes the coroutine.
        actor: who is acting; the operating system's user when None.
    """
    from datavern.contracts.values import actor as acting

    with told(out), acting(actor or system_user()):
        return asyncio.run(work())


def manager_of(config: Path) -> DatabaseManager:
    """The manager that a configuration describes, not open. Raises `ConfigurationError`, as `from_config` does."""
    from datavern.manager.manager import DatabaseManager

    return DatabaseManager.from_config(config)


def mapped_manager(config: Path, otherwise: str = "so nothing about anybody can be found") -> DatabaseManager:
    """The same, of a configuration whose data map names datasets.

    Raises:
        ConfigurationError: as `manager_of`, or the map names none; `otherwise` says what comes of that.
    """
    db = manager_of(config)
    if not db.data_map:
        raise errors.ConfigurationError(f"{config}: the data map names no dataset, {otherwise}")
    return db


def system_user() -> str:
    """Who runs this, as the operating system knows it: ``cli:kari``."""
    import getpass

    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):  # a container's user may have a number and no name
        return f"cli:uid-{os.getuid()}"


async def probe(provider: Provider) -> Health:
    """Connect to a database and ask it how it is. One that cannot be reached has a health too."""
    from datavern.contracts.values import Health

    try:
        await provider.connect()
        return await provider.health()
    except errors.DatavernError as error:
        return Health(status="unhealthy", detail=str(error))


def require_file(path: Path, what: str) -> str:
    """The text of a file that the caller named. Raises `ConfigurationError` when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        reason = "it is not text"
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
    raise errors.ConfigurationError(f"{what} {path}: {reason}")


def require_new(*paths: Path | None) -> None:
    """Raise `ConfigurationError` when a file is there, or cannot be: before the work whose result it takes."""
    for path in paths:
        if path is None:
            continue
        if path.exists():
            raise errors.ConfigurationError(f"{path} is there already, and is not overwritten: name another file")
        if not path.absolute().parent.is_dir():
            raise errors.ConfigurationError(f"{path}: there is no folder {path.absolute().parent}")


def write_new(path: Path, content: str | bytes) -> None:
    """Write a file that only its owner may read, and never over another one.

    Raises:
        ConfigurationError: there is one already.
    """
    with new_file(path, binary=isinstance(content, bytes)) as file:
        file.write(content)


@contextmanager
def new_file(path: Path, *, binary: bool = False) -> Iterator[IO[Any]]:
    """A file that only its owner may read, and never over another one. A block that fails leaves none.

    Raises:
        ConfigurationError: there is one already.
    """
    require_new(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb" if binary else "w", encoding=None if binary else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def folded(line: str, width: int, indent: int = 0, hang: int = 0) -> list[str]:
    """A paragraph in lines of that width, broken between words; further lines are indented as the first, and `hang`."""
    first = " " * (indent + len(line) - len(line.lstrip()))
    return textwrap.wrap(
        line.strip(), max(width, 20), initial_indent=first, subsequent_indent=first or " " * hang,
        break_on_hyphens=False, break_long_words=False,
    ) or [""]  # fmt: skip


def clean(text: str, keep: str = "") -> str:
    """`text` with its control characters as escapes, other than those in `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def shown(value: Any) -> str:
    """A value in a cell of a table."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return str(value)


def jsonable(value: Any) -> Any:  # noqa: PLR0911  (one return for each kind of value)
    """`value` as JSON knows it: times as RFC 3339, bytes as base64, numbers that JSON would round as text."""
    import base64
    from dataclasses import fields, is_dataclass
    from enum import Enum

    if value is None or isinstance(value, bool | int | float | str):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [jsonable(v) for v in items]
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name)) for f in fields(value) if not f.name.startswith("_")}
    return str(value)


def described(error: BaseException) -> str:
    """What may be said of an error. Datavern's own messages hold no values; of a stranger's, the class is told."""
    if isinstance(error, errors.DatavernError | errors.DriverError):
        return str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror.lower()}"
    return f"unexpected {type(error).__qualname__}"


def trace(error: BaseException) -> list[str]:
    """The traceback, with code and without values: no locals, and no message that a stranger wrote."""
    lines: list[str] = []
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        lines += [*trace(cause), "", "which led to:", ""]
    for frame in traceback.extract_tb(error.__traceback__):
        lines.append(f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}')
        if frame.line:
            lines.append(f"    {frame.line}")
    lines.append(f"{type(error).__module__}.{type(error).__qualname__}: {described(error)}")
    for inner in getattr(error, "exceptions", ()):
        lines += ["  one of them:", *(f"  {line}" for line in trace(inner))]
    return lines
