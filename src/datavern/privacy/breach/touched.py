"""What of the datasets a breach touched: by conditions, by time, by a list of people, by what the audit log tells."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datavern.contracts.errors import ConfigurationError, DatavernError
from datavern.contracts.values import timestamp
from datavern.privacy.breach.affected import Counted
from datavern.privacy.breach.breach import Exposed
from datavern.privacy.breach.distinct import TAG, Distinct
from datavern.privacy.breach.scope import Scope, window_of
from datavern.privacy.datamap.categories import article_of, categories_of
from datavern.privacy.datamap.holding import holding_of

if TYPE_CHECKING:
    from datavern.audit.log import AuditLog
    from datavern.contracts.people import Window
    from datavern.crypto.keystore import KeyStore
    from datavern.privacy.personal.store import PersonalStore

__all__ = ["Reads", "Touched", "exposed_in", "read_in", "scope_again", "write_lines"]


class Reads:
    """People whose data was read in a stretch of time, as the audit log tells it (``audit_reads = true``).

    Args:
        since: the first moment.
        until: the first moment after it, or None for no end.
        actor: by whom; everybody when None.
    """

    __slots__ = ("actor", "since", "until")

    def __init__(self, since: dt.datetime, until: dt.datetime | None = None, actor: str | None = None) -> None:
        window_of("at", since, until)
        self.since = since
        self.until = until
        self.actor = actor


async def read_in(reads: Reads, logs: Mapping[str, AuditLog], keys: KeyStore) -> tuple[set[bytes], tuple[Counted, ...]]:
    """The tags of the people who were read, and what of it cannot be told apart. Every log is read through."""
    since = timestamp(reads.since)
    until = None if reads.until is None else timestamp(reads.until)
    handles: set[str] = set()
    together: dict[str, int] = {}
    beside = []
    for name, log in logs.items():
        try:
            async for entry in log.entries():
                if entry["action"] != "read" or (reads.actor is not None and entry["actor"] != reads.actor):
                    continue
                said = json.loads(entry["details"] or "{}")
                # What was gathered for a minute stands at its end, and says when it began.
                if entry["at"] < since or (until is not None and said.get("since", entry["at"]) >= until):
                    continue
                if entry["handle"] is not None:
                    handles.add(entry["handle"])
                elif subjects := said.get("subjects"):
                    label = entry["dataset"] or name
                    together[label] = together.get(label, 0) + subjects
        except DatavernError as error:
            beside.append(Counted(f"the audit log of {name}", problem=str(error)))
    tags = await keys.tags(handles)
    gone = len(handles) - len(tags)
    if gone:
        beside.append(Counted("people who were erased since", problem=f"{gone} were read, and are gone by now"))
    beside += [
        Counted(label, problem=f"up to {many} people were read many at a time, and are not told apart")
        for label, many in together.items()
    ]
    return {tag[:TAG] for tag in tags}, tuple(beside)


class Touched:
    """What of the datasets was touched.

    Args:
        where: dataset → column = value pairs.
        windows: dataset → rows of this time.
        subjects: these people alone.
        reads: people who were read alone.
        tags: of those, the beginnings of the key store's tags.
        beside: what of it cannot be told apart.
    """

    def __init__(
        self,
        where: Mapping[str, Mapping[str, Any]] | None,
        windows: Mapping[str, Window],
        subjects: tuple[str, ...] | None,
        *,
        reads: Reads | None,
        tags: set[bytes] | None,
        beside: Iterable[Counted],
    ) -> None:
        self._where = {name: {c: _any_of(v) for c, v in pairs.items()} for name, pairs in (where or {}).items()}
        self._windows = windows
        self._subjects = subjects
        self._reads = reads
        self._tags = tags
        self.beside = tuple(beside)

    @property
    def only(self) -> Callable[[bytes], bool] | None:
        """Of a person's tag, whether the person counts."""
        tags = self._tags
        return None if tags is None else lambda mark: mark[:TAG] in tags

    def of(self, dataset: str) -> Scope:
        """The part of one dataset."""
        return Scope(self._where.get(dataset), self._windows.get(dataset), self._subjects)

    @property
    def plain(self) -> dict[str, Any]:
        """For the register; a list of people is not kept."""
        reads = self._reads
        return {
            "where": {name: {c: _listed(v) for c, v in pairs.items()} for name, pairs in self._where.items()},
            "windows": {n: [w.column, _iso(w.since), _iso(w.until)] for n, w in self._windows.items()},
            "subjects": None if self._subjects is None else len(self._subjects),
            "reads": None if reads is None else [_iso(reads.since), _iso(reads.until), reads.actor],
        }

    @property
    def words(self) -> str:
        """For people. No value of a condition is in it."""
        parts = [f"{name} where {' and '.join(sorted(pairs))} as given" for name, pairs in self._where.items()]
        for name, window in self._windows.items():
            parts.append(f"{name} by {window.column}{_span(window.since, window.until)}")
        if self._subjects is not None:
            parts.append(f"a list of {len(self._subjects)} people")
        if self._reads is not None:
            by = f" by {self._reads.actor}" if self._reads.actor else ""
            parts.append(f"read{by}{_span(self._reads.since, self._reads.until)}, as the audit log has it")
        return "; ".join(parts) or "everything"


def _any_of(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _iso(moment: dt.datetime | None) -> str | None:
    return None if moment is None else timestamp(moment)


def _span(since: dt.datetime | None, until: dt.datetime | None) -> str:
    return f"{f' from {_iso(since)}' if since else ''}{f' until {_iso(until)}' if until else ''}"


def scope_again(scope: Mapping[str, Any]) -> tuple[Any, Any, Reads | None]:
    """Conditions, windows and reads of a scope as the register keeps it."""

    def moment(text: str | None) -> dt.datetime | None:
        return None if text is None else dt.datetime.fromisoformat(text)

    windows = {name: (column, moment(a), moment(b)) for name, (column, a, b) in scope["windows"].items()}
    reads = scope.get("reads")
    since = None if reads is None else moment(reads[0])
    again = None if reads is None or since is None else Reads(since, moment(reads[1]), reads[2])
    return scope["where"], windows, again


def exposed_in(store: PersonalStore) -> Exposed:
    """What of a dataset is there to be read, as the data map has it."""
    dataset = store.dataset
    categories = categories_of(dataset)
    # What the dataset as a whole is of names no field: the category's own name stands for it.
    special = {name: fields or (name,) for name, fields in categories.items() if article_of(name)}
    return Exposed(
        dataset.label,
        sealed=dataset.sealed,
        readable=tuple(name for name in dataset.fields if name not in dataset.sealed),
        whole=_sealed_whole(store),
        special=tuple(dict.fromkeys(field for fields in special.values() for field in fields)),
        categories=(
            *(f"{name} (Art. {article_of(name)})" if name in special else name for name in categories),
            *(name for name in dataset.fields if not any(name in fields for fields in categories.values())),
        ),
        about=tuple(dataset.about),
        numbers=categories.get("identity_number", ()),
    )


def _sealed_whole(store: PersonalStore) -> bool:
    """Whether each record is sealed as a whole: then, and only then, could its end be that of its key."""
    records = store.provider.capabilities.records
    if records is None or store.dataset.fields:
        return False
    holding = getattr(store, "holding", None) or holding_of(store.dataset)
    try:
        records.check(replace(holding, erasure="shred"))
    except ConfigurationError:
        return False
    return True


def write_lines(path: Path, lines: Distinct) -> int:
    """Write lines to a new file that only its owner may read; how many. One that fails leaves none.

    Raises:
        ConfigurationError: there is one already, or it cannot be written.
    """
    problem = ""
    count = 0
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        problem = f"{path} is there already, and is not overwritten: name another file"
    except OSError as error:
        problem = f"{path}: cannot be written: {error.strerror}"
    if problem:
        raise ConfigurationError(problem)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for line in lines.values():
                file.write(line + b"\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        problem = f"{path}: cannot be written: {error.strerror}"
    if problem:
        path.unlink(missing_ok=True)
        raise ConfigurationError(problem)
    return count
